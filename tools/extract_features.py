"""Pooled features, probabilities and labels of a split as .npy files; the same command resumes a killed run.

python tools/extract_features.py --model runs/demo/fast/finetuned.pt --data.path FOLDER --output features/a
"""

from __future__ import annotations

import sys

from fixres.pipelines.runtime.exit_codes import run


def main() -> None:
    """Parses the job, extracts, prints the result."""
    from fixres.config.parsing import parse
    from fixres.evaluation.features import ExtractJob, extract
    from fixres.models.precision import choose_device
    from fixres.pipelines.datasets.eval_data import open_eval_data

    job = parse(ExtractJob, sys.argv[1:], "Writes embeddings, softmax and labels of all images of a split.")
    data = open_eval_data(job.data, str(choose_device(job.device)), job.images)
    done = extract(job, data, data.classes, data.image_names(job.split), data.pixel_settings(job.split))
    print(
        f"{done.folder}: {done.num_images} images, {done.num_kept} of them from before; {done.seconds:.1f} s, "
        f"{(done.num_images - done.num_kept) / max(done.seconds, 1e-9):.0f} images/s"
    )


if __name__ == "__main__":
    run(main)
