"""An artificial record of benchmarks.savings, small enough for sums by hand. Its numbers measure nothing."""

from __future__ import annotations

from typing import Any


def variant(
    name: str, train_res: list[int], test_res: int, seconds: float, top1: float, finetune: float = 0.0
) -> dict[str, Any]:
    """A variant that reaches `top1` at 64 px, less at larger resolutions, and 2 points more by fine-tuning."""
    sweep = {"64": top1, "96": top1 - 0.01, "128": top1 - 0.03, "160": top1 - 0.05}
    return {
        "name": name,
        "train_res": train_res[-1],
        "train_res_by_epoch": train_res,
        "test_res": test_res,
        "epochs": len(train_res),
        "top1_before_finetune": sweep[str(test_res)],
        "top1": sweep[str(test_res)] + (0.02 if finetune else 0.0),
        "class_mean_top1": top1,
        "train_seconds": seconds,
        "finetune_seconds": finetune,
        "evaluate_seconds": 7.0,
        "paused_seconds": 10.0,
        "wall_seconds": seconds + finetune + 10.0,
        "images_per_second": 100.0,
        "data_wait_share": 0.1,
        "sweep_before": sweep,
        "sweep_after": {side: value + 0.02 for side, value in sweep.items()} if finetune else {},
        "curve": [[1, seconds / 2, top1 - 0.2], [2, seconds, sweep[str(test_res)]]],
        "test_seconds": {"64": 1.0, "96": 2.0, "128": 3.0, "160": 4.0},
    }


def run(seed: int, large: float, small: float, factor: float = 1.0) -> dict[str, Any]:
    """One seed: top1 of large at 128 px and of small at 64 px; times of small are multiplied by `factor`."""
    environment = {
        "cpu": "made", "num_cores": 2, "gpu": None, "precision": "fp32", "commit": "abcdef0123", "commit_clean": True,
        "versions": {"torch": "9.9"},
    }  # fmt: skip
    return {
        "seed": seed,
        "written": "2026-01-01T00:00:00+00:00",
        "data": {"engine": "torch", "num_train": 200, "num_val": 100},
        "environment": environment,
        "savings": None,
        "recipe": {"model": {"name": "resnet14t"}, "eval_every": 1, "seed": seed},
        "variants": [
            variant("large", [128, 128], 128, 90.0, large + 0.03),
            variant("small", [64, 64], 96, 24.0 * factor, small, finetune=6.0 * factor),
        ],
    }


def record(*runs: dict[str, Any]) -> dict[str, Any]:
    """A record of these seeds."""
    return {
        "version": 3, "kind": "savings", "name": "savings", "note": "Artificial.", "target": None, "partial": False,
        "command": "python -m benchmarks.savings", "data": "made", "projection": None, "runs": list(runs),
    }  # fmt: skip


def report(one: dict[str, Any], recipe: dict[str, Any]) -> dict[str, Any]:
    """The report.json of a run of a record."""

    def tests(sweep: dict[str, float], seconds: dict[str, float]) -> list[dict[str, Any]]:
        return [
            {"test_res": int(side), "top1": top1, "num_images": 100, "images_per_second": 100 / seconds[side]}
            for side, top1 in sweep.items()
        ]

    variants = []
    for made in one["variants"]:
        curve = [{"epoch": epoch, "train_seconds": seconds, "top1": top1} for epoch, seconds, top1 in made["curve"]]
        sweeps = {key: tests(made[key], made["test_seconds"]) for key in ("sweep_before", "sweep_after")}
        variants.append({**made, **sweeps, "curve": curve})
    data = {"path": "/somewhere/private/photos", **one["data"]}
    environment = one["environment"] | {"command": "savings.py --data /somewhere/private"}
    return {"version": 1, "name": "x", "written": one["written"], "variants": variants, "savings": None, "data": data,
            "environment": environment, "recipe": recipe}  # fmt: skip
