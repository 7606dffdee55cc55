"""Tables as rows of text cells, heading first."""

from __future__ import annotations

from collections.abc import Sequence

Rows = Sequence[Sequence[str]]


def markdown(rows: Rows) -> str:
    """A Markdown table."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])


def number(value: float | None, digits: int = 0, factor: float = 1.0) -> str:
    """`factor * value` with so many digits after the point, or a dash for None."""
    return "-" if value is None else f"{factor * value:.{digits}f}"


def span(interval: Sequence[float], digits: int = 0, factor: float = 1.0) -> str:
    """An interval as "low to high"."""
    return " to ".join(number(end, digits, factor) for end in interval)


def with_interval(value: float, interval: Sequence[float], digits: int, factor: float = 1.0) -> str:
    """A value with its interval, as "1.2 (1.1 to 1.3)"."""
    return f"{number(value, digits, factor)} ({span(interval, digits, factor)})"
