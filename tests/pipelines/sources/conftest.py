"""The small set of photographs."""

from __future__ import annotations

import pytest

from tests.pipelines.sources.miniatures import Photos, train_photos, val_photos


@pytest.fixture(scope="session")
def train() -> Photos:
    return train_photos()


@pytest.fixture(scope="session")
def val() -> Photos:
    return val_photos()
