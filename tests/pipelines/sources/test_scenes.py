"""The generated data set: deterministic, train and val drawn alike, classes as their names say."""

from __future__ import annotations

import functools
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin
from torchvision.datasets import ImageFolder

from fixres.pipelines.sampling.crops import center_boxes, training_boxes
from fixres.pipelines.sources.scenes.render import render_scene, scene_jpeg
from fixres.pipelines.sources.scenes.scene import CLASSES, SPLITS, Scene, SceneConfig, Thing, draw_scene, scene_label
from fixres.pipelines.sources.scenes.write import RECORD_NAME, is_complete, scene_path, write_scenes
from fixres.pipelines.spec import EvalCrop, InputError, TrainCrop

SMALL = SceneConfig(num_classes=3, num_train=9, num_val=3, long_side=(64, 80), object_pixels=24)


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def plain_scene(thing: Thing, side: int) -> Scene:
    """A thing on some background, evenly lit, without noise."""
    return Scene(0, side, side, (thing,), 0, (1.0, 0.0, 0.0), 0.0, 1)


def thing(**changes: object) -> Thing:
    whole = Thing("disc", "plain", 12.0, 100.0, (128.0, 128.0), 0.3, 0.7, (0.2, 0.9), 1.0, ((0.0,) * 3, (0.0,) * 3))
    return replace(whole, **changes)


def test_an_image_depends_on_seed_split_and_index_only() -> None:
    config = SceneConfig()
    first = scene_jpeg(config, "train", 5)
    scene_jpeg(config, "val", 17)
    assert scene_jpeg(config, "train", 5) == first
    others = [(config, "val", 5), (config, "train", 17), (SceneConfig(seed=1), "train", 5)]
    assert all(scene_jpeg(*other) != first for other in others)


