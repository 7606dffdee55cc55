"""Back ends of the JPEG decoder: the calls, and the report of refusals; the back end of the CPU really runs."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.docs.render import section
from benchmarks.loaders import nvjpeg_backends
from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.spec import InputError
from fixres.reporting.records import read_record

pytest.importorskip("nvidia.nvimgcodec")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def roc(coded_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("roc") / "x.beton"
    convert(coded_folder, path, ConversionConfig("roc", num_workers=0))
    return path


def test_the_kinds_of_files(roc: Path) -> None:
    files = nvjpeg_backends.made_files(roc, 12, 64)
    assert [len(some) for some in files.values()] == [12] * 4
    restarts = {kind: sum(file.tobytes().count(b"\xff\xd0") for file in some) for kind, some in files.items()}
    assert restarts["plain"] == 0 and min(restarts["cut"], restarts["whole"]) >= 12
    ends = {kind: {file[-2:].tobytes() for file in some} for kind, some in files.items()}
    assert ends["cut, no zeros"] == ends["whole"] == ends["plain"] == {b"\xff\xd9"} and b"\0\0" in ends["cut"]
    for one, other in zip(files["cut"], files["cut, no zeros"], strict=True):
        assert np.array_equal(decode_rgb(one.data, "cut"), decode_rgb(other.data, "cut"))


def test_the_cpus_back_end_accepts_all_and_gives_pillows_pixels(
    roc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "nvjpeg_backends.json"
    words = ["--data", roc, "--json", target, "--device", "cpu", "--num-images", 12, "--rounds", 2, "--train-res", 64]
    monkeypatch.setattr(sys, "argv", ["nvjpeg_backends", *map(str, words)])
    nvjpeg_backends.main()
    content = read_record(target, "nvjpeg_backends")
    assert [one["files"] for one in content["results"]] == ["cut", "cut, no zeros", "whole", "plain"]
    for one in content["results"]:
        assert one["num_accepted"] == 12 and one["images_per_second"] > 0
        assert one["largest_difference"] <= 1  # both are libjpeg-turbo, of other versions
    assert "| CPU | cut | 12 of 12 | 0." in section(content)


def _codec(accepted: set[int], asked: list[Any]) -> SimpleNamespace:
    """nvImageCodec with a decoder that accepts some of the files, and darkens them by 3 gray levels."""

    class Decoder:
        def __init__(self, **options: Any) -> None:
            asked.append(options)

        def decode(self, files: list[np.ndarray], params: Any) -> list[Any]:
            assert params == {"apply_exif_orientation": False, "color_spec": "srgb", "sample_format": "rgb"}
            pixels = [decode_rgb(file.data, "x").astype(int) - 3 for file in files]
            return [SimpleNamespace(cpu=lambda p=p: p) if k in accepted else None for k, p in enumerate(pixels)]

    return SimpleNamespace(
        Decoder=Decoder,
        Backend=lambda kind: kind,
        BackendKind=SimpleNamespace(HW_GPU_ONLY="engine", HYBRID_CPU_GPU="kernels"),
        DecodeParams=dict,
        ColorSpec=SimpleNamespace(SRGB="srgb"),
        SampleFormat=SimpleNamespace(I_RGB="rgb"),
        CodeStream=lambda file: file,
    )


@pytest.mark.parametrize("accepted", [{0, 2}, set()])
def test_refused_files_are_counted(roc: Path, monkeypatch: pytest.MonkeyPatch, accepted: set[int]) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("nvidia.nvimgcodec", _codec(accepted, asked), raising=False)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(nvjpeg_backends, "_seconds", lambda *_: 0.5)
    files = nvjpeg_backends.made_files(roc, 4, 64)["plain"]
    answer = nvjpeg_backends.ask("kernels, Huffman on GPU", files, CUDA, 1)
    assert asked[0]["backends"] == ["kernels"] and asked[0]["device_id"] == 0
    assert asked[0]["options"] == ":fancy_upsampling=1 nvjpeg_cuda_decoder:hybrid_huffman_threshold=0"
    assert answer["num_accepted"] == len(accepted)
    if accepted:
        assert answer["images_per_second"] == 4  # of those that were decoded
        assert answer["mean_difference"] == 3 and answer["largest_difference"] == 3
    else:
        assert answer["reason"] == "refuses all"


def test_a_missing_back_end_is_reported(roc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = _codec(set(), [])

    def refuse(**_: Any) -> None:
        raise RuntimeError("no engine\nhere")

    codec.Decoder = refuse
    monkeypatch.setattr("nvidia.nvimgcodec", codec, raising=False)
    assert nvjpeg_backends.ask("JPEG engine", [], CUDA, 1) == {"num_accepted": 0, "reason": "no engine here"}


def test_too_many_images_is_an_error_of_one_line(roc: Path) -> None:
    with pytest.raises(InputError, match="24 images, fewer than num-images=30; lower it"):
        nvjpeg_backends.made_files(roc, 30, 64)
