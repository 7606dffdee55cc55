"""The network of a command that needs no data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixres.config.jobs import WeightsChoice

if TYPE_CHECKING:
    from fixres.api.network import Network


def open_choice(choice: WeightsChoice, device: str = "auto") -> Network:
    """The network that the options name. Unlike those of `fixres.load`, its errors name options as they are typed."""
    from fixres.api.classes import names_from
    from fixres.api.network import Network
    from fixres.models.pretrained import open_network

    opened = open_network(
        choice.weights,
        names=names_from(choice.classes),
        arch=choice.arch,
        model_kwargs=choice.model_kwargs,
        crop_pct=choice.crop_pct,
        interpolation=choice.interpolation,
    )
    return Network(opened.net, opened.info, device)
