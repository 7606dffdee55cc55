"""The requirements of every engine, on coded images (tests/coded.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fixres.pipelines.loaders import ENGINES, open_loader
from fixres.pipelines.sampling.crops import crop_boxes
from fixres.pipelines.sampling.draws import epoch_draws, indices_of
from fixres.pipelines.sources import open_source
from fixres.pipelines.spec import EvalCrop, InputError, Loader
from tests.pipelines.loaders import loading
from tests.pipelines.loaders.loading import TRAIN, Seen, check_boxes, check_codes, collect, config

# FFCV compiles for 15 s whenever a loader is opened, so its tests are in test_ffcv.py.
WAYS = [
    pytest.param(("torch", "folder"), id="torch-folder"),
    pytest.param(("torch", "beton"), id="torch-beton"),
    pytest.param(("torch", "shards"), id="torch-shards"),
    pytest.param(("roc", "beton"), id="roc-beton"),
    pytest.param(("roc-dali", "roc"), id="rocdali-roc"),
    pytest.param(("dali-slice", "folder"), id="slice-folder"),
    pytest.param(("dali-slice", "beton"), id="slice-beton"),
    pytest.param(("dali", "folder"), id="dali-folder"),
    pytest.param(("dali", "shards"), id="dali-shards"),
]
SHARING = [way for way in WAYS if way.values[0][0] != "dali"]


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory, coded_folder: Path, coded_sizes: list) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("stored")
    return {
        "folder": coded_folder,
        "beton": loading.write_coded_beton(root / "coded.beton", coded_sizes),
        "roc": loading.write_coded_roc(root / "coded_roc.beton", coded_sizes),
        "shards": loading.write_coded_shards(root / "shards", coded_sizes),
    }


@pytest.fixture
def opened():
    """Opens loaders and closes them at the end."""
    loaders: list[Loader] = []

    def opener(engine: str, *arguments: object, **settings: object) -> Loader:
        if "dali" in engine:
            pytest.importorskip("nvidia.dali")
        if engine == "roc-dali":  # full levels, as the reference decodes them; coarser ones have tests of their own
            settings = {"min_zoom": float("inf")} | settings
        loaders.append(open_loader(engine, config(*arguments, **settings)))
        return loaders[-1]

    yield opener
    for loader in loaders:
        loader.close()


def facts(path: Path, sizes: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes, codes and labels by index: an ImageFolder is ordered by class first."""
    source, num = open_source(path), len(sizes)
    folder_order = sorted(range(num), key=lambda i: (i % 2, i))
    codes = np.array(folder_order if path.name.startswith("coded") and path.is_dir() else range(num))
    assert len(source) == num
    return np.array(sizes)[codes], codes, codes % 2


@pytest.mark.parametrize("way", WAYS)
def test_evaluation(way: tuple[str, str], opened, stored: dict[str, Path], coded_sizes: list) -> None:
    """Each index once, its label, the center box, the order of the files; again at another resolution."""
    path = stored[way[1]]
    sizes, codes, labels = facts(path, coded_sizes)
    loader = opened(way[0], path)
    assert (len(loader), loader.num_samples, loader.classes) == (5, 24, loading.CLASSES)
    for resolution in (48, 33, 64):
        loader.set_resolution(resolution)
        seen = collect(loader)
        assert seen.batch_sizes == [5, 5, 5, 5, 4]
        if way != ("dali", "shards"):
            assert seen.indices.tolist() == list(range(24))
        assert sorted(seen.indices.tolist()) == list(range(24))
        check_codes(seen, codes, labels)
        center = crop_boxes(EvalCrop(), 3, 0, np.arange(24), sizes, resolution)
        check_boxes(seen, sizes, center.yxhw, center.flip)
    assert loader.counters.num_images == 72
    num_bytes = 3 * sum(len(open_source(path).read(i)) for i in range(24))
    num_pixels = 3 * int(sizes.prod(axis=1).sum())
    if way[1] == "roc":  # cut out of them
        assert 0.4 * num_bytes < loader.counters.bytes_read < num_bytes
        assert 0.4 * num_pixels < loader.counters.pixels_decoded < num_pixels
    elif way[0] == "roc":  # from the checkpoints of the index, by smaller inverse transforms
        assert loader.counters.bytes_read < num_bytes and loader.counters.pixels_decoded < 0.4 * num_pixels
    else:
        assert (loader.counters.bytes_read, loader.counters.pixels_decoded) == (num_bytes, num_pixels)
    assert loader.counters.wait_seconds > 0


