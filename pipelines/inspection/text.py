"""Prints the facts about a data set as text, histograms as bars."""

from __future__ import annotations

from fixres.pipelines.inspection.facts import ClassFacts, Histogram, ImageFacts, IndexFacts, Inspection, RocFacts
from fixres.pipelines.runtime.notices import counted
from fixres.pipelines.spec import one_line

_BAR_WIDTH = 50
_MAX_NAMED = 5  # empty classes whose names are printed


def as_text(facts: Inspection) -> str:
    """About thirty lines of at most 100 characters, apart from long names."""
    images = facts.images
    heading = f"{one_line(facts.path)}: {facts.kind}, {counted(facts.num_samples, 'image')},"
    heading += f" {counted(len(facts.classes.names), 'class', 'classes')}"
    lines = [heading, *_fact_lines(facts)]
    for title, values in (
        ("short side, pixels", images.short_side),
        ("long side, pixels", images.long_side),
        ("width / height", images.aspect),
    ):
        lines += ["", title, *_bars(values)]
    if facts.bad_samples:
        lines += ["", f"{len(facts.bad_samples)} samples cannot be used:", *map(one_line, facts.bad_samples)]
    return "\n".join(lines)


def _fact_lines(facts: Inspection) -> list[str]:
    rows = [("classes", _classes(facts.classes)), ("bytes", _bytes(facts.images, facts.num_samples))]
    rows += [("formats", ", ".join(f"{name} {_percent(v)}" for name, v in facts.images.format_shares.items()))]
    if facts.roc is not None:
        rows += [("RoC", line) for line in _levels(facts.roc)]
    if facts.index is not None:
        rows += [("index", _index(facts.index))]
    rows += [("checksum", _checksum(facts))]
    if facts.images.num_looked_at < facts.num_samples:
        rows += [("looked at", f"{facts.images.num_looked_at} random images, for bytes, formats and sizes")]
    return [f"  {title:<10} {text}" for title, text in rows]


def _checksum(facts: Inspection) -> str:
    if facts.checksum == "absent":
        return "none in the file"
    return "of tables and class names matches; it does not cover the images, which convert --verify decodes"


def _classes(classes: ClassFacts) -> str:
    counts = f"{min(classes.counts)} ({classes.smallest}) to {max(classes.counts)} ({classes.largest}) images a class"
    named = ", ".join(classes.empty[:_MAX_NAMED]) + (", ..." if len(classes.empty) > _MAX_NAMED else "")
    empty = f"{len(classes.empty)} without images: {named}" if classes.empty else "none without images"
    return one_line(f"{counts}, median {classes.median_count:g}; {empty}")


def _bytes(images: ImageFacts, num_samples: int) -> str:
    about = "about " if images.num_looked_at < num_samples else ""
    return (
        f"{images.mean_bytes:.0f} an image on average, 5 % below {images.p5_bytes:.0f}, 5 % above"
        f" {images.p95_bytes:.0f}; {about}{images.mean_bytes * num_samples / 1e6:.1f} MB in all"
    )


def _levels(roc: RocFacts) -> list[str]:
    levels = [
        f"level at 1/{1 << level.shift} of the size: in {_percent(level.sample_share)} of the samples,"
        f" {_percent(level.byte_share)} of the bytes"
        for level in roc.levels
    ]
    return [*levels, f"index: {_percent(roc.index_byte_share)} of the bytes; from {roc.num_looked_at} records"]


def _index(index: IndexFacts) -> str:
    text = f"{index.num_indexed} images with checkpoints, {index.num_whole} decoded whole"
    text += f", {index.index_bytes / 1e6:.1f} MB"
    if index.num_levels:
        text += f"; {index.num_levels} at half their size, {index.coarse_bytes / 1e6:.1f} MB"
    return text


def _bars(values: Histogram) -> list[str]:
    """A line for each interval, from the first to the last that is not empty."""
    filled = [k for k, count in enumerate(values.counts) if count]
    largest, total = max(values.counts), sum(values.counts)
    lines = []
    for k in range(filled[0], filled[-1] + 1):
        low = f"{values.edges[k - 1]:g}" if k else ""
        high = f"to {values.edges[k]:g}" if k < len(values.edges) else "up"
        bar = "#" * -(-values.counts[k] * _BAR_WIDTH // largest)
        lines.append(f"  {low:>6} {high:<8} {_percent(values.counts[k] / total):>7} {bar}".rstrip())
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
