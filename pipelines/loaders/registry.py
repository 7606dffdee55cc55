"""The engines by name: which module, package and data each one needs."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import NamedTuple

from fixres.pipelines.formats.beton_layout import MODE_RAW
from fixres.pipelines.formats.beton_parts import open_beton
from fixres.pipelines.formats.samples import is_indexable
from fixres.pipelines.spec import InputError, Loader, LoaderConfig, ShiftCrop


class _Engine(NamedTuple):
    """What an engine needs."""

    module: str  # imported when the engine is opened, because FFCV takes 6 s and DALI 2 s to import
    loader: str  # name of the class
    package: str | None  # that must be installed
    extra: str | None  # of roc-fixres, which installs it
    kinds: tuple[str, ...]  # of paths that it reads: "folder", "beton", "parts", "shards"


_ANY = ("folder", "beton", "shards")
_ALL = ("parquet", "parts", *_ANY)
# Engines that read RoC records, for data without them.
_INDEXED = {
    "roc": _Engine("fixres.pipelines.loaders.roc_indexed", "IndexedLoader", None, None, _ALL),
    "roc-gpu": _Engine("fixres.pipelines.loaders.roc_gpu_indexed", "IndexedGPULoader", None, None, _ALL),
}
_ENGINES = {
    "roc": _Engine("fixres.pipelines.loaders.roc", "RocLoader", None, None, _ALL),
    "roc-gpu": _Engine("fixres.pipelines.loaders.roc_gpu", "RocGPULoader", None, None, _ALL),
    "roc-dali": _Engine(
        "fixres.pipelines.loaders.dali.roc", "RocDALILoader", "nvidia.dali", "dali", ("parts", "beton")
    ),
    "torch": _Engine("fixres.pipelines.loaders.pillow", "TorchLoader", None, None, _ALL),
    "ffcv": _Engine("fixres.pipelines.loaders.ffcv", "FFCVLoader", "ffcv", "ffcv", ("beton",)),
    "dali": _Engine("fixres.pipelines.loaders.dali.stock", "DALILoader", "nvidia.dali", "dali", ("folder", "shards")),
    "dali-slice": _Engine("fixres.pipelines.loaders.dali.slice", "DALISliceLoader", "nvidia.dali", "dali", _ANY),
}
ENGINES = tuple(_ENGINES)
"""Names that `open_loader` takes."""

_FORMATS = {"beton": "ffcv", "shards": "webdataset"}
_KINDS = {
    "folder": "an image folder",
    "beton": "a .beton file",
    "parts": "a folder of .beton parts",
    "shards": "a folder of .tar shards",
    "parquet": "parquet",
}


def open_loader(engine: str, config: LoaderConfig) -> Loader:
    """Opens an engine.

    Args:
        engine: one of `ENGINES`.
        config: data, crop, resolution, batch size, sharding.

    Raises:
        InputError: unknown engine, missing package, or a path that the engine cannot read.
    """
    from fixres.pipelines.loaders.base import check_device  # imports torch, which takes seconds

    if engine not in _ENGINES:
        raise InputError(f"engine={engine!r} does not exist; choose one of {', '.join(ENGINES)}")
    entry = _ENGINES[engine]
    _check_package(engine, entry)
    _check_path(engine, entry, config)
    check_device(config)
    if engine in _INDEXED and (config.source is not None or not has_records(config.path)):
        entry = _INDEXED[engine]
    loader_class = getattr(importlib.import_module(entry.module), entry.loader)
    _check_draws(engine, loader_class, config)
    loader: Loader = loader_class(config)
    return loader


def _check_draws(engine: str, loader_class: type, config: LoaderConfig) -> None:
    """Engines that draw their own samples or crops would deliver others than the wanted ones; FFCV has one filter."""
    is_plain = config.indices is None and config.weights is None and config.aug_repeats == 1
    if not (loader_class.shares_order or is_plain):
        raise InputError(
            f"engine={engine!r} draws its own order, so indices, weights and aug_repeats have no effect; choose engine "
            "torch or dali-slice, or engine roc with a .beton file"
        )
    if (config.views or config.per_image is not None) and not loader_class.makes_views:
        raise InputError(
            f"engine={engine!r} makes one crop of each image, without calls of your own (views, per_image); choose "
            "engine roc, or torch for folders and shards"
        )
    if isinstance(config.crop, ShiftCrop) and not loader_class.shares_boxes:
        raise InputError(
            f"engine={engine!r} draws its own crops and cannot shift them (augmentation test_shift); "
            "choose engine roc, torch, roc-dali or dali-slice, or augmentation test_flip"
        )
    if engine == "ffcv" and config.crop.interpolation != "bilinear":
        raise InputError(
            f"engine='ffcv' cannot resize with interpolation={config.crop.interpolation!r}; "
            "choose --engine roc, or interpolation bilinear"
        )


def has_records(path: Path) -> bool:
    """Whether engines `roc` and `roc-gpu` read the data at `path` as RoC records, or by the index of untouched images.

    Raw pixels have neither; the reader of records refuses them.
    """
    if _kind_of(path) not in ("beton", "parts"):
        return False
    data = open_beton(path)
    return "roc" in data.field_names or bool((data.modes == MODE_RAW).any())


def is_installed(engine: str) -> bool:
    """Whether the package that an engine needs is installed."""
    package = _ENGINES[engine].package
    try:
        return package is None or importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False


def _check_package(engine: str, entry: _Engine) -> None:
    if not is_installed(engine):
        raise InputError(
            f"engine={engine!r} needs the package {entry.package}; "
            f"install it with: pip install 'roc-fixres[{entry.extra}]', or choose --engine torch"
        )


def _check_path(engine: str, entry: _Engine, config: LoaderConfig) -> None:
    path = config.path
    if config.source is not None:
        usable = ("roc", "roc-gpu", "torch") if is_indexable(config.source) else ("torch",)
        if engine not in usable:
            raise InputError(
                f"engine={engine!r} reads files only, no such data set; choose engine {' or '.join(usable)}"
            )
        return
    if not path.exists():
        raise InputError(f"{path} does not exist; give {' or '.join(_KINDS[kind] for kind in entry.kinds)}")
    kind = _kind_of(path)
    if kind in entry.kinds:
        return
    if kind == "parts":
        raise InputError(f"{path} holds .beton parts, which engine={engine!r} cannot read; join them: fixres merge")
    wanted = next(kind for kind in reversed(entry.kinds) if kind in _FORMATS)
    format = "roc" if engine.startswith("roc") else _FORMATS[wanted]
    raise InputError(
        f"{path} is {_KINDS[kind]}, and engine={engine!r} reads "
        f"{' or '.join(_KINDS[kind] for kind in entry.kinds)}; create one with: "
        f"fixres convert SOURCE DEST --format {format}"
    )


def _kind_of(path: Path) -> str:
    if path.is_file():
        return "parquet" if path.suffix == ".parquet" else "beton"
    for ending, kind in (("beton", "parts"), ("tar", "shards"), ("parquet", "parquet")):
        if any(path.glob(f"*.{ending}")):
            return kind
    return "parquet" if any(path.glob("data/*.parquet")) else "folder"
