"""One table of all forms of the same photographs; the images/s in it are those of the throughput benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.loaders.formats import FormatsOptions, measure
from benchmarks.loaders.tables import formats_table
from fixres.pipelines.spec import InputError


def speeds(options: FormatsOptions) -> dict[str, Any]:
    """A record of the throughput benchmark, without its measurement."""
    assert options.jpeg_files == "published"
    return {
        "partial": False, "name": "throughput", "settings": {"res": [32], "num_images": 24, "engines": options.engines},
        "startup": [{"engine": name, "first_batch_seconds": 0.5} for name in options.engines],
        "results": [{"engine": name, "res": 32, "images_per_second": 1234.0} for name in options.engines],
        "file_bytes": {name: options.files().num_bytes(kind, name.startswith("roc-")) for name, kind in
                       {"roc-index": "published", "roc-coarse": "published_coarse",
                        "torchvision": "published", "roc": "roc"}.items()},
    }  # fmt: skip


def test_bytes_preparation_and_fidelity(coded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.loaders.formats.throughput", speeds)
    engines = ["roc-index", "roc-coarse", "torchvision", "roc"]
    options = {"data": coded_folder, "work_dir": tmp_path / "work", "num_images": 24, "batch_size": 8}
    content = measure(FormatsOptions(engines=engines, train_res=[32], **options))
    seconds, size = content["preparation_seconds"], content["file_bytes"]
    assert seconds["torchvision"] is None and min(seconds[name] for name in engines if name != "torchvision") > 0
    # Tiny images, and their index; they are too small for coarse levels.
    assert size["torchvision"] < size["roc-index"] <= size["roc-coarse"] < 1.5 * size["torchvision"]
    psnr = {one["engine"]: one["mean_psnr"] for one in content["fidelity"]}
    # The same pixels by another resampler, full levels that were encoded again, and Pillow itself.
    assert psnr["torchvision"] > 100 and 30 < psnr["roc"] < 100 and 40 < psnr["roc-index"] < 100
    table = formats_table(content)
    assert "| untouched, index |" in table and "1234" in table and table.count("\n") == 5
    assert not list((tmp_path / "work").iterdir())


def test_other_engines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="engines=dali-slice: choose from roc-index"):
        FormatsOptions(data=tmp_path, engines=["roc", "dali-slice"])
