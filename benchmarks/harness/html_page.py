"""Self-contained HTML pages of measurements: a template, numbers, pictures inside the file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.runtime.atomic_files import atomic_file

COLORS = ("#c2410c", "#1e3a5f", "#4d7c0f", "#d97706", "#7c3aed", "#0e7490", "#be185d", "#64748b", "#a16207", "#334155")
"""For engines in order; the first stands out."""


def write_page(target: Path, template: str, **values: Any) -> None:
    """Fills a template of benchmarks/templates and writes it under its name once it is complete.

    Every undefined name in a template is an error, and all text is escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("benchmarks.harness"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(**values)
    with atomic_file(target, overwrite=True) as path:
        path.write_text(text, encoding="utf-8")


def embed(png: bytes) -> str:
    """A picture as a URL that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


@contextmanager
def axes(title: str, x: str, y: str, legend: bool = True) -> Iterator[tuple[Axes, io.BytesIO]]:
    """Axes to draw on and the PNG file that they become at the end of the block."""
    figure = Figure(figsize=(6.2, 3.8), layout="constrained")  # not pyplot: no global state, no display
    plot, png = figure.subplots(), io.BytesIO()
    yield plot, png
    plot.set(title=title, xlabel=x, ylabel=y)
    plot.grid(alpha=0.3)
    plot.spines[["top", "right"]].set_visible(False)
    if legend:
        plot.legend(frameon=False, fontsize=8)
    figure.savefig(png, dpi=130)


def picture(image: np.ndarray, scale: int = 1) -> str:
    """uint8 (h, w, 3), each pixel `scale` pixels large, as a URL that holds it."""
    from PIL import Image

    one, png = Image.fromarray(image), io.BytesIO()
    one.resize((one.width * scale, one.height * scale), Image.Resampling.NEAREST).save(png, "PNG", optimize=True)
    return embed(png.getvalue())


def conditions_of(content: dict[str, Any]) -> list[tuple[str, str]]:
    """A record's environment as rows for people."""
    rows = []
    for key, value in content["environment"].items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {one}" for name, one in value.items())
        elif isinstance(value, (list, tuple)):
            value = ", ".join(f"{one:.2f}" if isinstance(one, float) else str(one) for one in value)
        rows.append((key.replace("_", " "), "none" if value is None else str(value)))
    return rows
