"""Average precision and IoU: by hand, and against torchmetrics, pycocotools and torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_iou

from fixres.transfer.detection_metrics import Boxes, area, eleven_points, iou, score_boxes
from fixres.transfer.segmentation_metrics import confusion, score_masks


def boxes(
    rows: list[tuple], labels: list[int], scores: list[float] | None = None, ignored: list[bool] | None = None
) -> Boxes:
    num = len(labels)
    return Boxes(
        np.array(rows, float).reshape(-1, 4),
        np.array(labels, int),
        np.array(scores or [1.0] * num),
        np.array(ignored or [False] * num, bool),
    )


A, B, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (50, 50, 60, 60)


@pytest.mark.parametrize(
    ("found", "truth", "eleven", "under"),
    [
        # All found, in any order of scores.
        (boxes([A, B], [0, 0], [0.3, 0.9]), boxes([A, B], [0, 0]), 1.0, 1.0),
        # One of two found: precision 1 up to recall 1/2, which is 6 of the 11 points.
        (boxes([A], [0], [0.9]), boxes([A, B], [0, 0]), 6 / 11, 0.5),
        # A wrong box before the right one: precision 1/2 at recall 1.
        (boxes([FAR, A], [0, 0], [0.9, 0.8]), boxes([A], [0]), 0.5, 0.5),
        # The second box on one object is wrong: right, wrong, right gives precisions 1, 1/2, 2/3.
        (boxes([A, A, B], [0] * 3, [0.9, 0.8, 0.7]), boxes([A, B], [0, 0]), (6 + 5 * 2 / 3) / 11, (1 + 2 / 3) / 2),
        # An ignored object is neither found nor missed.
        (boxes([A, B], [0, 0], [0.9, 0.8]), boxes([A, B], [0, 0], ignored=[True, False]), 1.0, 1.0),
        # Overlap of a half exactly counts; a third does not.
        (boxes([(0, 0, 10, 5)], [0], [0.9]), boxes([A], [0]), 1.0, 1.0),
        (boxes([(5, 0, 15, 10)], [0], [0.9]), boxes([A], [0]), 0.0, 0.0),
        (boxes([], []), boxes([A], [0]), 0.0, 0.0),
        # Another class.
        (boxes([A], [1], [0.9]), boxes([A], [0]), 0.0, 0.0),
    ],
)  # fmt: skip
def test_average_precision_by_hand(found: Boxes, truth: Boxes, eleven: float, under: float) -> None:
    result = score_boxes([found], [truth], ["x", "y"])
    assert result.map_voc07 == pytest.approx(eleven) and result.map_voc == pytest.approx(under)
    assert result.by_class == {"x": pytest.approx(under), "y": None}


def test_recalls_of_tenths_count_exactly() -> None:
    assert eleven_points(np.ones(3, bool), 10) == pytest.approx(4 / 11)  # 0, 0.1, 0.2 and 0.3
    assert area(np.array([True, False, True]), 4) == pytest.approx((1 + 2 / 3) / 4)


def random_images(seed: int) -> tuple[list[Boxes], list[Boxes]]:
    """Objects far from one another, and found boxes near most of them, with different scores."""
    random = np.random.default_rng(seed)
    found, truth = [], []

    def quarters(edges: np.ndarray) -> np.ndarray:
        """Exact in 32 bits, which torchmetrics has."""
        return np.round(4 * edges) / 4

    for _ in range(12):
        corners = random.permutation(16)[:5]
        objects = np.stack([corners % 4, corners // 4], 1) * 100 + random.uniform(0, 20, (5, 2))
        objects = quarters(np.concatenate([objects, objects + random.uniform(20, 70, (5, 2))], 1))
        labels = random.integers(0, 3, 5)
        moved = quarters(objects + random.normal(0, 6, (5, 4)))
        guessed = np.where(random.random(5) < 0.8, labels, random.integers(0, 3, 5))
        truth.append(Boxes(objects, labels, np.ones(5), random.random(5) < 0.2))
        found.append(Boxes(moved, guessed, random.random(5, np.float32), np.zeros(5, bool)))
    return found, truth


@pytest.mark.parametrize("seed", range(3))
def test_coco_agrees_with_torchmetrics_and_voc_with_its_matches(seed: int) -> None:
    found, truth = random_images(seed)
    result = score_boxes(found, truth, ["a", "b", "c"])
    # COCO's thresholds; torchmetrics' own are rounded to 32 bits, and recalls are often equal to one.
    thresholds = {
        "iou_thresholds": np.linspace(0.5, 0.95, 10).tolist(),
        "rec_thresholds": np.linspace(0, 1, 101).tolist(),
    }
    metric = MeanAveragePrecision(backend="pycocotools", **thresholds)
    metric.update(
        [{"boxes": torch.tensor(one.boxes), "scores": torch.tensor(one.scores), "labels": torch.tensor(one.labels)}
         for one in found],
        [{"boxes": torch.tensor(one.boxes), "labels": torch.tensor(one.labels), "iscrowd": torch.tensor(one.ignored)}
         for one in truth],
    )  # fmt: skip
    reference = metric.compute()
    assert result.ap == pytest.approx(float(reference["map"]), abs=1e-5)
    assert result.ap50 == pytest.approx(float(reference["map_50"]), abs=1e-5)
    assert result.ap75 == pytest.approx(float(reference["map_75"]), abs=1e-5)
    # 101 points and the area differ little; objects are far apart, so both match the same boxes. Without crowds, whose
    # overlap COCO counts differently.
    plain = [one._replace(ignored=np.zeros(5, bool)) for one in truth]
    result = score_boxes(found, plain, ["a", "b", "c"])
    assert result.map_voc == pytest.approx(result.ap50, abs=0.01)
    torch.testing.assert_close(
        torch.tensor(iou(found[0].boxes, truth[0].boxes)),
        box_iou(torch.tensor(found[0].boxes), torch.tensor(truth[0].boxes)),
    )


def test_nothing_found_is_zero() -> None:
    result = score_boxes([boxes([], [])], [boxes([A], [0])], ["x"])
    assert (result.map_voc, result.ap, result.num_images, result.num_objects) == (0.0, 0.0, 1, 1)


def test_masks_by_hand() -> None:
    labels = torch.tensor([[0, 0, 1, 255], [0, 1, 1, 255]], dtype=torch.uint8)
    predicted = torch.tensor([[0, 1, 1, 1], [0, 1, 0, 0]])
    result = score_masks(confusion(predicted, labels, 3), ["a", "b", "c"], 1)
    assert result.pixel_accuracy == pytest.approx(4 / 6) and result.num_pixels == 6
    assert result.by_class == {"a": pytest.approx(2 / 4), "b": pytest.approx(2 / 4), "c": None}
    assert result.mean_iou == pytest.approx(0.5)


def test_masks_agree_with_torchmetrics() -> None:
    torch.manual_seed(0)
    labels, predicted = torch.randint(0, 5, (3, 40, 30)), torch.randint(0, 5, (3, 40, 30))
    labels[torch.rand(labels.shape) < 0.1] = 255
    matrix = confusion(predicted, labels, 5)
    assert torch.equal(matrix, MulticlassConfusionMatrix(5, ignore_index=255)(predicted, labels))
    result = score_masks(matrix, list("abcde"), 3)
    assert result.mean_iou == pytest.approx(float(MulticlassJaccardIndex(5, ignore_index=255)(predicted, labels)))
