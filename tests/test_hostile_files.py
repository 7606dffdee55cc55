"""A damaged file gives a result or an error of one line; code in a file is never executed."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import resource
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from fixres.cli.commands.finetune import parse
from fixres.config.parsing import parse_recipe, save_recipe
from fixres.evaluation.predictions import open_softmax, score_softmax
from fixres.evaluation.real_labels import read_real
from fixres.fault_tolerance.checkpoints import CheckpointFiles
from fixres.models.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from fixres.models.factory import create_model
from fixres.models.weights import read_weights
from fixres.pipelines.sources.imagenet.val_labels import read_labels
from fixres.pipelines.spec import InputError
from tests.fixres.conftest import TINY

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # of damaged files

# Each reader gets valid files with changed bytes or a missing end.

BORDERS = np.array([0, 1, 127, 128, 255, 1 << 31, (1 << 31) - 1, (1 << 63) - 1], np.uint64)


def mutants(data: bytes, num: int, seed: int = 0) -> Iterator[bytes]:
    """Damaged copies: truncated, with single bytes changed, numbers near limits, parts removed or repeated."""
    rng = np.random.default_rng(seed)
    yield from (b"", data[:1], data[:-1], data + b"\0")
    for _ in range(num):
        kind, at, new = rng.integers(5), int(rng.integers(len(data))), bytearray(data)
        if kind == 0:
            del new[at:]
        elif kind == 1:
            for place in rng.integers(len(data), size=rng.integers(1, 4)):
                new[place] = rng.integers(256)
        elif kind == 2:
            width = int(rng.choice([1, 2, 4, 8]))
            new[at : at + width] = int(rng.choice(BORDERS)).to_bytes(8, "little")[:width]
        elif kind == 3:
            del new[at : at + int(rng.integers(1, 9))]
        else:
            new[at:at] = data[: int(rng.integers(1, 40))]
        yield bytes(new)


def repacked(archive: bytes, num: int, seed: int = 0) -> Iterator[bytes]:
    """Damage that the archive's checksums do not reveal: mutants of its pickle in a valid zip file."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    (target,) = (name for name in members if name.endswith("/data.pkl"))
    for mutant in mutants(members[target], num, seed):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as file:
            for name, content in members.items():
                file.writestr(name, mutant if name == target else content)
        yield packed.getvalue()


@pytest.fixture
def _little_memory() -> Iterator[None]:
    """Limits memory, so that `survive` notices damaged numbers that request more than 5 GiB.

    Python reserves up to 4 GiB, without filling them, for a pickled string with a length of 32 bits.
    """
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + (5 << 30), old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, old)


def survive(path: Path, damaged: Iterator[bytes], use: Callable[[], object]) -> tuple[int, int]:
    """Counts the damaged files that gave a result, and those that gave an error of one line; all others fail."""
    num_used = num_refused = 0
    for number, data in enumerate(damaged):
        path.write_bytes(data)
        try:
            use()
        except InputError as error:
            line, cause = str(error), error.__cause__ or error.__context__
            assert line.isprintable() and len(line) < 2000, number
            assert not isinstance(cause, MemoryError) and "allocate memory" not in str(cause), (number, repr(cause))
            num_refused += 1
        except Exception as error:
            raise AssertionError(f"damaged file number {number} ended in {error!r}") from error
        else:
            num_used += 1
    return num_used, num_refused


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return create_model(TINY, num_classes=2)


