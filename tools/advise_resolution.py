"""Advises the test resolution at which objects appear as large as in training, for a data set and a recipe.

python tools/advise_resolution.py /data/imagenet/train --train-res 224
python tools/advise_resolution.py train.beton --config photos --variant fast --plot sizes.png
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from fixres.pipelines.inspection.image_headers import image_sizes
from fixres.pipelines.runtime.cli import Parser, output_file
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.sources import open_source
from fixres.pipelines.spec import EvalCrop, InputError, TrainCrop


def main() -> None:
    """Parses the command line, computes, prints and draws."""
    from fixres.resolution.advice import advise, as_text

    options = parse_options()
    train_res, train_crop, eval_crop = protocol(options)
    source = open_source(options.data)
    sampled = image_sizes(source, options.sample)
    advice = advise(train_res, train_crop, eval_crop, sampled.sizes, options.stride, len(source))
    facts = {"path": str(options.data), **asdict(advice), "bad_samples": sampled.bad_samples}
    print(json.dumps(facts, indent=1) if options.json else as_text(advice))
    if options.plot:
        from fixres.experiment.figures import apparent_sizes
        from fixres.pipelines.runtime.atomic_files import atomic_file

        resolutions = sorted({train_res, *(one.test_res for one in advice.candidates)})
        picture = apparent_sizes(train_crop, eval_crop, sampled.sizes, train_res, resolutions)
        with atomic_file(options.plot, overwrite=True) as partial:
            partial.write_bytes(picture)
    if bad := sampled.bad_samples:
        raise InputError(f"{len(bad)} of the sampled images cannot be used, the first is {bad[0]}")


def parse_options() -> argparse.Namespace:
    """The command line's values; None for those that the recipe determines."""
    parser = Parser(__doc__)
    parser.add_argument("data", type=Path, help="ImageFolder directory, .beton file or folder of .tar shards")
    parser.add_argument("--config", help="recipe (name or file), for options that are not given")
    parser.add_argument("--variant", help="the recipe's variant (fast if it has that, else baseline)")
    parser.add_argument("--train-res", type=int, help="training resolution in pixels (the variant's last, or 224)")
    parser.add_argument("--scale", type=float, nargs=2, help="relative area of training crops (0.08 1)")
    parser.add_argument("--ratio", type=float, nargs=2, help="width over height of training crops (0.75 1.3333)")
    parser.add_argument("--crop-pct", type=float, help="center crop over resized short side in testing (0.875)")
    parser.add_argument("--stride", type=int, default=32, help="advise multiples of it (%(default)s)")
    parser.add_argument(
        "--sample", type=int, default=2000, help="number of images to read if no table has all sizes (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", type=output_file, help="PNG file with the distributions of apparent sizes")
    options = parser.parse_args()
    if options.plot is not None and options.plot.suffix.lower() != ".png":
        raise InputError(f"--plot {options.plot} must be a .png file")
    if options.variant and not options.config:
        raise InputError(f"--variant {options.variant} names a variant of a recipe; also give --config")
    return options


def protocol(options: argparse.Namespace) -> tuple[int, TrainCrop, EvalCrop]:
    """Training resolution and both crops: of the recipe, unless the command line gives them."""
    from fixres.config.parsing import parse_recipe
    from fixres.config.recipe import Recipe, VariantConfig
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


if __name__ == "__main__":
    run(main)
