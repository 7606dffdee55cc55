"""Tests a network with its own transform, or scores extracted probabilities: accuracies with 95 % intervals, cost.

fixres evaluate runs/demo/fast/finetuned.pt --test-res 96,128                  # on the data of its training
fixres evaluate runs/demo/fast/finetuned.pt --data FOLDER --json result.json
fixres evaluate weights.pth --arch resnet50.tv_in1k --images imagenetv2-matched-frequency-format-val
fixres evaluate --softmax features/a,features/b                                # the mean of both
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fixres.cli.output import put_json
from fixres.config.jobs import EvaluateJob
from fixres.config.parsing import parse as parse_options


def parse(arguments: Sequence[str]) -> EvaluateJob:
    """The job of the command line."""
    return parse_options(EvaluateJob, arguments, __doc__)


def run(job: EvaluateJob) -> None:
    """Tests, prints a line for each resolution, writes the record."""
    from fixres.api.classes import names_from
    from fixres.cli.data import data_of
    from fixres.evaluation.job import evaluate_network, evaluate_softmax, evaluation_record, evaluation_table
    from fixres.models.precision import choose_device
    from fixres.models.pretrained import open_chosen
    from fixres.pipelines.datasets.eval_data import names_for_real, open_eval_data

    if job.softmax:
        evaluations = [evaluate_softmax(job)]
    else:
        job = job if job.images else replace(job, data=data_of(job))
        data = open_eval_data(job.data, str(choose_device(job.device)), job.images)
        opened = open_chosen(job, data.classes, names_from(job.classes))  # before the images are converted
        names = names_for_real(data, job.val_labels) if job.real else None
        evaluations = evaluate_network(job, opened, data, names)
    if job.json != Path("-"):
        print(evaluation_table(evaluations))
    put_json(job.json, evaluation_record(job, evaluations))
