"""Folders of the user that are called like packages: neither the command nor its workers import them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.coded import write_coded_folder

# As the installed script does: the folder of the script is on the path, the current folder is not.
_COMMAND = "import sys; sys.path.remove(''); from fixres.cli.main import main; main()"


def test_a_users_packages_are_not_imported(tmp_path: Path) -> None:
    for name in ("PIL", "fixres", "pipelines", "benchmarks", "tools", "timm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "types.py").write_text("raise SystemExit('imported')")
    write_coded_folder(tmp_path / "photos", [(40, 50)] * 6)
    for arguments in (
        ["convert", "photos", "x.beton", "--num-workers", "2"],
        ["show-crops", "photos", "crops.png", "--engine", "torch", "--train-res", "32"],  # engine torch has workers
    ):
        done = subprocess.run(
            [sys.executable, "-c", _COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.beton").exists() and (tmp_path / "crops.png").exists()
