#!/usr/bin/env bash
# All checks that need a GPU, without network: tests, JPEG decoders, speeds, a run of the demo. Records are written to
# benchmarks/results/*_gpu.json, a summary to the terminal. If a part fails, the other parts still run; if an engine does
# not work, the other engines are still measured.
#   tools/run_gpu_checks.sh PHOTOS [PART ...]     PHOTOS: a folder of photographs for the speeds; no PART: all of them
#   PYTHON=python3 THREADS=16 RESULTS=folder LIMIT=500 tools/run_gpu_checks.sh PHOTOS throughput train_step
#   DEVICE=cpu RESULTS=folder tools/run_gpu_checks.sh PHOTOS     a rehearsal without a GPU: the same calls, small
# Parts: tests decoder nvjpeg_backends fidelity throughput dali_stages train_step end_to_end_step scaling fault_tolerance demo. A
# part that takes longer than LIMIT seconds is interrupted as by Ctrl-C; the benchmarks then keep their results so far.
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
all="tests decoder nvjpeg_backends fidelity throughput dali_stages train_step end_to_end_step scaling fault_tolerance demo"
wanted=${*:-$all}
device=${DEVICE:-cuda}
failed=()
engines=
# 200 batches an epoch, because engine dali builds a pipeline for each epoch; in short epochs that would dominate.
model=resnet50 batch=256 images=51200 rounds=20 processes=all candidates="roc-gpu roc-dali dali roc ffcv torchvision-gpu" demo=()
networks=small:64:32,resnet18:128:256,resnet50:128:256
if [ "$device" = cpu ]; then
  model=resnet10t batch=16 images=512 rounds=1 processes=1 candidates="roc-dali dali roc ffcv" networks=small:64:8
  demo=(--variants.baseline.epochs 2 --variants.fast.epochs 2 --variants.fast.finetune.epochs 1)
  [ -n "${RESULTS:-}" ] || stop "a rehearsal measures nothing useful; name a folder for its records: RESULTS=..."
fi

for name in $wanted; do [[ " $all " = *" $name "* ]] || stop "part $name does not exist; choose from $all"; done

limited() { timeout --foreground --signal=INT --kill-after=60 "$limit" "$@"; }

part() {
  local name=$1
  shift
  [[ " $wanted " = *" $name "* ]] || return 0
  echo "=== $name: $*"
  limited "$@" || failed+=("$name")
}

# Also converts the data for each engine.
try_engines() {
  local engine found=()
  for engine in $candidates; do
    echo "=== trying engine $engine"
    if limited "$python" -m benchmarks.throughput "${data[@]}" --engines $engine --train-res 128 --rounds 1; then
      found+=("$engine")
    else
      failed+=("engine-$engine")
    fi
  done
  engines=$(IFS=,; echo "${found[*]}")
}

[ "$device" = cpu ] || "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
  stop "torch sees no GPU here; use DEVICE=cpu for a rehearsal"
mkdir -p "$results"
data=(--data "$photos" --device "$device" --num-workers "$threads" --batch-size $batch --num-images $images)
part tests "$python" -m pytest -m gpu -q
# Pixels and speed of engine roc-gpu's kernels; on a machine with torch and numpy alone, benchmarks.loaders.gpu_decoder.
fixtures=$runs/gpu_fixtures.npz
part decoder "$python" -m benchmarks.loaders.gpu_fixtures --data "$photos" --output "$fixtures"
if [ "$device" != cpu ]; then
  part decoder "$python" -m benchmarks.loaders.gpu_decoder "$fixtures" --json "$results/decoder_gpu.json"
  if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
      part decoder compute-sanitizer --error-exitcode 1 --tool $tool "$python" -m benchmarks.loaders.gpu_decoder \
        "$fixtures" pixels
    done
  fi
fi
part nvjpeg_backends "$python" -m benchmarks.loaders.nvjpeg_backends --data "$photos" --device "$device" \
  --json "$results/nvjpeg_backends_gpu.json"
# With full levels only, so that only decoder and resize differ from the reference.
part fidelity "$python" -m benchmarks.loaders.fidelity --data "$photos" --device "$device" --engines roc-dali,dali-slice \
  --min-zoom 1000 --output "$runs/fidelity_gpu" --json "$results/fidelity_gpu.json"
[[ " $wanted " = *" throughput "* || " $wanted " = *" end_to_end_step "* ]] && try_engines
part throughput "$python" -m benchmarks.throughput "${data[@]}" --engines "$engines" --train-res 128,160,224 \
  --rounds $rounds --json "$results/throughput_gpu.json"
part dali_stages "$python" -m benchmarks.loaders.dali_stages --data "$photos" --device "$device" --num-workers "$threads" \
  --json "$results/dali_stages_gpu.json"
part train_step "$python" -m benchmarks.training.train_step --device "$device" --models $model --batch-size $batch \
  --train-res 128,160,224 --json "$results/train_step_gpu.json"
part end_to_end_step "$python" -m benchmarks.training.end_to_end_step "${data[@]}" --model $model \
  --engines "$engines" --train-res 128,160,224 --json "$results/end_to_end_step_gpu.json"
part scaling "$python" -m benchmarks.scaling --data "$photos" --device "$device" --processes "$processes" \
  --model $model --engine roc-dali --batch-size $batch --num-images $images --json "$results/scaling_gpu.json"
part fault_tolerance "$python" -m benchmarks.scaling.fault_tolerance_overhead --device "$device" --networks $networks \
  --json "$results/fault_tolerance_gpu.json"
part demo "$python" tools/train_fast.py --output "$runs/demo_gpu" --device "$device" --profile 20 "${demo[@]}"
if [ ${#failed[@]} -gt 0 ]; then
  echo "run_gpu_checks: failed: ${failed[*]}" >&2
  exit 1
fi
echo "run_gpu_checks: all parts ran"
