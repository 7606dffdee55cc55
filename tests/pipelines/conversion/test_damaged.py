"""Damaged JPEG files in a conversion: named, left out, or taken over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.sources import open_source
from fixres.pipelines.spec import InputError
from tests.pipelines.images.odd_jpegs import DAMAGED, PLAIN


@pytest.mark.parametrize("format", ["ffcv", "roc", "webdataset"])
def test_damage_stops_or_is_accepted(format: str, tmp_path: Path) -> None:
    folder, dest = tmp_path / "in" / "a", tmp_path / "out"
    folder.mkdir(parents=True)
    for name, data in {"0": PLAIN["4:2:0"], "1": DAMAGED["half of 4:2:0"], "2": DAMAGED["scans missing"]}.items():
        (folder / f"{name}.jpg").write_bytes(data)

    def run(**options: object) -> int:
        config = ConversionConfig(format, quality=95, num_workers=0, progress=False, **options)
        return convert(tmp_path / "in", dest, config).num_samples

    with pytest.raises(
        InputError, match=r"^2 of 3 samples .*1.jpg: the JPEG is damaged \(.*--damaged accept"
    ) as caught:
        run()
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"belongs to a conversion with .*damaged"):
        run(damaged="accept")
    assert run(damaged="accept", restart=True) == 3
    for index, data in enumerate((folder / f"{k}.jpg").read_bytes() for k in range(3)):
        wanted = decode_rgb(data, "").astype(int)
        assert np.abs(decode_rgb(open_source(dest).read(index), "") - wanted).mean() < 4
    assert run(on_bad="skip", overwrite=True) == 1
