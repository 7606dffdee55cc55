"""The graphs of the DALI engines for a GPU, built without one: which device each operator uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nvidia.dali")

from nvidia.dali import Pipeline, fn

from fixres.pipelines.loaders.dali import roc
from fixres.pipelines.loaders.dali.feed import Feed
from fixres.pipelines.loaders.dali.slice import DALISliceLoader
from fixres.pipelines.loaders.dali.stock import DALILoader
from fixres.pipelines.spec import EvalCrop, LoaderConfig, TrainCrop

LOADERS = {"dali": DALILoader, "dali-slice": DALISliceLoader}


class Folder:
    """Replaces the plan of an epoch."""

    def nodes(self) -> tuple:
        return fn.readers.file(files=["a.jpg"], labels=[0], name="reader")


def drawn(engine: str, config: LoaderConfig) -> tuple:
    """Nodes of an engine's outputs."""
    if engine == "roc-dali":
        encoded, *numbers = roc.input_nodes(Feed(), isinstance(config.crop, TrainCrop))
        pixels = roc.decoded_node(encoded, config)
        return (roc.resized_node(pixels, numbers, isinstance(config.crop, TrainCrop)),)
    loader = LOADERS[engine].__new__(LOADERS[engine])
    loader.config, loader._feed = config, Feed()
    return loader._graph(Folder()) if engine == "dali" else loader._graph()


@pytest.mark.parametrize("crop", [TrainCrop(), EvalCrop()])
@pytest.mark.parametrize("engine", ["roc-dali", "dali-slice", "dali"])
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_on_a_gpu_images_stay_there_and_numbers_come_to_the_host(
    engine: str, crop: TrainCrop | EvalCrop, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, dict[str, Any]] = {}
    for name in ("image", "image_slice", "image_random_crop"):
        original = getattr(fn.decoders, name)

        def noted(*inputs: Any, name: str = name, original: Any = original, **arguments: Any) -> Any:
            asked[name] = arguments
            return original(*inputs, **arguments)

        monkeypatch.setattr(fn.decoders, name, noted)
    on_gpu, config = device != "cpu", LoaderConfig(Path("x"), crop, 64, 4, device=device)
    with Pipeline(batch_size=4, num_threads=1, device_id=0 if on_gpu else None, exec_dynamic=True) as pipeline:
        images, *numbers = drawn(engine, config)
        pipeline.set_outputs(images, *numbers)
    assert images.device == ("gpu" if on_gpu else "cpu") and {node.device for node in numbers} <= {"cpu"}
    ((name, arguments),) = asked.items()
    assert arguments["device"] == ("mixed" if on_gpu else "cpu")
    # nvJPEG before 13.2 refuses parts of images with fancy upsampling; the CPU would decode them.
    assert arguments["jpeg_fancy_upsampling"] == (not on_gpu or name == "image")
    assert ("hw_decoder_load" in arguments) == (on_gpu and engine == "roc-dali")
