"""What benchmarks.savings shows: a page with pictures, and a table in the terminal, both from the record alone."""

from __future__ import annotations

from typing import Any

from benchmarks.savings import figures
from benchmarks.savings.comparison import compare, target_of
from benchmarks.savings.table import rows, verdicts
from fixres.config.parsing import recipe_text
from fixres.observability.console import aligned
from fixres.reporting.html_page import condition_rows, embed, render_page


def text(record: dict[str, Any]) -> str:
    """For the terminal."""
    num = len(record["runs"])
    return "\n".join(
        [
            f"{num} seed{'s' if num > 1 else ''}; means ± standard deviations; differences and ratios seed by seed",
            *aligned(rows(record)),
            *verdicts(record),
        ]
    )


def page(record: dict[str, Any]) -> str:
    """HTML that needs nothing beside itself."""
    comparisons, target = compare(record), target_of(record)
    pictures = [
        figures.curves(record, target),
        figures.sweeps(record),
        figures.wall_clock(comparisons),
        figures.stages(record),
    ]
    return render_page(
        "benchmarks.savings",
        "savings.html.j2",
        record=record,
        first=record["runs"][0],
        conditions=_conditions(record),
        target=target,
        rows=rows(record),
        verdicts=verdicts(record),
        pictures=[embed(png) for png in pictures],
        sweep_titles=_sweep_titles(record),
        sweep=_sweep(record),
        seeds=_seeds(record),
        comparisons=comparisons,
        recipe=recipe_text(record["runs"][0]["recipe"]),
    )


def _conditions(record: dict[str, Any]) -> list[tuple[str, str]]:
    commits = sorted({_commit(run["environment"]) for run in record["runs"]})
    environment = record["runs"][0]["environment"]
    others = {key: value for key, value in environment.items() if key not in ("commit", "commit_clean")}
    return [("commits", "; ".join(commits)), *condition_rows(others)]


def _commit(environment: dict[str, Any]) -> str:
    return f"{str(environment['commit'])[:7]}{', with changes' if environment['commit_clean'] is False else ''}"


def _sweep_titles(record: dict[str, Any]) -> list[str]:
    titles = []
    for variant in record["runs"][0]["variants"]:
        titles.append(f"{variant['name']}, as trained")
        titles += [f"{variant['name']}, fixed for {variant['test_res']} px"] if variant["sweep_after"] else []
    return titles


def _sweep(record: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """For each test resolution a cell for each variant and each of before and after the fix."""
    from benchmarks.harness.stats import spread_of

    first = record["runs"][0]["variants"]
    columns = [(k, key) for k, variant in enumerate(first) for key in ("sweep_before", "sweep_after") if variant[key]]
    return [
        (
            side,
            [spread_of([run["variants"][k][key][side] for run in record["runs"]]).text(100, 1) for k, key in columns],
        )
        for side in sorted(first[0]["sweep_before"], key=int)
    ]


def _seeds(record: dict[str, Any]) -> list[tuple[int, list[str]]]:
    """For each seed a cell for each end: accuracy and clock, so that every mean can be checked."""
    comparisons = compare(record)
    return [
        (run["seed"], [f"{100 * one.ends[k].top1:.2f} % in {one.ends[k].clock_seconds:.1f} s" for one in comparisons])
        for k, run in enumerate(record["runs"])
    ]