@pytest.mark.parametrize("way", WAYS)
def test_evaluation_pixels_are_torchvisions(way, opened, stored, coded_sizes: list) -> None:
    from PIL import Image
    from torchvision.transforms import CenterCrop, Compose, Resize

    path = stored[way[1]]
    source = open_source(path)
    seen = collect(opened(way[0], path, resolution=64)).by_index()
    transform = Compose([Resize(73), CenterCrop(64)])
    worst, means = 0, []
    for index in range(24):
        from fixres.pipelines.images.codec import decode_rgb

        wanted = np.asarray(transform(Image.fromarray(decode_rgb(source.read(index), ""))))
        difference = np.abs(seen[index].astype(int) - wanted)
        worst, means = max(worst, difference.max()), [*means, difference.mean()]
    assert worst <= (1 if way[0] == "torch" else 3)
    assert max(means) < (0.2 if way[0] == "torch" else 0.6)


@pytest.mark.parametrize("way", SHARING)
def test_training_boxes_are_ours(way, opened, stored, coded_sizes: list) -> None:
    sizes, codes, labels = facts(stored[way[1]], coded_sizes)
    loader = opened(way[0], stored[way[1]], crop=TRAIN, shuffle=True, drop_last=True)
    assert loader.shares_boxes and len(loader) == 4
    orders = []
    for epoch, resolution in ((0, 64), (1, 40), (2, 64)):
        loader.set_epoch(epoch)
        loader.set_resolution(resolution)
        seen = collect(loader)
        assert len(set(seen.indices.tolist())) == 20
        check_codes(seen, codes, labels)
        drawn = crop_boxes(TRAIN, 3, epoch, np.arange(24), sizes, resolution)
        check_boxes(seen, sizes, drawn.yxhw, drawn.flip)
        orders.append(seen.indices.tolist())
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("way", SHARING)
def test_weighted_draws_of_a_subset(way, opened, stored, coded_sizes: list) -> None:
    """Each draw has a box of its own, also of a sample that was drawn before; a resumed epoch has the other draws."""
    sizes, codes, labels = facts(stored[way[1]], coded_sizes)
    subset, weights = np.array([5, 2, 7, 11, 20, 3, 9, 12]), np.array([9.0, 1, 1, 1, 1, 1, 0, 1])
    settings = {"crop": TRAIN, "shuffle": True, "indices": subset, "weights": weights, "batch_size": 3}
    loader = opened(way[0], stored[way[1]], **settings)
    assert (len(loader), loader.num_samples) == (3, 8)
    seen = collect(loader)
    draws = epoch_draws(loader.config, 24, 0)
    assert seen.indices.tolist() == indices_of(draws).tolist() and draws.max() >= 2**32  # an image came again
    check_codes(seen, codes, labels)
    drawn = crop_boxes(TRAIN, 3, 0, draws, sizes[seen.indices], 48)
    for image, index, box, flip in zip(seen.images, seen.indices, drawn.yxhw, drawn.flip, strict=True):
        one = Seen(image[None], labels[[index]], np.array([0]), [1])
        check_boxes(one, sizes[[index]], box[None], flip[None])
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    other = opened(way[0], stored[way[1]], **settings)
    other.load_state_dict(state)
    assert np.array_equal(collect(other).images, seen.images[3:])
    with pytest.raises(InputError, match="the saved data position has subset="):
        opened(way[0], stored[way[1]], **settings | {"indices": subset[::-1].copy()}).load_state_dict(state)


