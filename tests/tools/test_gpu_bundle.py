"""The file for GPU machines without network: made here, unpacked and started there, with a Python that takes notes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import console
from tests.coded import write_coded_folder
from tools.gpu_bundle import make, packages

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coded_folder(tmp_path_factory.mktemp("photos"), [(64, 96)] * 40)


@pytest.fixture(scope="module")
def no_index() -> Iterator[None]:
    """The package index has one package, which nobody has; a library of it is there twice."""

    def fetch(pins: list[str], python: str, site: Path) -> None:
        assert (pins, python) == (["carried==1.0"], "3.12")
        (site / "carried").mkdir()
        (site / "carried" / "__init__.py").write_text("VERSION = '1.0'\n")
        for name in ("libone.so", "libtwin.so.1"):
            (site / "carried" / name).write_bytes(b"no ELF file" * 1000)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make, "missing", lambda *_: ["carried==1.0"])
        patch.setattr(make, "fetch", fetch)
        yield


def call(*words: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["make.py", *map(str, words)])
        console.run(make.main)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, photos: Path, no_index: None) -> Path:
    """A bundle without FFCV."""
    if subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True).returncode:
        pytest.skip("no git checkout to pack")
    folder = tmp_path_factory.mktemp("made")
    (folder / "have.txt").write_text("torch==2.11.0+cu130\n")
    words = ("--have", folder / "have.txt", "--photos", photos, "--out", folder / "bundle.tar", "--preset", 0)
    call(*words, "--no-ffcv")
    return folder / "bundle.tar"


@pytest.fixture
def bundle(tmp_path: Path, packed: Path) -> Path:
    """A bundle, unpacked."""
    assert packed.stat().st_size < 60 * 2**20
    subprocess.run(["tar", "-xf", packed], cwd=tmp_path, check=True)
    return tmp_path / "gpu_bundle"


def start(bundle: Path, *parts: str) -> subprocess.CompletedProcess[str]:
    """Runs the bundle with a Python that unpacks as it is told, and else notes its call, path and folder."""
    python, calls = bundle.parent / "python", bundle.parent / "calls"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *tarfile*) exec {sys.executable} "$@";; esac\n'
        f'echo "$PYTHONPATH $PWD $*" >>"{calls}"\n'
    )
    python.chmod(0o755)
    settings = {"PYTHON": str(python), "THREADS": "3", "RESULTS": "records"}
    command = [bundle / "run.sh", *parts]
    return subprocess.run(
        command, cwd=bundle.parent, env=os.environ | settings, capture_output=True, text=True, timeout=60
    )


def _head() -> str:
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip()


def _answer(path: str) -> list[str]:
    """Which packages a process there finds, and which commit its records name."""
    code = (
        "import carried, fixres.environment as e; one = e.capture();"
        "print(carried.VERSION, e.__file__, one['commit'], one['commit_clean'])"
    )
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True)
    return done.stdout.split()


def test_what_is_unpacked_runs_the_checks_with_the_packages_it_brought(bundle: Path) -> None:
    done = start(bundle, "train_step")
    assert done.returncode == 0, done.stderr
    work = bundle / "work"
    path, folder, *words = (bundle.parent / "calls").read_text().splitlines()[-1].split(" ")
    assert path.split(":") == [str(work / "project"), str(work / "site")] and folder == str(work / "project")
    assert words[:2] == ["-m", "benchmarks.train_step"]
    assert words[-1] == str(bundle.parent / "records" / "train_step_gpu.json")
    assert _answer(path) == ["1.0", str(work / "project" / "fixres" / "environment.py"), _head(), "None"]
    assert os.readlink(work / "site" / "carried" / "libtwin.so.1") == "libone.so"
    assert len(list((bundle / "photos").rglob("*.jpg"))) == 40


def test_it_is_unpacked_once_and_again_after_it_changed(bundle: Path) -> None:
    start(bundle, "train_step")
    mark = bundle / "work" / "site" / "mark"
    mark.touch()
    assert start(bundle, "train_step").returncode == 0 and mark.exists()
    (bundle / "work" / "unpacked").write_text("those of an older bundle\n")
    assert start(bundle, "train_step").returncode == 0 and not mark.exists()


@pytest.mark.parametrize("file", ["site.tar.xz", "project.tar.xz"])
def test_a_damaged_copy_is_refused_before_anything_runs(bundle: Path, file: str) -> None:
    content = bytearray((bundle / file).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / file).write_bytes(content)
    done = start(bundle)
    assert done.returncode == 2 and f"{bundle} is damaged" in done.stderr and not (bundle / "work" / "site").exists()


def test_photographs_fill_what_room_there_is(tmp_path: Path) -> None:
    for index in range(100):
        noise = np.random.default_rng(index).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{index:03d}.jpg", quality=90)
    room = 200_000
    chosen = make._choose_photos(tmp_path, room)
    subprocess.run(["tar", "-cf", "some.tar", *(path.name for path in chosen)], cwd=tmp_path, check=True)
    blocks = 2 * 512 + 10240  # tar's end, rounded up
    assert (tmp_path / "some.tar").stat().st_size - blocks <= room
    assert 16 <= len(chosen) < 100 and chosen[0].name == "000.jpg" and chosen[-1].name > "090.jpg"


def test_what_is_there_is_not_packed_and_keeps_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def uv(arguments: list[str], python: str, stdin: str = "") -> str:
        asked["there"] = Path(arguments[arguments.index("--constraints") + 1]).read_text().splitlines()
        asked["wanted"] = stdin.splitlines()
        return (
            "jsonargparse==4.53.0\nnumba==0.68.1\nnvidia-dali-cuda130==2.4.0\nnvidia-nvtiff-cu13==0.8\ntorch==2.11.0\n"
        )

    monkeypatch.setattr(packages, "_uv", uv)
    (tmp_path / "have").write_text("torch==2.11.0+cu130\nNumba\n-e git+here\n# note\nown @ file:///opt/own\n\n")
    pins = packages.missing(tmp_path / "have", "3.12", 13)
    assert pins == ["jsonargparse==4.53.0", "nvidia-dali-cuda130==2.4.0"]
    assert asked["there"] == ["torch==2.11.0", "Numba", "own"]
    assert {"torch", "timm", "pytest", "nvidia-dali-cuda130"} <= set(asked["wanted"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"--have": "nowhere"}, "nowhere is not there"),
        ({"--photos": "nowhere"}, "nowhere is not there"),
        ({"--arch": "sm_90"}, "argument --arch: 'sm_90' is no compute capability such as 90, nor all"),
        ({"--limit-mib": "0.1"}, "MiB are left for photographs, too few for 16 of the 40 of"),
        ({"--out": "have.txt"}, "exists"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    tmp_path: Path,
    photos: Path,
    no_index: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    changes: dict[str, str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("have.txt").touch()
    monkeypatch.setattr(make, "_pack_project", lambda target: target.write_bytes(b"project"))
    options = {"--have": "have.txt", "--photos": str(photos), "--out": "b.tar"} | changes
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as left:
        call(*[word for pair in options.items() for word in pair], "--no-ffcv", "--preset", 0)
    said = capfd.readouterr().err
    assert left.value.code == 2 and told in said and said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_python_that_is_not_there_is_one_line(bundle: Path) -> None:
    environment = os.environ | {"PYTHON": "python9"}
    done = subprocess.run([bundle / "run.sh"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("gpu_bundle: there is no python9")
    assert done.stderr.count("\n") == 1
