"""Public names use the words of the field (torchvision, timm, DALI, the papers), not words of this project alone.

Checked: modules, functions, classes, methods, fields, parameters, keys of dicts, command-line options, configuration
keys, test names, keys and names of the records in benchmarks/results, and the headings of documents, tables and report
pages. A shorter list of words and phrases may not occur anywhere in the product's text.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


class Word(NamedTuple):
    """A private word: its pattern on lower-case words with single spaces, the word to use, and where the rule holds."""

    pattern: str
    use: str
    only: str = ""
    """Pattern of the paths in which the word is private; all paths if empty."""
    allowed: str = ""
    """Pattern of the paths in which the word is right."""


_LEARNING = r"^(fixres/|benchmarks/(savings|tricks|finetuning)/|tests/fixres/)"
# In RoC's sense a cut is the part of a JPEG file that holds a crop; in a network it is the split point.
_NETWORKS = r"^(fixres/|tests/fixres/|docs/(fixres|tricks|theory)\.md)"

_ANYWHERE = (
    Word(r"arms?", "variant or run"),
    Word(r"(arm|variant|savings) ends?", "final evaluation"),
    # Processes, files and epochs end everywhere; as a noun it was a variant's final evaluation.
    Word(r"ends", "final evaluation", only=r"^(benchmarks/savings/|fixres/experiment/)"),
    Word(r"fix|fixes|fixing", "finetune, FixRes fine-tuning"),
    Word(r"learners?|let learn|what learns", "trainable layers"),
    # Files have tails and numbers have halves; networks have a backbone and a head.
    Word(r"trunk|tail|halves|cuts?|cutting", "backbone, head, split point", only=_NETWORKS),
    Word(r"contenders?|rivals?|strangers?", "engine, third-party loader, untrusted input"),
    Word(r"turns|take turns?", "interleaved rounds"),
    Word(r"floors?", "decode-only bound"),
    # is_cold is a field of the results that are called cold_cache.
    Word(r"(?<!is )cold(?! (page )?cache)", "cold page cache"),
    Word(r"times less|less large|mends?|mended", "speed-up, delta top-1, corrects"),
    Word(r"(program|training|train) clock", "wall-clock time, training time"),
    Word(r"pens?|shared words", "atomic writes, shared types"),
    Word(r"chances?|randomness", "RNG, random numbers"),
    Word(r"meetings?|greetings?|greet", "rendezvous"),
    Word(r"surviv(e|es|al|ing)", "fault tolerance"),
    Word(r"states|state files?|gone on|go on|goes on|going on", "training checkpoint, resume"),
    Word(r"make good|give way", "retry_next, raise_if_preempted"),
    Word(r"wish(es)?|gathered|summed|from main", "flag, all_gather, all_reduce, broadcast"),
    Word(r"reckon(s|ed)?|whoever", "computed, untrusted"),
    Word(r"say", "log", only=r"^(pipelines|fixres|benchmarks|tools)/"),
    Word(r"(de)?normalis\w*|colours?|grey\w*|initialis\w*|behaviour\w*|centre\w*|neighbour\w*|licence",
         "American spelling, as in torchvision"),
)  # fmt: skip

# Whole names that are private for a module or a record, and ordinary elsewhere.
_MODULES = (
    Word(r"remote|paired|finished|cold|files|measure|feeding", "engine_client, stats, resume, datasets, interleaved",
         allowed=r"^pipelines/sources/files\.py"),  # the base class of sources that read single files
    Word(r"opening|stored|own split|test data|prepare", "prepared, conversion_cache, split, eval_data, resolve"),
    Word(r"execution|last layers|probing|hardware|whole|places|numbered|members|strips",
         "blocks, head, probe, precision, whole_image, sample_table, imagenet_v2, tar_index"),
    Word(r"writing|torch writing|averaging|mixing|adapt|foreign checkpoint", "atomic_files, ema, mixup, adaptation"),
)  # fmt: skip

# Words that are private in headings of tables, documents and pages.
_HEADINGS = (
    Word(r"(?<!percentage )points", "delta top-1 (percentage points)"),
    Word(r"program|fixed", "wall-clock time, fine-tuned"),
    Word(r"learns?|who|says?", "trainable layers, field"),
)

# Words and phrases that occur nowhere in code, messages and documents.
_TEXT = (
    r"contenders?|rivals?|strangers?|reckon(s|ed)?|whoever|surviv(e|es|al|ing)|learners?|arms?|take turns|takes turns|"
    r"colours?|coloured|grey|normalis\w*|initialis\w*|neighbours?|behaviour|centred?|"
    r"times less|gone on|goes on|go on|going on|is not there|for want of|by way of|of its own accord|is no value|"
    r"nothing is known|afresh|anew"
)

# Parts of names that contain a forbidden word but are the papers' or a library's own.
_PROPER = re.compile(r"FixRes\w*|Fix(Efficient|PNAS|Res|ResNe[Xx]t)\w*|state_dicts?|state dicts?|FakeState\w*")


def words_of(name: str) -> str:
    """The words of an identifier, an option or a heading, in lower case with single spaces."""
    name = _PROPER.sub(" ", name)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return " ".join(re.findall(r"[A-Za-z]+", name)).lower()


def complaints(place: str, name: str, rules: tuple[Word, ...], whole: bool = False) -> Iterator[str]:
    """A line for each private word in `name`; with `whole` only where the word is the whole name."""
    words = words_of(name)
    for rule in rules:
        found = re.fullmatch(rule.pattern, words) if whole else re.search(rf"\b({rule.pattern})\b", words)
        if found and re.search(rule.only, place) and not (rule.allowed and re.search(rule.allowed, place)):
            yield f"{place}: {name!r} has {found[0]!r}; use {rule.use}"


def tracked(*patterns: str) -> list[str]:
    """Paths of the files in the repository, deleted ones left out."""
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for path in listed.stdout.split() if (ROOT / path).exists()]


DOCUMENTS = tracked("README.md", "ARCHITECTURE.md", "docs/*.md", "benchmarks/results/README.md")
_FORMER = "fixres/config/legacy.py"  # maps the former names to those of today
PYTHON = tracked("pipelines/**.py", "fixres/**.py", "benchmarks/**.py", "tools/**.py")
TESTS = tracked("tests/**.py")


def public_names(tree: ast.Module) -> Iterator[str]:
    """Functions, classes, methods, fields and parameters whose names have no leading underscore."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name
            for one in node.body:
                if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
                    yield one.target.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node.name
            yield from (one.arg for one in [*node.args.args, *node.args.kwonlyargs])
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield from (one.id for one in node.targets if isinstance(one, ast.Name) and not one.id.startswith("_"))


