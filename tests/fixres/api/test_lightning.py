"""`fixres.lightning` in a real Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import fixres
from fixres.pipelines.spec import InputError
from tests.coded import write_coded_folder

lightning = pytest.importorskip("lightning")

from fixres.lightning import CropDataModule, ProgressiveResolution  # noqa: E402 (needs the package)

NUM = 24
_OPTIONS = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


class Module(lightning.LightningModule):
    """Notes what it gets: epoch, resolution, indices. Ends the training after `stop_after` steps."""

    def __init__(self, stop_after: int = 1000) -> None:
        super().__init__()
        self.layer, self.seen, self.tested = torch.nn.Linear(3, 2), [], []
        self._left = stop_after

    def training_step(self, batch: tuple[torch.Tensor, ...], _: int) -> torch.Tensor:
        images, labels, *indices = batch
        self.seen.append((self.current_epoch, images.shape[-1], *[one.tolist() for one in indices]))
        self._left -= 1
        if self._left == 0:
            self.trainer.save_checkpoint(self.trainer.default_root_dir + "/middle.ckpt")
            self.trainer.should_stop = True
        return torch.nn.functional.cross_entropy(self.layer(images.mean((2, 3))), labels)

    def validation_step(self, batch: tuple[torch.Tensor, ...], _: int) -> None:
        self.tested += [(batch[0].shape[-1], index) for index in batch[2].tolist()]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for split, num in (("train", NUM), ("val", 10)):
        write_coded_folder(root / split, [(60 + i, 90 - i) for i in range(num)])
    return root


def data_of(photos: Path, **options: Any) -> CropDataModule:
    return CropDataModule(photos, 32, 4, num_workers=0, with_indices=True, seed=3, **options)


def trainer(folder: Path, epochs: int, **options: Any) -> Any:
    return lightning.Trainer(
        max_epochs=epochs, default_root_dir=folder, **_OPTIONS | {"enable_checkpointing": False} | options
    )


def test_each_epoch_has_new_crops_and_the_callback_changes_their_size(photos: Path, tmp_path: Path) -> None:
    module, data = Module(), data_of(photos, test_resolution=48)
    steps = ProgressiveResolution([(0, 32), (2, 40)])
    trainer(tmp_path, 3, callbacks=[steps]).fit(module, data)
    assert [(epoch, side) for epoch, side, _ in module.seen[::6]] == [(0, 32), (1, 32), (2, 40)]
    assert len({side for epoch, side, _ in module.seen if epoch == 2}) == 1
    epochs = [[i for epoch, _, indices in module.seen if epoch == number for i in indices] for number in range(3)]
    assert all(sorted(one) == list(range(NUM)) for one in epochs) and len(set(map(tuple, epochs))) == 3
    # Lightning tests two batches before the training.
    assert module.tested[8:18] == [(48, index) for index in range(10)]


def test_the_first_resolution_is_the_callbacks(photos: Path, tmp_path: Path) -> None:
    module = Module()
    trainer(tmp_path, 1, callbacks=[ProgressiveResolution([(0, 48)])]).fit(module, data_of(photos))
    assert {side for _, side, _ in module.seen} == {48}


def test_an_epoch_is_resumed_in_the_middle(photos: Path, tmp_path: Path) -> None:
    whole = Module()
    trainer(tmp_path, 2).fit(whole, data_of(photos))
    first = Module(stop_after=8)  # in the second epoch
    trainer(tmp_path, 2, num_sanity_val_steps=0, limit_val_batches=0).fit(first, data_of(photos))
    second = Module()
    resumed = trainer(tmp_path, 2, num_sanity_val_steps=0, limit_val_batches=0)
    resumed.fit(second, data_of(photos), ckpt_path=tmp_path / "middle.ckpt", weights_only=True)
    assert first.seen == whole.seen[:8] and [one[2] for one in second.seen] == [one[2] for one in whole.seen[8:]]


@pytest.mark.parametrize("kind", ["loader", "dataset"])
def test_the_callback_works_without_the_data_module(kind: str, photos: Path, tmp_path: Path) -> None:
    loader: Any = fixres.Loader(photos, 32, 4, num_workers=0, device="cpu")
    if kind == "dataset":
        transform = lambda crop: crop / 255  # noqa: E731
        loader = DataLoader(fixres.CropDataset(photos, 32, transform=transform), 4)
    module = Module()
    trainer(tmp_path, 2, callbacks=[ProgressiveResolution([(0, 32), (1, 48)])]).fit(module, loader)
    assert [one[:2] for one in module.seen] == [(0, 32)] * 6 + [(1, 48)] * 6


def test_mistakes(photos: Path, tmp_path: Path) -> None:
    for points in ([], [(1, 32)], [(0, 32), (0, 48)], [(0, 32), (5, 48), (4, 64)]):
        with pytest.raises(InputError, match="must begin with epoch 0, and epochs must increase"):
            ProgressiveResolution(points)
    with pytest.raises(InputError, match="resolution=4 is not supported"):
        ProgressiveResolution([(0, 4)])
    with pytest.raises(InputError, match="nowhere does not exist"):
        CropDataModule(tmp_path / "nowhere", 32, 4)
    with pytest.raises(InputError, match="needs a loader, data set or data module with set_resolution"):
        trainer(tmp_path, 1, callbacks=[ProgressiveResolution([(0, 32)])]).fit(Module(), [])
