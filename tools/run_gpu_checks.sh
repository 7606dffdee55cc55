#!/usr/bin/env bash
# Everything that needs a GPU, in one go, without network: tests, speeds, a run of the demo. Records go to
# benchmarks/results/*_gpu.json, a summary to the terminal. One part that fails does not keep the others from running.
#   tools/run_gpu_checks.sh PHOTOS       PHOTOS: a folder of photographs for the speeds
#   PYTHON=python3 THREADS=16 tools/run_gpu_checks.sh PHOTOS
set -uo pipefail
cd "$(dirname "$0")/.."
[ $# = 1 ] && [ -d "$1" ] || { echo "run_gpu_checks: give a folder of photographs" >&2; exit 2; }
python=${PYTHON:-.venv/bin/python}
threads=${THREADS:-$(nproc)}
results=benchmarks/results
failed=()

part() {
  local name=$1
  shift
  echo "=== $name: $*"
  "$@" || failed+=("$name")
}

"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
  { echo "run_gpu_checks: torch sees no GPU here" >&2; exit 2; }
part tests "$python" -m pytest -m gpu -q
part throughput "$python" -m benchmarks.throughput --data "$1" --device cuda --engines roc-dali,dali,roc,ffcv,torchvision-gpu \
  --res 128,160,224 --threads "$threads" --batch-size 256 --num-images 12800 --json $results/throughput_gpu.json
part feeding "$python" -m benchmarks.feeding --data "$1" --device cuda --threads "$threads" --json $results/feeding_gpu.json
part train_step "$python" -m benchmarks.train_step --device cuda --models resnet50 --batch-size 256 --res 128,160,224 \
  --json $results/train_step_gpu.json
part fed_step "$python" -m benchmarks.fed_step --data "$1" --device cuda --model resnet50 --batch-size 256 \
  --engines roc-dali,dali,roc,ffcv,torchvision-gpu --res 128,160,224 --threads "$threads" --num-images 12800 \
  --json $results/fed_step_gpu.json
part scaling "$python" -m benchmarks.scaling --data "$1" --device cuda --processes all --model resnet50 --engine roc-dali \
  --batch-size 256 --num-images 12800 --json $results/scaling_gpu.json
part survival "$python" -m benchmarks.survival_overhead --device cuda --networks small:64:32,resnet18:128:256,resnet50:128:256 \
  --json $results/survival_gpu.json
part demo "$python" tools/train_fast.py --run_dir runs/demo_gpu --profile 20
if [ ${#failed[@]} -gt 0 ]; then
  echo "run_gpu_checks: failed: ${failed[*]}" >&2
  exit 1
fi
echo "run_gpu_checks: all parts ran"
