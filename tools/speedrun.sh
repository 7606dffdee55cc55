#!/usr/bin/env bash
# ImageNet from its files to an accuracy, against the clock: one command, one record. Rules: docs/speedrun.md.
#   tools/speedrun.sh IMAGENET --gpus 8 --seeds 1,2,3
#   tools/speedrun.sh scenes --gpus 0 --config demo --networks resnet10t     a rehearsal without a GPU
# IMAGENET: any layout that docs/data.md lists. The same command resumes after an interruption.
set -euo pipefail
[ $# -ge 1 ] || { echo "speedrun: give ImageNet's folder, see docs/speedrun.md" >&2; exit 2; }
data=$1
[ "$data" = scenes ] || data=$(realpath "$data")
shift
cd "$(dirname "$0")/.."
exec "${PYTHON:-.venv/bin/python}" -m benchmarks.speedrun --data "$data" "$@"