def options_of(tree: ast.Module) -> Iterator[str]:
    """Names of the options and arguments that a file adds to a command line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            yield from (one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str))


def dict_keys_of(tree: ast.Module) -> Iterator[str]:
    """Strings that are keys of dicts, such as the fields of records and reports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            yield from (key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str))


def keys_of(value: Any) -> Iterator[str]:
    """All keys of nested mappings."""
    if isinstance(value, dict):
        for key, inside in value.items():
            yield str(key)
            yield from keys_of(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from keys_of(inside)


def headings_of(text: str) -> Iterator[str]:
    """Headings and table headings of a Markdown text, and of an HTML template."""
    lines = text.splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if re.match(r"#{1,6} ", line) or re.match(r"\|( ?:?-+:? ?\|)+$", below.strip()):
            yield line.strip("# |")
    yield from (re.sub(r"\{[{%].*?[%}]\}|<[^>]+>", " ", found) for found in re.findall(
        r"(?s)<(?:h\d|th|title|figcaption)\b[^>]*>(.*?)</(?:h\d|th|title|figcaption)>", text))  # fmt: skip


def test_names_in_code() -> None:
    found = []
    for path in PYTHON:
        if path == _FORMER:
            continue
        tree = ast.parse((ROOT / path).read_text())
        names = {*public_names(tree), *options_of(tree), *dict_keys_of(tree)}
        found += [line for name in names for line in complaints(path, name, _ANYWHERE)]
    assert not found, "\n".join(sorted(found))


def test_names_of_modules() -> None:
    found = []
    for path in [*PYTHON, *tracked("fixres/**.j2", "benchmarks/**.j2", "fixres/**.yaml", "tools/**.sh")]:
        for part in Path(path).parts:
            found += complaints(path, part.partition(".")[0], _ANYWHERE)
            found += complaints(path, part.partition(".")[0], _MODULES, whole=True)
    assert not found, "\n".join(sorted(set(found)))


def test_names_of_tests() -> None:
    found = []
    for path in TESTS:
        names = [node.name for node in ast.walk(ast.parse((ROOT / path).read_text()))
                 if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]  # fmt: skip
        found += [line for name in [Path(path).stem, *names] for line in complaints(path, name, _ANYWHERE)]
    assert not found, "\n".join(sorted(found))


def test_keys_of_recipes() -> None:
    found = []
    for path in tracked("fixres/recipes/**.yaml"):
        found += [line for key in keys_of(yaml.safe_load((ROOT / path).read_text()))
                  for line in complaints(path, key, _ANYWHERE)]  # fmt: skip
    assert not found, "\n".join(sorted(found))


def test_keys_of_records() -> None:
    found = []
    for path in tracked("benchmarks/results/*.json"):
        record = json.loads((ROOT / path).read_text())
        found += [line for name in {*keys_of(record), Path(path).stem, record["kind"]}
                  for line in complaints(path, name, _ANYWHERE)]  # fmt: skip
        found += complaints(path, Path(path).stem, _MODULES, whole=True)
    assert not found, "\n".join(sorted(found))


def test_headings() -> None:
    found = []
    for path in [*DOCUMENTS, *tracked("fixres/**.j2", "benchmarks/**.j2")]:
        for name in headings_of((ROOT / path).read_text()):
            found += complaints(path, name, _ANYWHERE + _HEADINGS)
    assert not found, "\n".join(sorted(found))


def test_text() -> None:
    found = []
    for path in [
        *PYTHON,
        *DOCUMENTS,
        *tracked("fixres/**.j2", "fixres/**.yaml", "benchmarks/**.j2", "tools/*.sh", "Makefile"),
    ]:
        if path == _FORMER:
            continue
        for number, line in enumerate((ROOT / path).read_text().splitlines(), start=1):
            line = line.replace('checkpoint["arms"]', "")  # of training checkpoints of version 1, which are still read
            found += [f"{path}:{number}: {one[0]}" for one in re.finditer(rf"(?i)\b({_TEXT})\b", line)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "complains"),
    [
        ("arm_seconds", True), ("fast_arm", True), ("armature", False), ("TrainedArm", True),
        ("fix_seconds", True), ("prefix", False), ("FixResNet50", False), ("finetune_seconds", False),
        ("--floor-share", True), ("cold_seconds", True), ("cold_cache_seconds", False),
        ("state_dict", False), ("states", True), ("normaliseInput", True), ("color", False), ("colour_jitter", True),
        ("greyscale", True), ("gray_levels", False), ("surviving", True), ("training + fix, s", True),
        ("contender_process", True), ("chance", True), ("changes", False),
    ],
)  # fmt: skip
def test_the_check_finds_what_it_looks_for(name: str, complains: bool) -> None:
    assert bool(list(complaints("fixres/x.py", name, _ANYWHERE))) is complains


def test_a_planted_word_is_found_in_every_kind_of_place() -> None:
    tree = ast.parse('class A:\n    fix_lr: int = 1\n\ndef run(rivals, *, turns=1):\n    p.add_argument("--cold")\n')
    assert {"fix_lr", "rivals", "turns"} <= set(public_names(tree)) and list(options_of(tree)) == ["--cold"]
    assert list(keys_of({"a": [{"arm": 1}]})) == ["a", "arm"]
    assert list(dict_keys_of(ast.parse('x = {"arms": 1, y: 2}'))) == ["arms"]
    assert list(headings_of("# The pen\n\n| arm | s |\n|---|---|\n| x | 1 |\n<th class='n'>fixed {{ x }}</th>")) == [
        "The pen", "arm | s", "fixed  ",
    ]  # fmt: skip
