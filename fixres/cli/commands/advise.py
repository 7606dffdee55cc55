"""Suggests a test resolution: from the sizes of pictures and the crops of a recipe, or from a network's outputs.

Without --model it is the resolution at which objects appear as large as in training. With --model the pictures need no
labels, and a table shows what each resolution and its FixRes fine-tuning cost on this device.

fixres advise imagenet/train --train-res 224
fixres advise train.beton --config photos --variant fast --plot sizes.png
fixres advise pictures --model runs/demo/fast/trained.pt --test-res 128,160,192
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from fixres.cli.output import check_json, check_png, put_json, put_picture
from fixres.config.checks import check_device, check_resolutions, positive
from fixres.config.parsing import parse as parse_options
from fixres.config.parsing import parse_recipe
from fixres.config.recipe import Recipe, VariantConfig
from fixres.pipelines.spec import EvalCrop, InputError, TrainCrop


@dataclass(frozen=True)
class AdviseOptions:
    """Options of the advice; those that are null are the recipe's, or the usual ones."""

    data: Path = field(metadata={"positional": True})
    """The training images: a folder of class folders, a .beton file, or a folder of .tar shards; with --model also a
    folder of pictures."""
    model: str | None = None
    """Network to evaluate: a file of weights, or the timm name of cached weights."""
    arch: str | None = None
    """With model: timm's name of the network, for files that do not name it."""
    test_res: list[int] = field(default_factory=list)
    """With model: test resolutions in pixels; six from the training resolution up to twice as large by default."""
    num_train: int | None = None
    """With model: training images for which the minutes of a fine-tuning are given; those of the data if null."""
    device: str = "auto"
    """With model: "cpu", "cuda[:n]", or "auto": the GPU if there is one."""
    config: str | None = None
    """Recipe (name or file) for the settings that are not given."""
    variant: str | None = None
    """The recipe's variant; fast if it has that, else baseline."""
    train_res: int | None = None
    """Training resolution in pixels; the variant's last one, or 224; that of the model."""
    scale: tuple[float, float] | None = None
    """Range of the training crop's area as a share of the image's; 0.08,1 without a recipe."""
    ratio: tuple[float, float] | None = None
    """Range of the training crop's width over height; 0.75,1.3333 without a recipe."""
    crop_pct: float | None = None
    """Side of the center crop over the resized short side in testing; 0.875 without a recipe."""
    stride: int = 32
    """Suggested resolutions are multiples of it; the network's stride, in pixels."""
    num_images: int = 2000
    """Images whose headers are read if no table has all sizes; with model, pictures that are evaluated."""
    json: Path | None = None
    """JSON file to write; - prints it instead of the text."""
    plot: Path | None = None
    """PNG file to write, with the distributions of apparent sizes."""

    def __post_init__(self) -> None:
        check_png(self.plot, "--plot")
        check_json(self.json)
        check_resolutions("test_res", self.test_res)
        check_device(self.device)
        positive("num_images", self.num_images)
        if self.num_train is not None:
            positive("num_train", self.num_train)
        if self.model is None:
            for name in ("arch", "test_res", "num_train"):
                if getattr(self, name):
                    raise InputError(f"--{name.replace('_', '-')} needs a network; also give --model")
        elif self.config or self.scale or self.ratio or self.plot:
            raise InputError("--model evaluates pictures; omit --config, --scale, --ratio and --plot")
        if self.variant and not self.config:
            raise InputError(f"--variant {self.variant} names a variant of a recipe; also give --config")


def parse(arguments: Sequence[str]) -> AdviseOptions:
    """The options of the command line."""
    return parse_options(AdviseOptions, arguments, __doc__)


def run(options: AdviseOptions) -> None:
    """Computes, prints and draws."""
    if options.model is not None:
        _advise_network(options, options.model)
        return
    from fixres.pipelines.inspection.image_headers import image_sizes
    from fixres.pipelines.sources import open_source
    from fixres.resolution.advice import advise, as_text

    train_res, train_crop, eval_crop = protocol(options)
    source = open_source(options.data)
    sampled = image_sizes(source, options.num_images)
    advice = advise(train_res, train_crop, eval_crop, sampled.sizes, options.stride, len(source))
    if options.json != Path("-"):
        print(as_text(advice))
    put_json(options.json, {"path": str(options.data), **asdict(advice), "bad_samples": sampled.bad_samples})
    if options.plot:
        from fixres.experiment.figures import apparent_sizes

        resolutions = sorted({train_res, *(one.test_res for one in advice.candidates)})
        put_picture(options.plot, apparent_sizes(train_crop, eval_crop, sampled.sizes, train_res, resolutions))
    if bad := sampled.bad_samples:
        raise InputError(f"{len(bad)} of the sampled images cannot be used, the first is {bad[0]}")


def _advise_network(options: AdviseOptions, model: str) -> None:
    """The table of a network on pictures without labels."""
    import fixres
    from fixres.api.network_advice import as_text, network_advice

    network = fixres.load(model, arch=options.arch, crop_pct=options.crop_pct, device=options.device)
    if options.train_res is not None:
        network.set_info(replace(network.info, train_res=options.train_res))
    train_res = network.info.train_res
    images, total = _pictures(options)
    resolutions = options.test_res or [
        round(train_res * (1 + k / 5) / options.stride) * options.stride or options.stride for k in range(6)
    ]
    advice = network_advice(network, images, resolutions, options.num_train or total)
    if options.json != Path("-"):
        print(as_text(advice))
    put_json(options.json, {"path": str(options.data), "model": model, **asdict(advice)})


def _pictures(options: AdviseOptions) -> tuple[list[Path | bytes], int]:
    """At most `num_images` pictures, chosen at random with a fixed seed, and the number of all."""
    import numpy as np

    from fixres.pipelines.sources import open_source
    from fixres.pipelines.sources.tree import is_image

    files = []
    if options.data.is_dir():
        files = sorted(path for path in options.data.iterdir() if path.is_file() and is_image(path.name))
    source = None if files else open_source(options.data)
    total = len(files or source or ())
    chosen = np.sort(np.random.default_rng(0).permutation(total)[: options.num_images]).tolist()
    return [files[k] if source is None else bytes(source.read(k)) for k in chosen], total


def protocol(options: AdviseOptions) -> tuple[int, TrainCrop, EvalCrop]:
    """Training resolution and both crops: of the recipe, unless the command line gives them."""
    from fixres.training.schedule import resolution_at

    usual = Recipe(variants={"baseline": VariantConfig()})
    recipe = parse_recipe(["--config", options.config]) if options.config else usual
    variants = recipe.variants
    name = options.variant or ("fast" if "fast" in variants else "baseline")
    if name not in variants:
        raise InputError(
            f"--variant {name}: the recipe {recipe.name} does not have this variant; it has {', '.join(variants)}"
        )
    train_res = options.train_res
    if train_res is None:
        train_res = resolution_at(variants[name].epochs - 1, variants[name].resolution)
    crop = {key: tuple(value) for key in ("scale", "ratio") if (value := getattr(options, key))}
    eval_crop = recipe.eval_crop if options.crop_pct is None else EvalCrop(options.crop_pct)
    return train_res, replace(recipe.train_crop, **crop), eval_crop
