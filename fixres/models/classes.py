"""Which outputs of a network are the classes of the data: two lists of names, which are joined by name.

A network may know more classes than the data has (a network for ImageNet, tested on ten of its classes), or the same
ones in another order. Weights of others often have no names; then the data's names or `--classes` say what they mean.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fixres.models.state_dicts import shortened
from fixres.pipelines.spec import InputError

Names = Sequence[str] | Literal["imagenet"]
"""Names of all outputs of a network in order, or ImageNet's 1000."""
_NUM_IMAGENET = 1000
_ADVICE = "name its outputs with --classes (imagenet, a file, or a checkpoint; for a teacher, in fixres export)"
_log = logging.getLogger(__name__)


class Outputs(NamedTuple):
    """The outputs of the data's classes, where they are not all outputs in their order.

    Attributes:
        positions: int64 (K,), the output of each class of the data.
        num_outputs: of the network, at least K.
    """

    positions: Tensor
    num_outputs: int

    @property
    def is_subset(self) -> bool:
        """Whether the network has outputs that are no class of the data."""
        return len(self.positions) < self.num_outputs

    def to(self, device: torch.device) -> Outputs:
        """The same on a device."""
        return self._replace(positions=self.positions.to(device))

    def choose(self, logits: Tensor) -> Tensor:
        """(B, K) of logits (B, num_outputs)."""
        if logits.shape[1] != self.num_outputs:
            raise InputError(f"the network gives {logits.shape[1]} logits, not {self.num_outputs}; open it again")
        return logits[:, self.positions]

    def numbers(self, labels: Tensor) -> Tensor:
        """The outputs, int64 (B,), of labels in [0, K)."""
        return self.positions[labels]

    def labels(self, numbers: Tensor) -> Tensor:
        """The inverse of `numbers`; -1 for outputs that are no class of the data."""
        labels = torch.full((self.num_outputs,), -1)
        labels[self.positions] = torch.arange(len(self.positions))
        return labels[numbers]


class Matched(NamedTuple):
    """The result of `match_classes`."""

    names: tuple[str, ...]  # of all outputs
    outputs: Outputs | None  # None if the data's classes are all outputs in their order


def match_classes(
    network: str, own: Sequence[str] | None, given: Names | None, num_outputs: int, classes: Sequence[str]
) -> Matched:
    """Finds the output of each class of the data.

    Args:
        network: its name, for errors.
        own: the names that its file gives to its outputs, in order; None, or numbers, if they have no names.
        given: the names that the user gives to its outputs, instead of its own.
        num_outputs: of the network.
        classes: names of the data's classes, in label order.

    Raises:
        InputError: names that do not fit the network, a class that is not among them, or outputs without names, unless
            the data has as many classes or is ImageNet.
    """
    if num_outputs < len(classes):
        raise InputError(
            f"{network} knows {num_outputs} classes, the data has {len(classes)} ({shortened(classes)}); give data of "
            "the classes it was trained on, or replace its classifier (fixres finetune --new-classifier)"
        )
    known = output_names(network, given, num_outputs, classes) or own
    are_numbers = given is None and known is not None and _are_numbers(known)
    if known is None or (are_numbers and not set(classes) <= set(known)):
        known, are_numbers = _known_by_classes(network, num_outputs, classes), False
    place = {name: number for number, name in enumerate(known)}
    if missing := [name for name in classes if name not in place]:
        raise InputError(
            f"{network} knows {num_outputs} classes ({shortened(known)}), but not {len(missing)} of the data's "
            f"{len(classes)}, such as {missing[0]}; give data of the classes it was trained on, "
            f"{_ADVICE}, or replace its classifier (fixres finetune --new-classifier)"
        )
    positions = [place[name] for name in classes]
    if are_numbers and positions != sorted(positions):
        raise InputError(
            f"{network}: its outputs are numbered, and the data's classes have numbers for names in another order "
            f"({shortened(classes)}), so number 10 could mean either; {_ADVICE}"
        )
    if positions == list(range(num_outputs)):
        return Matched(tuple(known), None)
    return Matched(tuple(known), Outputs(torch.tensor(positions), num_outputs))


def output_names(
    network: str, given: Names | None, num_outputs: int, classes: Sequence[str] | None = None
) -> tuple[str, ...] | None:
    """The names that the user gives to a network's outputs, checked; None if there are none.

    "imagenet" becomes the 1000 synsets, or their numbers if all `classes` of the data are such numbers.
    """
    names = given
    if isinstance(names, str):
        numbers = tuple(map(str, range(_NUM_IMAGENET)))
        names = numbers if classes and set(classes) <= set(numbers) else _imagenet()
    if names is None:
        return None
    if len(names) != num_outputs:
        raise InputError(f"{network} has {num_outputs} outputs, but --classes gives {len(names)} names; give as many")
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise InputError(f"{network}: --classes gives the name {twice} to two outputs; rename one")
    return tuple(names)


def _known_by_classes(network: str, num_outputs: int, classes: Sequence[str]) -> tuple[str, ...]:
    """The names of outputs that have none, from the data's classes."""
    if num_outputs == _NUM_IMAGENET and set(classes) <= set(_imagenet()):
        return _imagenet()
    if num_outputs != len(classes):
        raise InputError(
            f"{network} has {num_outputs} outputs without names, the data has {len(classes)} classes "
            f"({shortened(classes)}); {_ADVICE}"
        )
    _log.warning(
        "%s: its outputs have no names; they are taken for the data's classes in order, %s to %s; "
        "--classes FILE names them",
        network, classes[0], classes[-1],
    )  # fmt: skip
    return tuple(classes)


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether the names are 0, 1, 2, ..., which says nothing about the classes."""
    return all(name == str(number) for number, name in enumerate(names))


@cache
def _imagenet() -> tuple[str, ...]:
    """The synsets of ImageNet-1k in label order."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())