def test_dali_refuses_subsets(opened, stored: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="engine='dali' draws its own order, so indices, weights and aug_repeats"):
        opened("dali", stored["folder"], indices=np.arange(4))


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_dali_draws_its_own_crops(kind: str, opened, stored, coded_sizes: list) -> None:
    from tests.coded import read_box

    sizes, codes, labels = facts(stored[kind], coded_sizes)
    loader = opened("dali", stored[kind], crop=TRAIN, shuffle=True)
    assert not loader.shares_boxes
    seen, flips = [], []
    for epoch, resolution in ((0, 64), (1, 40), (2, 64)):
        loader.set_epoch(epoch)
        loader.set_resolution(resolution)
        seen.append(collect(loader))
        assert sorted(seen[-1].indices.tolist()) == list(range(24))
        check_codes(seen[-1], codes, labels)
        for image, index in zip(seen[-1].images, seen[-1].indices, strict=True):
            height, width = sizes[index]
            y, x, h, w, flip = read_box(image, height, width)
            flips.append(flip)
            assert min(y / height, x / width) > -0.05 and max((y + h) / height, (x + w) / width) < 1.05
            assert 0.15 < h * w / (height * width) < 1.1 or max(sizes[index]) > 5 * min(sizes[index])
    assert 15 < sum(flips) < 57  # 72 coins: 5 standard deviations
    assert seen[0].indices.tolist() != seen[1].indices.tolist()
    assert (seen[0].by_index() != seen[2].by_index()).any()


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("way", SHARING)
def test_same_crops_on_any_engine_and_workers(way, num_workers: int, opened, stored) -> None:
    """The reference is torch without workers on the same file; DALI may differ by 3 gray levels of rounding."""
    settings = {"crop": TRAIN, "shuffle": True, "resolution": 56}
    wanted = collect(opened("torch", stored[way[1]], num_workers=0, **settings))
    seen = collect(opened(way[0], stored[way[1]], num_workers=num_workers, **settings))
    assert seen.indices.tolist() == wanted.indices.tolist() and seen.labels.tolist() == wanted.labels.tolist()
    difference = np.abs(seen.images.astype(int) - wanted.images)
    assert difference.max() <= (0 if way[0] == "torch" else 3)
    assert difference.mean() < 0.5


@pytest.mark.parametrize("way", WAYS)
def test_resuming_gives_exactly_the_rest(way, opened, stored) -> None:
    settings = {"crop": TRAIN, "shuffle": True}
    loader = opened(way[0], stored[way[1]], **settings)
    loader.set_epoch(2)
    whole = collect(loader)
    running = iter(loader)
    for _ in range(2):
        next(running)
    state = loader.state_dict()
    assert (state["epoch"], state["position"]) == (2, 10)
    fresh = opened(way[0], stored[way[1]], **settings)
    fresh.load_state_dict(state)
    fresh.set_epoch(2)  # as a training loop does; the position must survive it
    rest = collect(fresh)
    assert rest.indices.tolist() == whole.indices[10:].tolist()
    assert len(fresh) == 5 and rest.batch_sizes == [5, 5, 4]
    if way != ("dali", "folder"):  # this engine draws new crops
        assert (rest.images == whole.images[10:]).all()
    assert fresh.state_dict()["position"] == 24
    assert sorted(collect(fresh).indices.tolist()) == list(range(24))  # the next epoch is whole again
    # A loader that was abandoned in the middle starts again, too, at a new resolution.
    loader.set_resolution(40)
    again = collect(loader)
    assert again.indices.tolist() == whole.indices.tolist() and again.images.shape[1] == 40


@pytest.mark.parametrize("way", WAYS)
def test_resuming_at_the_end_gives_nothing(way, opened, stored) -> None:
    loader = opened(way[0], stored[way[1]])
    collect(loader)
    fresh = opened(way[0], stored[way[1]])
    fresh.load_state_dict(loader.state_dict())
    assert list(fresh) == []


