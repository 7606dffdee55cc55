"""Several crops of each image, as a user writes them."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from fixres.pipelines.crop_types import ViewGroup
from fixres.pipelines.spec import InputError
from fixres.pipelines.value_types import check_types

_MAX_VIEWS = 256
_TYPES = {"number of views": int, "side of views": int | None, "scale of views": tuple[float, float] | None}

ViewSettings = int | Sequence[Sequence]
"""A number of crops, or (number, side in pixels) or (number, side, (low, high) of scale) for each size."""


def view_groups(views: ViewSettings) -> tuple[ViewGroup, ...]:
    """The groups for `LoaderConfig.views`; empty for one crop.

    Raises:
        InputError: a number below 1 or too large, or a group of another form.
    """
    if isinstance(views, Integral):
        groups = (ViewGroup(int(views)),)
    elif not views:
        raise InputError("views=[] must have at least one group, such as (2, 224)")
    else:
        groups = tuple(_group(one) for one in views)
    if (num := sum(group.num for group in groups)) > _MAX_VIEWS:
        raise InputError(f"views: {num:,} crops of each image, of at most {_MAX_VIEWS}; lower the number")
    return () if views == 1 else groups


def _group(given: Sequence) -> ViewGroup:
    values = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else ()
    if not 2 <= len(values) <= 3:
        raise InputError(f"views: {given!r} must be (number, side) or (number, side, (low, high) of scale)")
    num, side, scale = (*values, None)[:3]
    check_types(dict(zip(_TYPES, (num, side, scale), strict=True)), _TYPES)
    return ViewGroup(num, side, None if scale is None else tuple(scale))
