"""Self-contained HTML pages: a template, values, and images inside the file."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from fixres.pipelines.runtime.atomic_files import atomic_file


def write_page(target: Path, package: str, template: str, **values: Any) -> None:
    """Writes `render_page` atomically; an older file is replaced."""
    text = render_page(package, template, **values)
    with atomic_file(target, overwrite=True) as path:
        path.write_text(text, encoding="utf-8")


def render_page(package: str, template: str, **values: Any) -> str:
    """Fills a template. All text is escaped, and a name without a value is an error.

    Args:
        package: its folder `templates` holds the template, such as "fixres.experiment".
        template: file name. It may extend page.html.j2 and import from table.html.j2.
        **values: what the template shows; page.html.j2 needs `conditions`, see `condition_rows`.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("fixres.reporting")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    return environment.get_template(template).render(**values)


def embed(png: bytes) -> str:
    """A PNG as a URL for the `src` of an image."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def condition_rows(environment: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows (name, value) of what `fixres.observability.environment.capture` returned, for people."""
    rows = []
    for key, value in environment.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {item}" for name, item in value.items())
        elif isinstance(value, list | tuple):
            value = ", ".join(f"{item:.2f}" if isinstance(item, float) else str(item) for item in value)
        rows.append((key.replace("_", " "), "none" if value is None else str(value)))
    return rows
