"""Boxes and masks move with their images: coded pictures prove it. Order and random numbers are those of the seed."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import Tensor

from fixres.config.transfer import SegmentRecipe
from fixres.pipelines.runtime.exit_codes import EXIT_INPUT, run
from fixres.pipelines.spec import InputError
from fixres.transfer.layouts.masks import IGNORED, read_masks
from fixres.transfer.layouts.voc import read_voc
from fixres.transfer.sample_loader import SampleLoader, listed, stacked
from fixres.transfer.samples import MaskReader, SampleDataset, box_transform, mask_transform, read_boxed
from tests.coded import read_box
from tests.fixres.transfer.layouts import write_ade, write_folders, write_voc


def bright(image: Tensor, channel: int) -> tuple[float, ...]:
    """Edges of the bright rectangle of class a (channel 0) or b (channel 1), which is bright in blue, too."""
    rows, columns = np.nonzero(((image[channel] > 200) & (image[2] > 235)).numpy())
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_boxes_flip_with_their_images(tmp_path: Path) -> None:
    data = read_voc(write_voc(tmp_path / "voc"))
    flips = 0
    for epoch in range(8):
        sample = SampleDataset(data.train, read_boxed, box_transform(0.5), seed=1)[epoch, 0]
        image, boxes = sample.image.as_subclass(Tensor), sample.target["boxes"].as_subclass(Tensor)
        _, _, _, _, flip = read_box(image.permute(1, 2, 0).numpy()[:8], 48, 64)  # the rows above the rectangles
        flips += flip
        assert boxes.tolist() == [[24, 8, 54, 30] if flip else [10, 8, 40, 30]]
        assert np.abs(np.subtract(bright(image, 0), boxes[0].tolist())).max() <= 1
        assert sample.target["labels"].tolist() == [1]
    assert 0 < flips < 8


def test_difficult_boxes_are_not_trained_on(tmp_path: Path) -> None:
    data = read_voc(write_voc(tmp_path / "voc", train=12))
    ignored = next(one for one in data.train if one.ignored.any())
    _, target = read_boxed(ignored)
    assert len(target["boxes"]) == len(ignored.boxes) - 1


def test_masks_scale_crop_and_flip_with_their_images(tmp_path: Path) -> None:
    """Where the mask says class a or b, the picture is bright there; padding is ignored."""
    data = read_masks(write_folders(tmp_path / "folders"))
    recipe = SegmentRecipe(base_size=48, crop_size=64, scale=(0.5, 2.0))
    dataset = SampleDataset(data.train, MaskReader(data), mask_transform(recipe), seed=0)
    seen, shares = set(), []
    for epoch in range(24):
        image, mask, index = dataset[epoch, epoch % 4]
        assert image.shape == (3, 64, 64) and mask.shape == (64, 64)
        image, mask = image.as_subclass(Tensor), mask.as_subclass(Tensor)
        for label in (1, 2):
            # In a class's inner part every pixel is bright; interpolation and JPEG only touch the border.
            inner = -torch.nn.functional.max_pool2d(-(mask == label).float()[None], 5, 1, 2)[0] > 0
            assert (image[2][inner] > 230).all() and (image[label - 1][inner] > 200).all()
            seen |= {label} if inner.any() else set()
        outer = -torch.nn.functional.max_pool2d(-(mask == 0).float()[None], 5, 1, 2)[0] > 0
        assert (image[2][outer] < 200).all()
        assert (
            (mask == IGNORED) == (image == torch.tensor([124, 116, 104]).view(3, 1, 1)).all(0)
        ).float().mean() > 0.98
        shares.append(float((mask == IGNORED).float().mean()))
        again = dataset[epoch, epoch % 4]
        assert torch.equal(image, again.image) and torch.equal(mask, again.target) and index == epoch % 4
    assert seen == {1, 2} and max(shares) > 0.4 and min(shares) == 0


def test_ade_begins_at_one_and_palettes_are_numbers(tmp_path: Path) -> None:
    ade, voc = read_masks(write_ade(tmp_path / "ade")), read_masks(write_voc(tmp_path / "voc"))
    _, mask = MaskReader(ade)(ade.train[0])
    _, other = MaskReader(voc)(voc.train[0])
    assert mask.unique().tolist() == [0, IGNORED] and other.unique().tolist() == [0, 1]
    assert torch.equal(mask == 0, other == 1)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def long_image(root: Path) -> None:
    for folder, mode in (("images", "RGB"), ("masks", "L")):
        Image.new(mode, (99, 3)).save(root / folder / "train/0.png")


BAD_FILES: list[tuple[str, Callable[[Path], object], str]] = [
    ("size", lambda root: Image.new("L", (64, 47)).save(root / "masks/train/0.png"),
     r"0.png has 64 x 48 pixels, its mask .*masks/train/0.png 64 x 47"),
    ("class", lambda root: Image.new("L", (64, 48), 3).save(root / "masks/train/0.png"), "number 3 is an unknown"),
    ("colors", lambda root: Image.new("RGB", (64, 48)).save(root / "masks/train/0.png"), "a picture of mode RGB"),
    ("no mask", lambda root: (root / "masks/train/0.png").write_bytes(b"x"), "masks/train/0.png: cannot be decoded"),
    ("no image", lambda root: (root / "images/train/0.png").write_bytes(b"x"), "0.png: cannot be decoded"),
    ("PostScript", lambda root: (root / "images/train/0.png").write_bytes(b"%!PS-Adobe-3.0\n"), "it is none of"),
    ("gone", lambda root: (root / "masks/train/0.png").unlink(), "masks/train/0.png: No such file or directory"),
    ("long", long_image, "0.png: one side is more than 32 times the other"),
    ("cut", lambda root: halve(root / "images/train/0.png"),
     "images/train/0.png: "),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), [row[1:] for row in BAD_FILES], ids=[row[0] for row in BAD_FILES])
def test_bad_pictures_end_in_one_line(spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    root = write_folders(tmp_path / "folders")
    data = read_masks(root)
    spoil(root)
    loader = SampleLoader(SampleDataset(data.train, MaskReader(data), None, 0), 1, 0, 64, 0, False, listed)
    with pytest.raises(InputError, match=message) as error:
        list(loader)
    assert "\n" not in str(error.value)


def test_an_image_of_another_size_than_annotated(tmp_path: Path) -> None:
    data = read_voc(write_voc(tmp_path / "voc"))
    Image.new("RGB", (60, 48)).save(data.train[0].path)
    with pytest.raises(InputError, match="has 60 x 48 pixels, its annotation 64 x 48"):
        read_boxed(data.train[0])


@pytest.mark.parametrize("turn", [Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_90])
def test_pixels_are_those_that_were_annotated(turn: Image.Transpose, tmp_path: Path) -> None:
    """A camera stores a picture turned, with an EXIF orientation; it was annotated upright."""
    data = read_masks(write_folders(tmp_path / "folders"))
    path = data.train[0].path
    upright, exif = Image.open(path), Image.Exif()
    wanted, _ = MaskReader(data)(data.train[0])
    exif[ExifTags.Base.Orientation] = {Image.Transpose.ROTATE_180: 3, Image.Transpose.ROTATE_90: 6}[turn]
    upright.transpose(turn).save(path, exif=exif)
    if turn == Image.Transpose.ROTATE_90:
        assert torch.equal(MaskReader(data)(data.train[0])[0], wanted)
    else:
        with pytest.raises(InputError, match=r"0.png: its mask .* fits with and without the EXIF orientation 3; store"):
            MaskReader(data)(data.train[0])


def test_values_of_16_bit_pictures_and_1_bit_masks(tmp_path: Path) -> None:
    data = read_masks(write_folders(tmp_path / "folders"))
    Image.fromarray(np.full((48, 64), 40 * 256, np.uint16)).save(data.train[0].path)
    Image.new("1", (64, 48), 1).save(data.train[0].mask)
    image, mask = MaskReader(data)(data.train[0])
    assert image.unique().tolist() == [40] and mask.unique().tolist() == [1]


def test_batches_are_a_function_of_seed_and_epoch_and_continue_anywhere(tmp_path: Path) -> None:
    data = read_masks(write_folders(tmp_path / "folders", train=7))
    recipe = SegmentRecipe(base_size=48, crop_size=32)

    def batches(epoch: int, position: int = 0, num_workers: int = 0, seed: int = 3) -> list[tuple]:
        dataset = SampleDataset(data.train, MaskReader(data), mask_transform(recipe), seed)
        loader = SampleLoader(dataset, 2, seed, 32, num_workers, True, stacked)
        loader.set_epoch(epoch, position)
        with closing(loader):
            return [(batch.indices.tolist(), batch.images, batch.labels) for batch in loader]

    whole = batches(1)
    assert [len(one[0]) for one in whole] == [2, 2, 2] and whole[0][1].shape == (2, 32, 32, 3)
    for other, start in ((batches(1, num_workers=2), 0), (batches(1, position=2), 1)):
        for one, again in zip(whole[start:], other, strict=True):
            assert one[0] == again[0] and torch.equal(one[1], again[1]) and torch.equal(one[2], again[2])
    assert [one[0] for one in batches(2)] != [one[0] for one in whole] != [one[0] for one in batches(1, seed=4)]


def test_errors_of_worker_processes_are_one_line(tmp_path: Path) -> None:
    data = read_masks(write_folders(tmp_path / "folders"))
    for one in data.train:
        one.mask.write_bytes(b"x")
    dataset = SampleDataset(data.train, MaskReader(data), None, 0)
    assert isinstance(pickle.loads(pickle.dumps(dataset[0, 0])), InputError)
    with pytest.raises(InputError, match="cannot be decoded") as error:
        list(SampleLoader(dataset, 1, 0, 64, 1, False, listed))
    assert "\n" not in str(error.value)


def test_a_dead_worker_is_one_line_while_the_network_is_trained_and_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = read_masks(write_folders(tmp_path / "folders", train=40))
    with closing(
        SampleLoader(SampleDataset(data.train, MaskReader(data), None, 0), 1, 0, 64, 1, False, listed)
    ) as loader:
        batches = iter(loader)
        next(batches)
        worker = loader._loader._iterator._workers[0]
        subprocess.run(["sh", "-c", f"kill -TERM {worker.pid}"], check=True)  # as a job scheduler does
        next(batches)
        assert worker.is_alive()

        def step() -> None:
            os.kill(worker.pid, signal.SIGKILL)
            time.sleep(10)

        with pytest.raises(SystemExit) as ended:
            run(step)
        lines = capsys.readouterr().err.splitlines()
        assert ended.value.code == EXIT_INPUT and len(lines) == 1 and "a worker process died" in lines[0]
        with pytest.raises(InputError, match=r"train: a worker process died.*; lower --num-workers"):
            list(batches)
