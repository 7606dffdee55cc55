"""What records keep of a finished run's report.json."""

from __future__ import annotations

from typing import Any

_VARIANT_FIELDS = (
    "name", "train_res", "train_res_by_epoch", "test_res", "epochs", "top1_before_finetune", "top1", "class_mean_top1",
    "train_seconds", "finetune_seconds", "wall_seconds", "images_per_second", "data_wait_share",
)  # fmt: skip


def record_of(report: dict[str, Any]) -> dict[str, Any]:
    """Conditions, results and sweeps of a report.json, without paths of the machine."""
    variants = []
    for variant in report["variants"]:
        kept = {name: variant[name] for name in _VARIANT_FIELDS}
        for sweep in ("sweep_before", "sweep_after"):
            kept[sweep] = {str(point["test_res"]): point["top1"] for point in variant[sweep]}
        variants.append(kept)
    recipe = {key: value for key, value in report["recipe"].items() if key not in ("run_dir", "data")}
    environment = {key: value for key, value in report["environment"].items() if key != "command"}
    data = {key: report["data"][key] for key in ("engine", "num_train", "num_val")}
    return {"seed": recipe["seed"], "written": report["written"], "data": data, "variants": variants,
            "savings": report["savings"], "environment": environment, "recipe": recipe}  # fmt: skip