def test_pinned() -> None:
    """If these literals change, raise write.GENERATOR_VERSION."""
    scene = draw_scene(SceneConfig(), "train", 3)
    target = scene.things[scene.target]
    assert (scene.height, scene.width, scene.label, len(scene.things)) == (350, 481, 3, 9)
    assert np.allclose([*target.center, target.diameter, target.wavelength], [132.81, 259.94, 187.65, 12.54], atol=0.01)
    # Within a level: another Pillow may resample the background a little differently.
    assert np.allclose(render_scene(scene).mean((0, 1)), [115.1, 115.0, 116.5], atol=1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_files_do_not_depend_on_workers(tmp_path: Path, num_workers: int) -> None:
    folder = write_scenes(SMALL, tmp_path / "scenes", num_workers, progress=False)
    files = tree(folder)
    record = json.loads(files.pop(RECORD_NAME))
    assert record["parameters"]["seed"] == SMALL.seed
    assert record["pillow"] == Image.__version__
    assert tuple(record["classes"]) == SMALL.classes
    expected = {
        scene_path(SMALL, split, i): scene_jpeg(SMALL, split, i)
        for split in SPLITS
        for i in range(SMALL.num_images(split))
    }
    assert files == expected
    assert [p.name for p in tmp_path.iterdir()] == ["scenes"]


def test_folder_is_an_image_folder_of_equal_classes(tmp_path: Path) -> None:
    folder = write_scenes(SMALL, tmp_path / "scenes", 0, progress=False)
    for split in SPLITS:
        data = ImageFolder(folder / split)
        assert tuple(data.classes) == SMALL.classes
        assert set(np.bincount(data.targets)) == {SMALL.num_images(split) // SMALL.num_classes}
        for path, label in data.samples:
            assert scene_label(SMALL, int(Path(path).stem)) == label


def test_jpeg_files_are_like_photographs() -> None:
    config = SceneConfig()
    sizes = []
    reference = io.BytesIO()
    Image.new("RGB", (16, 16)).save(reference, "JPEG", quality=config.quality)
    for index in range(24):
        image = Image.open(io.BytesIO(scene_jpeg(config, "train", index)))
        assert image.format == "JPEG" and image.mode == "RGB"
        assert JpegImagePlugin.get_sampling(image) == 2  # 4:2:0
        assert image.quantization == Image.open(reference).quantization
        sizes.append(image.size)
    long, short = np.max(sizes, 1), np.min(sizes, 1)
    assert config.long_side[0] <= long.min() and long.max() <= config.long_side[1]
    assert len(set(sizes)) > 20
    assert 0.6 < short.mean() / long.mean() < 0.85
    assert {w > h for w, h in sizes} == {True, False}


@functools.cache
def scenes_of(split: str, num: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Sizes int (N, 2), and of each target label, diameter, and offset of the center over the sides (N, 4)."""
    scenes = [draw_scene(SceneConfig(), split, index) for index in range(num)]
    rows = []
    for scene in scenes:
        target = scene.things[scene.target]
        y, x = target.center
        rows.append((scene.label, target.diameter, y / scene.height - 0.5, x / scene.width - 0.5))
    return np.array([(scene.height, scene.width) for scene in scenes]), np.array(rows)


def test_train_and_val_are_drawn_alike() -> None:
    (train_sizes, train), (val_sizes, val) = scenes_of("train"), scenes_of("val")
    for a, b in [*zip(train.T[1:], val.T[1:], strict=True), *zip(train_sizes.T, val_sizes.T, strict=True)]:
        both = np.sort(np.concatenate([a, b]))
        distance = np.abs(
            np.searchsorted(np.sort(a), both, "right") / len(a) - np.searchsorted(np.sort(b), both, "right") / len(b)
        ).max()
        assert distance < 2.23 * np.sqrt(2 / len(a))  # Kolmogorov-Smirnov, p = 1e-4
    for label in range(SceneConfig().num_classes):
        means = [rows[rows[:, 0] == label, 1].mean() for rows in (train, val)]
        assert means[0] == pytest.approx(means[1], rel=0.1)


def test_objects_lie_in_the_center_crop() -> None:
    sizes, rows = scenes_of("val")
    y, x, h, w = center_boxes(EvalCrop(), sizes, 128).T
    center_y, center_x = (rows[:, 2] + 0.5) * sizes[:, 0], (rows[:, 3] + 0.5) * sizes[:, 1]
    inside = (center_y > y) & (center_y < y + h) & (center_x > x) & (center_x < x + w)
    assert inside.mean() > 0.99


def test_random_resized_crop_alone_makes_objects_look_larger_in_training() -> None:
    """FixRes, section 3: the apparent size goes with 1 / sqrt(crop area), since output sides are equal."""
    sizes, rows = scenes_of("train")
    *_, h, w = training_boxes(TrainCrop(), 0, 0, np.arange(len(sizes)), sizes).T
    *_, test_h, test_w = center_boxes(EvalCrop(), sizes, 128).T
    apparent_train, apparent_test = rows[:, 1] / np.sqrt(h * w), rows[:, 1] / np.sqrt(test_h * test_w)
    assert 1.2 < apparent_train.mean() / apparent_test.mean() < 1.6


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("disc", np.pi / 4),
        ("cross", 1 - 0.64**2),
        ("triangle", 27**0.5 / 16),
        ("square", 0.74**2),
        ("ring", np.pi / 4 * (1 - 0.4**2)),
    ],
)
def test_shapes_have_the_area_of_their_formula(shape: str, area: float) -> None:
    empty = render_scene(plain_scene(thing(diameter=0.0, center=(-500.0, -500.0)), 256)).astype(float)
    drawn = render_scene(plain_scene(thing(shape=shape), 256)).astype(float)
    cover = (1 - drawn / empty)[..., 1].sum()
    assert cover == pytest.approx(area * 100**2, rel=0.02)


@pytest.mark.parametrize(("pattern", "num_directions"), [("stripes", 1), ("checks", 2), ("dots", 3)])
@pytest.mark.parametrize("wavelength", [10.0, 24.0])
def test_patterns_share_wavelength_and_differ_in_directions(
    pattern: str, num_directions: int, wavelength: float
) -> None:
    colors = ((40.0,) * 3, (210.0,) * 3)
    scene = plain_scene(
        thing(shape="square", diameter=800.0, pattern=pattern, wavelength=wavelength, colors=colors), 256
    )
    window = np.hanning(256)
    patch = render_scene(scene)[..., 1].astype(float)
    power = np.abs(np.fft.fft2((patch - patch.mean()) * np.outer(window, window)))[:129]
    frequency = np.hypot(np.fft.fftfreq(256)[:129, None], np.fft.fftfreq(256)[None, :])
    near = power > 0.5 * power.max()
    assert np.abs(frequency[near] - 1 / wavelength).max() < 1.6 / 256
    angle = np.arctan2(np.fft.fftfreq(256)[None, :], np.abs(np.fft.fftfreq(256))[:129, None] + 1e-9) + np.zeros_like(
        power
    )
    groups = np.sort(np.unique(np.round(angle[near], 2)))
    assert 1 + (np.diff(groups) > 0.4).sum() == num_directions


def test_class_names_tell_shape_and_texture() -> None:
    config = SceneConfig(num_classes=len(CLASSES), texture_spread=0.0)
    for index in range(len(CLASSES)):
        scene = draw_scene(config, "train", index)
        target = scene.things[scene.target]
        grain = "fine" if target.wavelength < (config.fine_pixels * config.coarse_pixels) ** 0.5 else "coarse"
        assert config.classes[scene.label] == f"{target.shape}_{target.pattern}_{grain}"


def test_completeness_notices_missing_files_and_other_parameters(tmp_path: Path) -> None:
    folder = write_scenes(SMALL, tmp_path / "scenes", 0, progress=False)
    assert is_complete(SMALL, folder)
    assert not is_complete(replace(SMALL, seed=1), folder)
    assert not is_complete(SMALL, tmp_path / "nothing")
    (folder / scene_path(SMALL, "val", 1)).unlink()
    assert not is_complete(SMALL, folder)


def test_existing_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(InputError, match="exists"):
        write_scenes(SMALL, tmp_path, 0, progress=False)
    assert (tmp_path / "mine").read_text() == "x"


def test_a_killed_writer_leaves_no_file_under_the_final_name(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from fixres.pipelines.sources.scenes.scene import SceneConfig;"
        "from fixres.pipelines.sources.scenes.write import write_scenes;"
        f"write_scenes(SceneConfig(), Path({str(tmp_path / 'scenes')!r}), 0, progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    try:
        while process.poll() is None and not any(tmp_path.glob(".scenes*/train/*/00003.jpg")):
            time.sleep(0.05)
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "scenes").exists()
    folder = write_scenes(SMALL, tmp_path / "scenes", 0, progress=False)
    assert is_complete(SMALL, folder)
    assert [p.name for p in tmp_path.iterdir()] == ["scenes"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_classes", 1),
        ("num_classes", 99),
        ("num_train", 3),
        ("num_val", 0),
        ("seed", -1),
        ("long_side", (500, 400)),
        ("quality", 0),
        ("aspect", (0.0, 0.5)),
        ("texture_spread", -0.1),
        ("fine_pixels", 0.0),
    ],
)
def test_impossible_parameters_are_reported(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field) as caught:
        SceneConfig(**{field: value})
    assert "\n" not in str(caught.value)
