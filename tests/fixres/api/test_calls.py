"""Calls from Python: types are checked, and messages name keywords instead of options."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import pytest

from fixres.api.calls import checked, options_as_keywords
from fixres.pipelines.spec import BadSampleError, InputError


@checked
def example(size: int, *, names: Sequence[str] = (), **others: Any) -> Nothing:  # noqa: F821 (known to type checkers only)
    """A function."""
    if size < 0:
        raise InputError(f"size={size}: omit --max-size, or use --num-workers 0; see --help")
    return size, names, others


def test_right_calls_pass_and_the_signature_stays() -> None:
    assert example(1, names=["a"], other=2) == (1, ["a"], {"other": 2})
    assert list(inspect.signature(example).parameters) == ["size", "names", "others"]
    assert (example.__name__, example.__doc__) == ("example", "A function.")


def test_wrong_types_are_named() -> None:
    with pytest.raises(InputError, match=r"^size='1' must be a whole number$"):
        example("1")
    with pytest.raises(InputError, match=r"^names='ab' must be a list of texts$"):
        example(1, names="ab")
    with pytest.raises(TypeError, match="missing a required argument: 'size'"):
        example()


def test_options_become_keywords() -> None:
    with pytest.raises(InputError, match=r"^size=-1: omit max_size, or use num_workers=0$"):
        example(-1)


@pytest.mark.parametrize(
    ("message", "groups", "wanted"),
    [
        ("x; convert it: fixres convert A B --format roc", (), "x; convert it: fixres convert A B --format roc"),
        ("unknown key a, did you mean b? see --help", (), "unknown key a, did you mean b?"),
        ("finetune.epochs=0 must be above 0", ("finetune",), "epochs=0 must be above 0"),
        ("choose data.engine roc", ("data",), "choose engine roc"),
        ("a/finetune.beton=x is missing", ("finetune",), "a/finetune.beton=x is missing"),
        ("optim.lr=0 must be above 0", (), "optim.lr=0 must be above 0"),
        ("a--b is a file", (), "a--b is a file"),
        (
            "give --data FOLDER (photographs), or --data scenes",
            (),
            'give data="FOLDER" (photographs), or data="scenes"',
        ),
        ("--config photoz: no such file", (), "recipe photoz: no such file"),
    ],
)
def test_what_is_replaced(message: str, groups: tuple[str, ...], wanted: str) -> None:
    with pytest.raises(BadSampleError) as caught, options_as_keywords(*groups):
        raise BadSampleError(message, 3)
    assert (str(caught.value), caught.value.index) == (wanted, 3)