@pytest.mark.parametrize(("world_size", "batch_size"), [(2, 5), (3, 4), (5, 7)])
@pytest.mark.parametrize(
    "way",
    [way for way in WAYS if way.id in ("torch-folder", "rocdali-roc", "slice-beton", "dali-folder", "dali-shards")],
)
def test_ranks_partition_an_evaluation(way, world_size: int, batch_size: int, opened, stored, coded_sizes) -> None:
    """24 samples: over 5 ranks of 7 one step holds them all; over 3 of 4 nothing is left over; over 2 of 5 four are."""
    _, codes, labels = facts(stored[way[1]], coded_sizes)
    ranks = []
    for rank in range(world_size):
        loader = opened(way[0], stored[way[1]], rank=rank, world_size=world_size, batch_size=batch_size, num_workers=0)
        ranks += [collect(loader), collect(loader)]
        assert len(ranks[-1].batch_sizes) == len(loader)
        check_codes(ranks[-1], codes, labels)
        assert ranks[-1].indices.tolist() == ranks[-2].indices.tolist()
    seen = np.concatenate([rank.indices for rank in ranks[::2]])
    assert sorted(seen.tolist()) == list(range(24))


@pytest.mark.parametrize("way", [way for way in WAYS if way.id != "torch-shards"])
def test_a_rank_may_get_an_empty_batch(way, opened, stored) -> None:
    """24 samples over 11 ranks in batches of 2: the second step has 2 samples for 11 ranks."""
    sizes = []
    for rank in range(11):
        loader = opened(way[0], stored[way[1]], rank=rank, world_size=11, batch_size=2, num_workers=0)
        sizes.append(collect(loader).batch_sizes)
    assert {len(of_rank) for of_rank in sizes} == {2} and sum(map(sum, sizes)) == 24
    assert 0 in {of_rank[1] for of_rank in sizes}


@pytest.mark.parametrize("way", WAYS)
def test_closing_twice(way, opened, stored) -> None:
    loader = opened(way[0], stored[way[1]], num_workers=2)
    next(iter(loader))
    loader.close()
    loader.close()
    with pytest.raises(RuntimeError, match="closed"):
        iter(loader)


def test_state_of_other_data_is_refused(opened, stored) -> None:
    loader = opened("torch", stored["folder"])
    state = loader.state_dict()
    for change, word in (
        ({"num_samples": 23}, "num_samples=23"),
        ({"seed": 4}, "seed=4"),
        ({"position": 25}, "position=25"),
    ):
        with pytest.raises(InputError, match=word):
            loader.load_state_dict(state | change)
    with pytest.raises(InputError, match="epoch=-1"):
        loader.set_epoch(-1)
    with pytest.raises(InputError, match="resolution=4 is not supported"):
        loader.set_resolution(4)


def test_wrong_names_and_paths(stored, tmp_path: Path) -> None:
    def message(engine: str, path: Path) -> str:
        with pytest.raises(InputError) as caught:
            open_loader(engine, config(path))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert all(name in message("tensorflow", stored["folder"]) for name in ENGINES)
    assert "does not exist" in message("torch", tmp_path / "nowhere")
    assert "--format ffcv" in message("ffcv", stored["folder"])
    assert "--format webdataset" in message("dali", stored["beton"])
    assert "--format roc" in message("roc-dali", stored["folder"])
    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(empty) in message("torch", empty)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, stored) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for engine, path, extra in (
        ("ffcv", "beton", "ffcv"),
        ("dali", "folder", "dali"),
        ("dali-slice", "beton", "dali"),
        ("roc-dali", "roc", "dali"),
    ):
        with pytest.raises(InputError, match=rf"pip install 'roc-fixres\[{extra}\]'"):
            open_loader(engine, config(stored[path]))


def test_a_device_that_does_not_exist(stored) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match="device='cuda'"):
        open_loader("torch", config(stored["folder"], device="cuda"))
