"""Several crops of each image, as a user writes them."""

from __future__ import annotations

from collections.abc import Sequence

from fixres.pipelines.crop_types import ViewGroup
from fixres.pipelines.spec import InputError
from fixres.pipelines.value_types import check_types

ViewSettings = int | Sequence[Sequence]
"""A number of crops, or (number, side in pixels) or (number, side, (low, high) of scale) for each size."""


def view_groups(views: ViewSettings) -> tuple[ViewGroup, ...]:
    """The groups for `LoaderConfig.views`; empty for one crop.

    Raises:
        InputError: a number below 1, or a group of another form.
    """
    if isinstance(views, int):
        group = ViewGroup(views)
        return () if views == 1 else (group,)
    if not views:
        raise InputError("views=[] must have at least one group, such as (2, 224)")
    return tuple(_group(one) for one in views)


def _group(given: Sequence) -> ViewGroup:
    values = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else ()
    if not 2 <= len(values) <= 3:
        raise InputError(f"views: {given!r} must be (number, side) or (number, side, (low, high) of scale)")
    num, side, scale = (*values, None)[:3]
    check_types({"number of views": num, "side of views": side}, {"number of views": int, "side of views": int | None})
    return ViewGroup(num, side, None if scale is None else tuple(scale))
