"""One file with all that a GPU machine without network needs to run tools/run_gpu_checks.sh: packages, project, photos.

over there:  python3 -m pip freeze >have.txt
here:        python -m tools.gpu_bundle.make --have have.txt --photos FOLDER --out gpu_bundle.tar
over there:  tar xf gpu_bundle.tar && gpu_bundle/run.sh        (records: gpu_bundle/records)

Packages that are there already, PyTorch above all, are not packed; DALI's libraries keep the machine code of one kind
of GPU only. The project is that of the last commit. As many photographs go along as there is room for. Takes ten
minutes, most of them for compression. NVIDIA's libraries are changed, so the file is for your own use only.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import subprocess
import tarfile
import tempfile
from pathlib import Path

from pipelines import console
from pipelines.arguments import Parser, output_file
from pipelines.sources.files import IMAGE_ENDINGS
from pipelines.spec import InputError
from pipelines.writing import atomic_file
from tools.gpu_bundle import ffcv_extension
from tools.gpu_bundle.packages import fetch, missing, shrink_libraries

_ROOT = Path(__file__).resolve().parents[2]
_FEWEST_PHOTOS = 16
_MIB = 2**20


def main() -> None:
    """Parses the command line and makes the bundle."""
    parser = Parser(__doc__)
    parser.add_argument("--have", type=Path, required=True, help="what `python3 -m pip freeze` prints over there")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs for the speeds")
    parser.add_argument("--out", type=output_file, required=True, help="file to make, .tar")
    parser.add_argument("--python", default="3.12", help="version over there (%(default)s)")
    parser.add_argument("--cuda", type=int, choices=(12, 13), default=13, help="of DALI (%(default)s)")
    parser.add_argument("--arch", type=_arch, default=90, help="compute capability without its point, or all (90)")
    parser.add_argument("--limit-mib", type=float, default=60, help="size of the file at most (%(default)s)")
    parser.add_argument("--preset", type=int, choices=range(10), default=9, help="effort of xz (%(default)s)")
    parser.add_argument("--no-ffcv", action="store_true", help="leave that rival out")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    options = parser.parse_args()
    for path, is_there in ((options.have, options.have.is_file()), (options.photos, options.photos.is_dir())):
        if not is_there:
            raise InputError(f"{path} is not there")
    with atomic_file(options.out, options.overwrite) as partial, tempfile.TemporaryDirectory() as work:
        make(options, Path(work), partial)
    print(f"{options.out}: {options.out.stat().st_size / _MIB:.1f} MiB")


def make(options: argparse.Namespace, work: Path, target: Path) -> None:
    """Fills `work` and writes `target`."""
    bundle, site = work / "gpu_bundle", work / "site"
    bundle.mkdir()
    site.mkdir()
    pins = missing(options.have, options.python, options.cuda)
    print("packed:", " ".join(pins))
    fetch(pins, options.python, site)
    if not options.no_ffcv:
        (work / "ffcv").mkdir()
        ffcv_extension.build(site, work / "ffcv")
    saved = shrink_libraries(site, options.arch)
    print(
        f"GPU code kept {saved.kept / 1e6:.0f} MB, left out {saved.code / 1e6:.0f} MB; names {saved.names / 1e6:.0f} MB"
    )
    _compress(site, bundle / "site.tar.xz", options.preset)
    _pack_project(bundle / "project.tar.xz")
    (bundle / "run.sh").write_bytes((_ROOT / "tools" / "gpu_bundle" / "run.sh").read_bytes())
    (bundle / "run.sh").chmod(0o755)
    _write_sums(bundle)
    room = options.limit_mib * _MIB - sum(path.stat().st_size for path in bundle.iterdir()) - 64 * 1024
    photos = _choose_photos(options.photos, room)
    # In Python's own format times with fractions of a second take a kilobyte for each file.
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(bundle, "gpu_bundle")
        for path in photos:
            archive.add(path, f"gpu_bundle/photos/{path.relative_to(options.photos)}")
    print(f"{len(photos)} photographs")


def _arch(text: str) -> int | None:
    if text != "all" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no compute capability such as 90, nor all")
    return None if text == "all" else int(text)


def _compress(site: Path, target: Path, preset: int) -> None:
    # Calls in x86 code name their targets by distance; made absolute they compress by some percent more.
    effort = preset | lzma.PRESET_EXTREME if preset == 9 else preset
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": effort, "dict_size": 1 << 28}]
    with lzma.open(target, "wb", filters=filters) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        archive.add(site, "site")


def _pack_project(target: Path) -> None:
    """The last commit's files, with the commit's name in .git_archival.txt (see .gitattributes)."""
    git = ["git", "-C", str(_ROOT)]
    try:
        changed = subprocess.run([*git, "status", "--porcelain"], check=True, capture_output=True, text=True).stdout
        content = subprocess.run([*git, "archive", "HEAD", "--prefix=project/"], check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"{_ROOT} is no git checkout, so there is no commit to pack") from error
    if changed:
        print("changes that are not committed are left out")
    target.write_bytes(lzma.compress(content, preset=9))


def _write_sums(bundle: Path) -> None:
    """What sha256sum --check reads."""
    files = sorted(path for path in bundle.iterdir())
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (bundle / "SHA256SUMS").write_text("".join(lines))


def _choose_photos(folder: Path, room: float) -> list[Path]:
    """As many as fit into `room` bytes, evenly over the folder's names."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS)
    sizes = {path: -path.stat().st_size // 512 * -512 + 1024 for path in found}  # in tar: whole blocks behind a head
    for every in range(1, len(found) // _FEWEST_PHOTOS + 1):
        if sum(sizes[path] for path in found[::every]) <= room:
            return found[::every]
    raise InputError(
        f"{room / _MIB:.1f} MiB are left for photographs, too few for {_FEWEST_PHOTOS} of the {len(found)} of {folder};"
        " raise --limit-mib, or leave FFCV out with --no-ffcv"
    )


if __name__ == "__main__":
    console.run(main)