@pytest.mark.usefixtures("_little_memory")
def test_our_checkpoints(net: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    save_checkpoint(path, net, CheckpointInfo(TINY.name, TINY.kwargs, ("a", "b"), 64, 96, 0.9))
    whole = path.read_bytes()
    used, refused = survive(path, mutants(whole, 80, seed=1), lambda: load_checkpoint(path))
    assert used < 5 and refused > 75  # the others are the file itself, by chance, or with another padding
    used, refused = survive(path, repacked(whole, 200, seed=2), lambda: load_checkpoint(path))
    assert refused > 100 and used > 0


@pytest.mark.usefixtures("_little_memory")
def test_descriptions_in_our_checkpoints(net: nn.Module, tmp_path: Path) -> None:
    """Values of wrong types, which changed bytes would hardly produce."""
    path = tmp_path / "net.pt"
    info = asdict(CheckpointInfo(TINY.name, TINY.kwargs, ("a", "b"), 64, 96, 0.9))
    wrong = [None, -1, 1 << 40, 1e308, "x", b"x", [], {}, (), [None], ["a", 3], {"x": 1}, torch.zeros(2), True]

    def contents() -> Iterator[bytes]:
        for key in ("version", "info", "state_dict", *info):
            for value in wrong:
                weights = {"fc.weight": torch.zeros(1)}
                content = {"format": "fixres-checkpoint", "version": 1, "info": dict(info), "state_dict": weights}
                (content if key in content else content["info"])[key] = value
                packed = io.BytesIO()
                torch.save(content, packed)
                yield packed.getvalue()

    used, refused = survive(path, contents(), lambda: load_checkpoint(path))
    assert (used, refused) == (0, len(wrong) * (3 + len(info)))


@pytest.mark.usefixtures("_little_memory")
def test_training_checkpoints(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path, keep=1)
    path = files.write(3, {"a": torch.zeros(50), "b": [1, "x", None, (2.5, True)]})
    whole = path.read_bytes()
    used, refused = survive(path, mutants(whole, 200, seed=3), files.newest)
    assert used <= 4 and refused > 190  # a mutant may be the file itself, by chance
    path.unlink()

    def with_their_checksums() -> Iterator[bytes]:
        for data in repacked(whole, 300, seed=4):
            for old in tmp_path.iterdir():
                old.unlink()
            (tmp_path / f"state-00000003-{hashlib.sha256(data).hexdigest()[:16]}.pt").write_bytes(data)
            yield data

    used, refused = survive(tmp_path / "ignored", with_their_checksums(), files.newest)
    assert refused > 100 and used > 0


@pytest.mark.usefixtures("_little_memory")
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_third_party_weights(suffix: str, net: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    weights = {name: value.contiguous() for name, value in list(net.state_dict().items())[:12]}
    save_file(weights, path) if suffix == ".safetensors" else torch.save({"model": weights, "arch": "x"}, path)
    whole = path.read_bytes()
    num_header = 8 + int.from_bytes(whole[:8], "little") if suffix == ".safetensors" else len(whole)
    heads = (head + whole[num_header:] for head in mutants(whole[:num_header], 500, seed=5))
    assert survive(path, heads, lambda: read_weights(path))[1] > 100
    assert survive(path, mutants(whole, 200, seed=6), lambda: read_weights(path))[1] > 50
    if suffix == ".pth":
        used, refused = survive(path, repacked(whole, 500, seed=7), lambda: read_weights(path))
        assert refused > 200 and used > 0


@pytest.mark.usefixtures("_little_memory")
def test_weights_in_the_older_format_of_torch(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"a": torch.zeros(20), "b": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    used, refused = survive(path, mutants(path.read_bytes(), 600, seed=8), lambda: read_weights(path))
    assert refused > 200 and used > 0


def _bomb(content: object) -> bytes:
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save(content, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return packed.getvalue()


def test_a_file_that_unpacks_to_more_than_its_size_is_refused(tmp_path: Path) -> None:
    data = _bomb({"format": "fixres-checkpoint", "version": 1, "state_dict": {"a": torch.zeros(8 << 20)}})
    assert len(data) < 100_000
    path = tmp_path / f"state-00000001-{hashlib.sha256(data).hexdigest()[:16]}.pt"
    path.write_bytes(data)
    for use in (lambda: load_checkpoint(path), lambda: read_weights(path), lambda: CheckpointFiles(tmp_path).newest()):
        with pytest.raises(InputError, match="unpacks to 32 MiB"):
            use()


class _Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return exec, (f"open({str(self.mark)!r}, 'w')",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_never_run(zipped: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "net.pth"
    content = {"format": "fixres-checkpoint", "version": 1, "state_dict": {}, "x": _Hostile(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for use in (load_checkpoint, read_weights):
        with pytest.raises(InputError, match=r"unsafe content|wants to execute"):
            use(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)  # it is a loaded gun
    assert mark.exists()


def test_recipes(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    save_recipe(parse_recipe([]), path)
    whole = path.read_bytes()
    odd = [
        b"\xff\xfe",
        b"- 1\n- 2\n",
        b"7",
        b"a: [",
        b"model: &x {kwargs: *x}\n",
        b"? {a: b}\n",
        b"1: 2\n",
        b"%YAML 9\n",
    ]
    odd += [b"model:\n" * 3, b"[" * 3000, b"optim: {lr: 1e999}\n", b"optim: {lr: .nan}\n", b"\0", b"!!binary x\n"]
    _, refused = survive(path, iter([*odd, *mutants(whole, 30, seed=9)]), lambda: parse_recipe([f"--config={path}"]))
    assert refused > 20


def test_a_recipe_runs_nothing(tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "recipe.yaml"
    call = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", str(mark)]}}
    imported = {"class_path": "antigravity.Class"}
    for content, key in (({"model": call}, "model.class_path"), (call, "class_path"), ({"data": imported}, "data.cl"),
                         ({"variants": {"fast": imported}}, "variants.fast.class_path")):  # fmt: skip
        for text in (yaml.safe_dump(content), json.dumps(content).replace("class_path", "class\\u005fpath")):
            path.write_text(text)
            with pytest.raises(InputError, match=f"^unknown key {key}"):
                parse_recipe([f"--config={path}"])
    path.write_text(yaml.safe_dump({"sweep": [imported]}))
    with pytest.raises(InputError, match=r"^sweep\[0\]={'class_path': 'antigravity.Class'} must be a whole number"):
        parse_recipe([f"--config={path}"])
    path.write_text(yaml.safe_dump({"model": {"kwargs": {"x": call}}, "variants": {"fast": {}}}))
    with pytest.raises(InputError, match=r"^model\.kwargs: the argument 'x' is not allowed"):
        parse_recipe([f"--config={path}"])
    path.write_text(yaml.safe_dump({"data": imported}))
    for arguments in ([f"--config={path}"], ["--config", str(path)]):
        with pytest.raises(InputError, match=r"^unknown key data\.class_path"):
            parse(["x.pt", "--test-res", "96", *arguments])
    assert "antigravity" not in sys.modules
    path.write_text(f"model: !!python/object/apply:os.system ['touch {mark}']\n")
    with pytest.raises(InputError, match="could not determine a constructor"):
        parse_recipe([f"--config={path}"])
    assert not mark.exists()


@pytest.mark.usefixtures("_little_memory")
@pytest.mark.parametrize(
    "text", ["{next}: [{many}]", "{next}: {{k: 1, <<: [{many}]}}", "{next}: {{k: {many1}, l: {many1}}}"]
)
def test_recipes_whose_aliases_expand_to_too_much(text: str, tmp_path: Path) -> None:
    """Each line holds the one before it ten times, so that 12 lines expand to 10**12 values."""
    lines = ["a0: &a0 {k: 1, l: 2, m: 3}"]
    for k in range(12 if "many1" not in text else 40):
        line = text.format(next=f"a{k + 1}", many=", ".join([f"*a{k}"] * 10), many1=f"*a{k}")
        lines.append(line.replace(": ", f": &a{k + 1} ", 1))
    for place in ("x: *{}", "model: {{kwargs: *{}}}", "sweep: *{}", "variants: *{}"):
        path = tmp_path / "recipe.yaml"
        path.write_text("\n".join([*lines, place.format(f"a{len(lines) - 1}")]))
        with pytest.raises(InputError, match="more than 10000 values"):
            parse_recipe([f"--config={path}"])


@pytest.mark.usefixtures("_little_memory")
def test_softmax_files(tmp_path: Path) -> None:
    softmax, labels = tmp_path / "softmax.npy", tmp_path / "labels.npy"
    np.save(softmax, np.full((6, 4), 0.25, np.float32))
    np.save(labels, np.arange(6) % 4)
    record, names = tmp_path / "extraction.json", tmp_path / "names.json"
    record.write_text(json.dumps({"resolution": 64, "classes": 4}))
    names.write_text(json.dumps(list("abcdef")))
    for seed, path in enumerate((softmax, labels, record, names)):
        whole = path.read_bytes()
        used, refused = survive(path, mutants(whole, 400, seed), lambda: score_softmax([open_softmax(tmp_path)]))
        assert used > 0 and refused > 20
        path.write_bytes(whole)


def test_arrays_of_objects_are_never_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    np.save(tmp_path / "softmax.npy", np.array([[_Hostile(mark)]], object), allow_pickle=True)
    with pytest.raises(InputError, match=r"not a \.npy file"):
        open_softmax(tmp_path / "softmax.npy")
    assert not mark.exists()
    assert pickle.loads(pickle.dumps(_Hostile(mark))) is None and mark.exists()


@pytest.mark.parametrize("form", ["list", "pairs", "kaggle"])
def test_label_texts(form: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    text = {
        "list": "n01440764\nn01443537\n" * 4,
        "pairs": "".join(f"ILSVRC2012_val_{k:08d}.JPEG n0144076{k}\n" for k in range(8)),
        "kaggle": "ImageId,PredictionString\n" + "".join(f"a{k},n0144076{k} 1 2 3 4\n" for k in range(8)),
    }[form]
    stems = {"kaggle": [f"a{k}" for k in range(8)]}.get(form, [f"ILSVRC2012_val_{k:08d}" for k in range(8)])
    used, refused = survive(path, mutants(text.encode(), 400, seed=10), lambda: read_labels(path, stems, tmp_path))
    assert used > 0 and refused > 20


def test_real_labels(tmp_path: Path) -> None:
    path = tmp_path / "real.json"
    whole = json.dumps([[1], [], [2, 999]] * 5).encode()
    used, refused = survive(path, iter([*mutants(whole, 600, seed=11), b"[" * 100_000]), lambda: read_real(path, 1000))
    assert used > 0 and refused > 100
