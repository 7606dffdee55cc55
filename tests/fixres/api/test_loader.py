"""`fixres.Loader`: epochs advance by themselves, batches are ready for a network, positions are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import normalize, to_dtype

from fixres.api.loader import Loader
from fixres.pipelines.spec import InputError


def open_loader(path: Path, **fields: object) -> Loader:
    return Loader(path, 32, 4, **{"num_workers": 0, "device": "cpu", "seed": 3, **fields})


def indices_of(loader: Loader) -> list[int]:
    return [int(index) for _, _, indices in loader for index in indices]


def test_each_iteration_is_a_new_epoch(coded_folder: Path) -> None:
    with open_loader(coded_folder, with_indices=True, normalize=False) as loader:
        first = [(images.clone(), indices) for images, _, indices in loader]
        second = [(images.clone(), indices) for images, _, indices in loader]
    assert [indices.tolist() for _, indices in first] != [indices.tolist() for _, indices in second]
    of_first = {int(index): image for images, indices in first for image, index in zip(images, indices, strict=True)}
    of_second = {int(index): image for images, indices in second for image, index in zip(images, indices, strict=True)}
    same = [torch.equal(of_first[index], of_second[index]) for index in of_first]
    assert sum(same) < len(same) / 4  # other crops, not only another order


def test_set_epoch_repeats_an_epoch(coded_folder: Path) -> None:
    with open_loader(coded_folder, with_indices=True) as loader:
        orders = [indices_of(loader) for _ in range(3)]
        loader.set_epoch(1)
        assert [indices_of(loader), indices_of(loader)] == orders[1:]


def test_batches_are_normalized_as_torchvision_does(coded_folder: Path) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    with open_loader(coded_folder, train=False, normalize=False) as loader:
        raw = [images.clone() for images, _ in loader]
    with open_loader(coded_folder, train=False, mean=mean, std=std) as loader:
        for images, wanted in zip((images for images, _ in loader), raw, strict=True):
            assert wanted.dtype == torch.uint8 and images.dtype == torch.float32
            assert images.is_contiguous(memory_format=torch.channels_last)
            expected = normalize(to_dtype(wanted, torch.float32, scale=True), mean, std)
            torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)


def test_testing_sees_each_image_once_in_stored_order(coded_folder: Path) -> None:
    with open_loader(str(coded_folder), train=False, with_indices=True) as loader:
        assert indices_of(loader) == list(range(24)) == indices_of(loader)
        assert len(loader) == 6 and loader.num_samples == 24 and loader.classes == ("class_00", "class_01")


def test_the_resolution_changes_between_epochs(coded_folder: Path) -> None:
    with open_loader(coded_folder) as loader:
        assert next(iter(loader))[0].shape == (4, 3, 32, 32)
        loader.set_resolution(48)
        assert next(iter(loader))[0].shape == (4, 3, 48, 48) and loader.resolution == 48


def test_two_iterations_at_once_are_an_error(coded_folder: Path) -> None:
    with open_loader(coded_folder) as loader:
        first = iter(loader)
        next(first)
        next(iter(loader))
        with pytest.raises(RuntimeError, match="a later iteration"):
            next(first)
        with pytest.raises(RuntimeError, match="a later iteration"):
            list(zip(loader, loader, strict=True))


def test_an_interrupted_epoch_continues(coded_folder: Path) -> None:
    with open_loader(coded_folder, with_indices=True) as loader:
        indices_of(loader)
        whole = iter(loader)
        begun = [int(index) for _ in range(2) for index in next(whole)[2]]
        state = loader.state_dict()
        rest = [int(index) for batch in whole for index in batch[2]]
        after = loader.state_dict()
        following = indices_of(loader)
    with open_loader(coded_folder, with_indices=True) as other:
        other.load_state_dict(state)
        assert indices_of(other) == rest and len(set(begun) | set(rest)) == 24
        assert indices_of(other) == following
        other.load_state_dict(after)
        assert indices_of(other) == following


def test_a_folder_with_both_splits_gives_the_wanted_one(tmp_path: Path, coded_folder: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).symlink_to(coded_folder)
    (tmp_path / "val").unlink()
    (tmp_path / "val" / "class_00").mkdir(parents=True)
    one = next((coded_folder / "class_00").iterdir())
    (tmp_path / "val" / "class_00" / one.name).write_bytes(one.read_bytes())
    with open_loader(tmp_path) as train, open_loader(tmp_path, train=False) as val:
        assert (train.num_samples, val.num_samples) == (24, 1)


def test_a_missing_split_is_named_and_does_not_become_a_class(tmp_path: Path, coded_folder: Path) -> None:
    (tmp_path / "train").symlink_to(coded_folder)
    with open_loader(tmp_path) as loader:
        assert loader.classes == ("class_00", "class_01")
    with pytest.raises(InputError, match=r"has train but no val; add it, or give .*train$"):
        open_loader(tmp_path, train=False)


def test_ranks_share_an_epoch(coded_folder: Path) -> None:
    seen = []
    for rank in range(2):
        with open_loader(coded_folder, rank=rank, world_size=2, with_indices=True) as loader:
            seen.append(indices_of(loader))
    assert sorted(seen[0] + seen[1]) == list(range(24)) and not set(seen[0]) & set(seen[1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"engine": "fast"}, "engine='fast' does not exist; choose one of roc"),
        ({"device": "gpu"}, "device='gpu' is unknown"),
        ({"mean": (123.7, 116.3, 103.5)}, "use three shares of 1"),
        ({"std": (0, 0, 0)}, "and std above 0"),
        ({"std": (0.2, 0.2, float("nan"))}, "and std above 0"),
        ({"mean": (0.5,)}, "use three shares of 1"),
        ({"dtype": torch.uint8}, "dtype=torch.uint8 must be a float dtype"),
        ({"scale": (0.5, 2.0)}, r"scale=\(0.5, 2.0\) must satisfy"),
        ({"scale": 0.08}, "scale=0.08 must be 2 values, each a number"),
        ({"crop": "train"}, "crop='train' must be TrainCrop, EvalCrop, ShiftCrop or None"),
        ({"dtype": "float16"}, "dtype='float16' must be torch.dtype"),
        ({"train": "val"}, "train='val' must be True or False"),
        ({"device": 0}, "device=0 must be text, torch.device or None"),
        ({"mean": "0.5"}, "mean='0.5' must be a list of numbers"),
        ({"num_workers": 1.5}, "num_workers=1.5 must be a whole number or None"),
        ({"on_bad": "skip"}, "on_bad='skip' must be 'stop' or 'replace'"),
    ],
)
def test_mistakes_name_the_value(coded_folder: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_loader(coded_folder, **fields)


@pytest.mark.parametrize(
    ("resolution", "batch_size", "message"),
    [
        ("128", 4, "resolution='128' must be a whole number"),
        (True, 4, "resolution=True must be a whole number"),
        (32, 2.5, "batch_size=2.5 must be a whole number"),
        (32, 0, "batch_size=0 must be at least 1"),
    ],
)
def test_resolution_and_batch_size_are_whole_numbers(
    coded_folder: Path, resolution: object, batch_size: object, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Loader(coded_folder, resolution, batch_size)


def test_numbers_of_numpy_and_devices_of_torch_are_taken(coded_folder: Path) -> None:
    with Loader(coded_folder, np.int64(32), np.int32(4), device=torch.device("cpu"), num_workers=0) as loader:
        loader.set_resolution(np.int64(40))
        assert next(iter(loader))[0].shape == (4, 3, 40, 40)
        with pytest.raises(InputError, match="resolution='48' must be a whole number"):
            loader.set_resolution("48")
        with pytest.raises(InputError, match=r"epoch=1.0 must be a whole number"):
            loader.set_epoch(1.0)


def test_messages_name_keywords_and_no_options(coded_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixres.pipelines.loaders.registry.is_installed", lambda engine: engine == "torch")
    with pytest.raises(InputError, match=r"pip install 'roc-fixres\[ffcv\]', or choose engine torch$"):
        open_loader(coded_folder, engine="ffcv")


def test_a_missing_path_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing.beton does not exist; give a .beton file"):
        open_loader(tmp_path / "nothing.beton")


def test_lightning_trains_on_a_new_epoch_each_time(coded_folder: Path) -> None:
    import lightning

    seen: list[list[int]] = [[]]

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 2)

        def training_step(self, batch: tuple[torch.Tensor, ...], _: int) -> torch.Tensor:
            images, labels, indices = batch
            seen[-1] += indices.tolist()
            return torch.nn.functional.cross_entropy(self.layer(images.mean((2, 3))), labels)

        def on_train_epoch_end(self) -> None:
            seen.append([])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    with open_loader(coded_folder, with_indices=True) as loader:
        trainer = lightning.Trainer(
            max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
        trainer.fit(Module(), loader)
    epochs = seen[:3]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert np.all(np.array(epochs[0]) >= 0)
