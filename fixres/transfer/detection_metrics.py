"""Average precision of boxes: Pascal VOC's two definitions, and COCO's by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

_IOU = 0.5


class Boxes(NamedTuple):
    """The boxes of one image: found ones with scores, or annotated ones with `ignored`.

    Attributes:
        boxes: float (N, 4), left, top, right, bottom in pixels.
        labels: int (N,).
        scores: float (N,); for annotated boxes anything.
        ignored: bool (N,); such objects count neither as found nor as missed. For found boxes anything.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True)
class DetectionResult:
    """Average precisions as fractions.

    Attributes:
        map_voc07: mean over classes of VOC 2007's average of 11 precisions at IoU 0.5.
        map_voc: mean over classes of the area under the precision-recall curve at IoU 0.5 (VOC since 2010).
        ap: COCO's mean over IoU 0.5 to 0.95; None without pycocotools.
        ap50: COCO's at IoU 0.5.
        ap75: COCO's at IoU 0.75.
        by_class: class name to its area under the curve at IoU 0.5; None for classes without test objects.
        num_images: test images.
        num_objects: annotated boxes that count.
    """

    map_voc07: float
    map_voc: float
    ap: float | None
    ap50: float | None
    ap75: float | None
    by_class: dict[str, float | None]
    num_images: int
    num_objects: int


def score_boxes(found: Sequence[Boxes], truth: Sequence[Boxes], classes: Sequence[str]) -> DetectionResult:
    """All metrics of found boxes, image by image in the same order as the annotated ones."""
    curves = [_curve(found, truth, label) for label in range(len(classes))]
    eleven = [eleven_points(*curve) for curve in curves if curve is not None]
    areas = [None if curve is None else area(*curve) for curve in curves]
    ap, ap50, ap75 = coco_ap(found, truth, len(classes))
    return DetectionResult(
        map_voc07=float(np.mean(eleven)) if eleven else 0.0,
        map_voc=float(np.mean([one for one in areas if one is not None])) if eleven else 0.0,
        ap=ap,
        ap50=ap50,
        ap75=ap75,
        by_class=dict(zip(classes, areas, strict=True)),
        num_images=len(truth),
        num_objects=int(sum((~one.ignored).sum() for one in truth)),
    )


def _curve(found: Sequence[Boxes], truth: Sequence[Boxes], label: int) -> tuple[np.ndarray, int] | None:
    """Whether each found box of a class is right, the highest score first, and the number of objects.

    As VOC's evaluation: each found box belongs to the object that it overlaps most. The first one there is right, any
    further one is wrong. Boxes on ignored objects are left out. None for a class without objects.
    """
    scores, hits = [], []
    num_objects = 0
    for one, other in zip(found, truth, strict=True):
        mine, theirs = one.labels == label, other.labels == label
        ignored = other.ignored[theirs]
        num_objects += int((~ignored).sum())
        order = np.argsort(-one.scores[mine], kind="stable")
        scores.append(one.scores[mine][order])
        hits.append(_matches(one.boxes[mine][order], other.boxes[theirs], ignored))
    if num_objects == 0:
        return None
    all_hits = np.concatenate(hits)[np.argsort(-np.concatenate(scores), kind="stable")]
    return all_hits[all_hits >= 0] > 0, num_objects


def _matches(boxes: np.ndarray, objects: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """For each found box, the highest score first: 1 if it is right, 0 if it is wrong, -1 if it does not count."""
    hits = np.zeros(len(boxes), int)
    if not len(objects):
        return hits
    overlaps, taken = iou(boxes, objects), np.zeros(len(objects), bool)
    for k, best in enumerate(overlaps.argmax(1)):
        if overlaps[k, best] < _IOU:
            continue
        hits[k] = -1 if ignored[best] else int(not taken[best])
        taken[best] = True
    return hits


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union, float (N, M), of boxes (N, 4) and (M, 4)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas, other_areas = (np.prod(one[:, 2:] - one[:, :2], axis=1) for one in (boxes, others))
    return shared / np.maximum(areas[:, None] + other_areas[None] - shared, 1e-12)


def eleven_points(hits: np.ndarray, num_objects: int) -> float:
    """Mean of the best precisions at recalls of at least 0, 0.1, ..., 1 (VOC 2007)."""
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    # Whole numbers: 0.1 * 3 is more than 3 / 10 in floating point.
    return float(np.mean([precision[10 * right >= k * num_objects].max(initial=0.0) for k in range(11)]))


def area(hits: np.ndarray, num_objects: int) -> float:
    """Area under the curve of recall and the best precision at that recall or more (VOC since 2010)."""
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best[hits].sum() / num_objects)  # recall rises by 1 / num_objects at each right box


def coco_ap(
    found: Sequence[Boxes], truth: Sequence[Boxes], num_classes: int
) -> tuple[float | None, float | None, float | None]:
    """COCO's AP, AP50 and AP75; Nones without pycocotools. Ignored objects are crowds in COCO's sense."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        return None, None, None
    if not sum(len(one.labels) for one in found) or not sum((~one.ignored).sum() for one in truth):
        return 0.0, 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):  # it prints tables
        annotated = COCO()
        annotated.dataset = {
            "info": {},
            "images": [{"id": k} for k in range(len(truth))],
            "categories": [{"id": label} for label in range(num_classes)],
            "annotations": _as_coco(truth, annotated=True),
        }
        annotated.createIndex()
        evaluation = COCOeval(annotated, annotated.loadRes(_as_coco(found, annotated=False)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50, ap75 = (max(0.0, float(value)) for value in evaluation.stats[:3])
    return ap, ap50, ap75


def _as_coco(images: Sequence[Boxes], annotated: bool) -> list[dict[str, Any]]:
    """Boxes as COCO's JSON has them; numbers of annotations begin at 1, because 0 means no match."""
    rows = []
    for k, one in enumerate(images):
        for box, label, score, ignored in zip(one.boxes, one.labels, one.scores, one.ignored, strict=True):
            left, top, right, bottom = map(float, box)
            row: dict[str, Any] = {"image_id": k, "category_id": int(label),
                                   "bbox": [left, top, right - left, bottom - top]}  # fmt: skip
            if annotated:
                size = (right - left) * (bottom - top)
                row |= {"id": len(rows) + 1, "area": size, "iscrowd": int(ignored)}
            else:
                row |= {"score": float(score)}
            rows.append(row)
    return rows
