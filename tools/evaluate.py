"""Tests a network, or scores extracted probabilities: accuracies with confidence intervals, cost of each resolution.

python tools/evaluate.py --model runs/demo/fast/finetuned.pt --data.path FOLDER --test_res [96,128] --json result.json
python tools/evaluate.py --model weights.pth --arch resnet50.tv_in1k --images imagenetv2-matched-frequency-format-val
python tools/evaluate.py --softmax [features/a,features/b]   # the mean of both
"""

from __future__ import annotations

import sys

from fixres.pipelines.runtime.atomic_files import write_json
from fixres.pipelines.runtime.exit_codes import run


def main() -> None:
    """Parses the job, tests, prints a line for each resolution, writes the record."""
    from fixres.config.parsing import parse
    from fixres.evaluation.job import (
        EvaluateJob,
        evaluate_network,
        evaluate_softmax,
        evaluation_record,
        evaluation_table,
    )
    from fixres.models.precision import choose_device
    from fixres.pipelines.datasets.eval_data import names_for_real, open_eval_data

    job = parse(EvaluateJob, sys.argv[1:], "Tests a network with its own transform.")
    if job.softmax_files:
        evaluations = [evaluate_softmax(job)]
    else:
        data = open_eval_data(job.data, str(choose_device(job.device)), job.images)
        names = names_for_real(data, job.val_labels) if job.real else None
        evaluations = evaluate_network(job, data, data.classes, names)
    print(evaluation_table(evaluations))
    if job.json is not None:
        write_json(job.json, evaluation_record(job, evaluations))


if __name__ == "__main__":
    run(main)
