"""From apparent sizes to the test resolutions worth testing, and their cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fixres.pipelines.spec import MAX_RESOLUTION, MIN_RESOLUTION, EvalCrop, InputError, TrainCrop, check_resolution
from fixres.resolution.apparent_size import apparent_ratio, ideal_sigma, matching_test_res


@dataclass(frozen=True)
class Candidate:
    """One test resolution.

    Attributes:
        ratio: expected apparent size in testing over that in training; 1 means equal.
        standard_error: of `ratio`, if only a sample of the images was used; else 0.
        cost_factor: pixels of an image over those at the training resolution, about the ratio of test times.
    """

    test_res: int
    ratio: float
    standard_error: float
    cost_factor: float


@dataclass(frozen=True)
class Advice:
    """The advice from apparent sizes for the test resolution.

    Attributes:
        stride: advised resolutions are multiples of it.
        num_images: number of images whose sizes were used.
        num_samples: images of the data set.
        ideal_ratio: the paper's equation 4, which assumes square images and does not model rejected boxes.
        matching_test_res: the resolution at which the expected ratio is 1; not rounded.
        at_train_res: testing at the training resolution.
        candidates: the multiples of the stride next to `matching_test_res`, rising; one if it is a multiple itself.
        advised: the candidate whose ratio is nearer to 1.
    """

    train_res: int
    train_crop: TrainCrop
    crop_pct: float
    stride: int
    num_images: int
    num_samples: int
    ideal_ratio: float
    matching_test_res: float
    at_train_res: Candidate
    candidates: tuple[Candidate, ...]
    advised: Candidate


def advise(
    train_res: int,
    train_crop: TrainCrop,
    eval_crop: EvalCrop,
    sizes: np.ndarray,
    stride: int = 32,
    num_samples: int | None = None,
) -> Advice:
    """Computes the advice for one way of training; see `apparent_size` for the arguments.

    With progressive resizing `train_res` is the last training resolution. `stride` is the network's, in pixels.
    """
    check_resolution(train_res)
    if not 1 <= stride <= MAX_RESOLUTION:
        raise InputError(f"stride={stride} must be 1 to {MAX_RESOLUTION} pixels; 32 suits most networks")

    def candidate(test_res: int) -> Candidate:
        ratio = apparent_ratio(train_crop, eval_crop, sizes, train_res, test_res, num_samples)
        return Candidate(test_res, *ratio, (test_res / train_res) ** 2)

    match = matching_test_res(train_crop, eval_crop, sizes, train_res)
    candidates = tuple(candidate(test_res) for test_res in _neighbors(match, stride))
    return Advice(
        train_res=train_res,
        train_crop=train_crop,
        crop_pct=eval_crop.crop_pct,
        stride=stride,
        num_images=len(sizes),
        num_samples=num_samples or len(sizes),
        ideal_ratio=ideal_sigma(train_crop.scale) / eval_crop.crop_pct,
        matching_test_res=match,
        at_train_res=candidate(train_res),
        candidates=candidates,
        advised=min(candidates, key=lambda one: abs(np.log(one.ratio))),
    )


def _neighbors(resolution: float, stride: int) -> list[int]:
    """The multiples of `stride` next to `resolution` that loaders support."""
    lowest, highest = -(-MIN_RESOLUTION // stride), MAX_RESOLUTION // stride
    steps = {int(np.floor(resolution / stride)), int(np.ceil(resolution / stride))}
    return sorted({min(max(step, lowest), highest) * stride for step in steps})


def explanation(advice: Advice) -> str:
    """The advice as one line."""
    train, advised = advice.at_train_res, advice.advised
    line = (
        f"Tested at {train.test_res} px as trained, objects look {train.ratio:.2f} times as large as in training; at "
        f"{advice.matching_test_res:.0f} px they would look alike"
    )
    if advised.test_res == advice.train_res:
        return f"{line}: stay at {advised.test_res} px."
    gain = f"({advised.ratio:.2f} times) at {advised.cost_factor:.2f} times the pixels"
    return f"{line}: try {advised.test_res} px {gain}."


def as_text(advice: Advice) -> str:
    """The advice as lines for the terminal: the images, a row for each resolution, the explanation."""
    images = f"{advice.num_images} images"
    if advice.num_images < advice.num_samples:
        images = f"{images} chosen at random of {advice.num_samples}"
    crop = advice.train_crop
    lines = [
        f"sizes of {images}; crops of scale {crop.scale[0]:g} to {crop.scale[1]:g}, ratio {crop.ratio[0]:.3g} to "
        f"{crop.ratio[1]:.3g}; crop_pct {advice.crop_pct:g}",
        f"apparent size in testing over training, if all images were square and all boxes fit: "
        f"{advice.ideal_ratio:.3f} at {advice.train_res} px",
        "",
        "  test_res   ratio   standard error   pixels",
    ]
    for one in sorted({advice.at_train_res, *advice.candidates}, key=lambda one: one.test_res):
        notes = ["as trained"] * (one.test_res == advice.train_res) + ["advised"] * (one == advice.advised)
        row = f"  {one.test_res:>5} px   {one.ratio:.3f}   {one.standard_error:>14.4f}   {one.cost_factor:>5.2f}x"
        lines.append(f"{row}   {', '.join(notes)}".rstrip())
    return "\n".join([*lines, "", explanation(advice)])
