"""Recipes with odd values, keys, tags, aliases, nesting and bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import yaml

from fixres.config.parsing import parse_recipe, recipe_text
from fixres.config.validation import as_plain
from tests.hostile.values import NETWORKS, Rng, arguments, odd, pick

_RECIPES = ["demo", "photos", "ablation", "imagenet_rn50_16", "paper_twin"]
_TEXTS = [
    "{key}: !!python/object/apply:os.system [false]\n", "{key}: !!bool x\n", "{key}: !!int ''\n", "{key}: !!float .\n",
    "{key}: !!set {{a, b}}\n", "{key}: !!binary YWJj\n", "{key}: !!pairs [a: 1]\n", "{key}: !!omap [a: 1]\n",
    "{key}: 1e400\n", "{key}: 0x" + "f" * 6000 + "\n", "{key}: 1:2:3\n", "{key}: *nothing\n", "{key}: &a {{b: *a}}\n",
    "? [1, 2]\n: 3\n", "? {{a: b}}\n: 3\n", "1: 2\nnull: 3\ntrue: 4\n.nan: 5\n", "{key}: " + "[" * 400 + "\n",
    "{key}: " + "- " * 400 + "\n", "<<: [{{a: 1}}, {{b: 2}}]\n", "<<: 3\n", '{key}: "\\0"\n', '{key}: "\\ud800"\n',
    "{key}: |\n  a\n  b\n", "---\n{key}: 1\n---\n{key}: 2\n", "%YAML 9.9\n---\n", "\t{key}: 1\n", "{key}: ~\n",
]  # fmt: skip
_BOMBS = ["{next}: &{next} [{many}]", "{next}: &{next} {{k: 1, <<: [{many}]}}", "{next}: &{next} !!pairs [{pairs}]",
          "{next}: &{next} {{k: *{last}, l: *{last}}}"]  # fmt: skip


class HostileRecipe(NamedTuple):
    """The content of a recipe file, and how it was made, for messages."""

    data: bytes
    made: str


def hostile_recipes(num: int, seed: int) -> Iterator[HostileRecipe]:
    """So many recipes; each is a sound one with one to three changes."""
    for number in range(num):
        rng = np.random.default_rng([seed, number])
        recipe, changes = as_plain(parse_recipe(["--config", pick(rng, _RECIPES)])), []
        for _ in range(int(pick(rng, [1, 1, 2, 3]))):
            change = pick(rng, [_value, _value, _value, _key, _network, _long])
            changes.append(change.__name__.strip("_"))
            change(recipe, rng)
        text = _text(recipe)
        if rng.integers(4) == 0:
            text, changes = _bomb(rng) if rng.integers(3) == 0 else text + _line(recipe, rng), [*changes, "text"]
        data = text.encode("utf-8", "surrogatepass")
        if rng.integers(8) == 0:
            data, changes = _damaged(data, rng), [*changes, "damaged"]
        yield HostileRecipe(data, f"{number}: {', '.join(changes)}")


def _groups(values: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All mappings of a recipe by dotted name, but those of hostile depth."""
    if isinstance(values, dict) and path.count(".") < 9:
        yield path, values
        for key, value in values.items():
            yield from _groups(value, f"{path}.{key}")


def _some_group(recipe: dict[str, Any], rng: Rng) -> dict[str, Any]:
    return pick(rng, list(_groups(recipe)))[1]


def _value(recipe: dict[str, Any], rng: Rng) -> None:
    group = _some_group(recipe, rng)
    if group:
        key = pick(rng, list(group))
        numbers = [value for value in group.values() if isinstance(value, int | float)]
        group[key] = 2 * pick(rng, numbers) if numbers and rng.integers(2) else odd(rng)


def _key(recipe: dict[str, Any], rng: Rng) -> None:
    keys = ["x", "", "a.b", 1, None, 1.5, True, "arms", "__class__", "\x1b[2J", "x" * 3000, "class_path", "states"]
    _some_group(recipe, rng)[pick(rng, keys)] = odd(rng)


def _network(recipe: dict[str, Any], rng: Rng) -> None:
    if isinstance(recipe.get("model"), dict):
        recipe["model"]["name"] = pick(rng, NETWORKS) if rng.integers(2) else recipe["model"].get("name")
        recipe["model"]["kwargs"] = arguments(rng) if rng.integers(4) else {}


def _long(recipe: dict[str, Any], rng: Rng) -> None:
    """Lists and counts that ask for much."""
    many = int(pick(rng, [65, 1001, 20_000]))
    schedules: list[tuple[str, Any]] = [
        ("sweep", list(range(8, 8 + many))),
        ("variants", {f"v{k}": {} for k in range(many)}),
        ("variants", {"a": {"epochs": many**3, "resolution": {"points": [[k, 32] for k in range(many)]}}}),
        ("variants", {"a": {"epochs": 100_000, "resolution": {"points": [[0, 8], [99_999, 2048]], "multiple": 8,
                                                              "ramp": "linear"}}}),
        ("optim", {"batch_size": many**2, "steps": {"milestones": list(range(1, many))}}),
        ("data", {"num_workers": many, "max_side": many**4}),
    ]  # fmt: skip
    key, value = pick(rng, schedules)
    recipe[key] = value


def _text(recipe: Any) -> str:
    try:
        return recipe_text(recipe)
    except (yaml.YAMLError, RecursionError):
        return "a: [" * 2000


def _line(recipe: dict[str, Any], rng: Rng) -> str:
    return pick(rng, _TEXTS).format(key=pick(rng, [*map(str, recipe), "x"]))


def _bomb(rng: Rng) -> str:
    """Aliases that expand to a huge number of values, as one of the settings."""
    form, lines = pick(rng, _BOMBS), ["a0: &a0 {k: 1, l: 2}"]
    for k in range(30):
        last = f"a{k}"
        many, pairs = ", ".join([f"*{last}"] * 10), ", ".join([f"x: *{last}"] * 10)
        lines.append(form.format(next=f"a{k + 1}", last=last, many=many, pairs=pairs))
    places = ["x: *a30", "sweep: *a30", "model: {kwargs: *a30}", "variants: *a30", "variants: {a: *a30}"]
    return "\n".join([*lines, pick(rng, places)])


def _damaged(data: bytes, rng: Rng) -> bytes:
    new = bytearray(data)
    for place in rng.integers(len(new), size=int(pick(rng, [1, 3, 20]))):
        new[int(place)] = int(rng.integers(256))
    return bytes(new[: int(rng.integers(len(new) + 1))] if rng.integers(3) == 0 else new)
