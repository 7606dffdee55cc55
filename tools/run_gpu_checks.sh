#!/usr/bin/env bash
# Everything that needs a GPU, without network: tests, what the decoders take, speeds, a run of the demo. Records go to
# benchmarks/results/*_gpu.json, a summary to the terminal. One part that fails does not keep the others from running,
# nor does an engine that does not work keep the other engines from being measured.
#   tools/run_gpu_checks.sh PHOTOS [PART ...]     PHOTOS: a folder of photographs for the speeds; no PART: all of them
#   PYTHON=python3 THREADS=16 RESULTS=folder LIMIT=500 tools/run_gpu_checks.sh PHOTOS throughput fed_step
#   DEVICE=cpu RESULTS=folder tools/run_gpu_checks.sh PHOTOS     a rehearsal where there is no GPU: the same calls, small
# Parts: tests jpeg_backends fidelity throughput feeding train_step fed_step scaling survival demo. One that takes
# longer than LIMIT seconds is ended as by Ctrl-C, with which the benchmarks keep what they have measured.
set -uo pipefail
stop() { echo "run_gpu_checks: $*" >&2; exit 2; }
[ $# -ge 1 ] && [ -d "$1" ] || stop "give a folder of photographs"
photos=$(cd "$1" && pwd)
shift
results=$(realpath -m "${RESULTS:-$(dirname "$0")/../benchmarks/results}")
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
threads=${THREADS:-$(nproc)}
runs=${RESULTS:+$results}
runs=${runs:-runs}
limit=${LIMIT:-1800}
all="tests jpeg_backends fidelity throughput feeding train_step fed_step scaling survival demo"
wanted=${*:-$all}
device=${DEVICE:-cuda}
failed=()
engines=
# 200 batches an epoch: engine dali makes a pipeline for each epoch, which must not count as much as in a short one.
model=resnet50 batch=256 images=51200 rounds=20 processes=all rivals="roc-dali dali roc ffcv torchvision-gpu" demo=()
networks=small:64:32,resnet18:128:256,resnet50:128:256
if [ "$device" = cpu ]; then
  model=resnet10t batch=16 images=512 rounds=1 processes=1 rivals="roc-dali dali roc ffcv" networks=small:64:8
  demo=(--variants.baseline.epochs 2 --variants.fast.epochs 2 --variants.fast.finetune.epochs 1)
  [ -n "${RESULTS:-}" ] || stop "a rehearsal measures nothing of worth; name a folder for its records: RESULTS=..."
fi

for name in $wanted; do [[ " $all " = *" $name "* ]] || stop "there is no part $name; choose from $all"; done

limited() { timeout --foreground --signal=INT --kill-after=60 "$limit" "$@"; }

part() {
  local name=$1
  shift
  [[ " $wanted " = *" $name "* ]] || return 0
  echo "=== $name: $*"
  limited "$@" || failed+=("$name")
}

# Makes an engine's files as well.
try_engines() {
  local engine found=()
  for engine in $rivals; do
    echo "=== trying engine $engine"
    if limited "$python" -m benchmarks.throughput "${data[@]}" --engines $engine --res 128 --rounds 1; then
      found+=("$engine")
    else
      failed+=("engine-$engine")
    fi
  done
  engines=$(IFS=,; echo "${found[*]}")
}

[ "$device" = cpu ] || "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
  stop "torch sees no GPU here; DEVICE=cpu rehearses without"
mkdir -p "$results"
data=(--data "$photos" --device "$device" --threads "$threads" --batch-size $batch --num-images $images)
part tests "$python" -m pytest -m gpu -q
part jpeg_backends "$python" -m benchmarks.loaders.nvjpeg_backends --data "$photos" --device "$device" \
  --json "$results/jpeg_backends_gpu.json"
# At full levels, so that only decoder and resize differ from the reference.
part fidelity "$python" -m benchmarks.loaders.fidelity --data "$photos" --device "$device" --engines roc-dali,dali-slice \
  --min-zoom 1000 --out "$runs/fidelity_gpu" --json "$results/fidelity_gpu.json"
[[ " $wanted " = *" throughput "* || " $wanted " = *" fed_step "* ]] && try_engines
part throughput "$python" -m benchmarks.throughput "${data[@]}" --engines "$engines" --res 128,160,224 \
  --rounds $rounds --json "$results/throughput_gpu.json"
part feeding "$python" -m benchmarks.loaders.dali_stages --data "$photos" --device "$device" --threads "$threads" \
  --json "$results/feeding_gpu.json"
part train_step "$python" -m benchmarks.training.train_step --device "$device" --models $model --batch-size $batch \
  --res 128,160,224 --json "$results/train_step_gpu.json"
part fed_step "$python" -m benchmarks.training.end_to_end_step "${data[@]}" --model $model --engines "$engines" --res 128,160,224 \
  --json "$results/fed_step_gpu.json"
part scaling "$python" -m benchmarks.scaling --data "$photos" --device "$device" --processes "$processes" \
  --model $model --engine roc-dali --batch-size $batch --num-images $images --json "$results/scaling_gpu.json"
part survival "$python" -m benchmarks.scaling.fault_tolerance_overhead --device "$device" --networks $networks \
  --json "$results/survival_gpu.json"
part demo "$python" tools/train_fast.py --run_dir "$runs/demo_gpu" --device "$device" --profile 20 "${demo[@]}"
if [ ${#failed[@]} -gt 0 ]; then
  echo "run_gpu_checks: failed: ${failed[*]}" >&2
  exit 1
fi
echo "run_gpu_checks: all parts ran"
