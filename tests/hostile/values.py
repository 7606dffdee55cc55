"""Values of kinds, ranges and sizes that a reader may not expect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fixres.config.network_arguments import ALLOWED

Rng = np.random.Generator

PLAIN = [
    None, True, False, 0, 1, -1, 2, 3, 7, 64, 4096, 200_000, 1 << 31, 1 << 40, 1 << 63, 10**30, 0.0, 0.5, 1e-300, 1e308,
    float("nan"), float("inf"), "", "x", "auto", "null", "x" * 3000, "a\x1b[31mb", "../../x", "/etc/passwd", "\u202e",
    "blurpool", "avg", "resnet50", [], {}, [None], [1], ["x"], {"a": 1}, {"a": {"b": [1]}},
]  # fmt: skip
NETWORKS = ["resnet10t", "resnet18", "resnet50", "vit_tiny_patch16_224", "vit_7b_patch16_dinov3", "swinv2_cr_giant_224",
            "convnext_atto", "mobilenetv3_small_050", "levit_128s", "tiny_vit_5m_224", "inception_v3",
            "beit_base_patch16_224", "resnet50.tv_in1k", "resnet50.nonsense", "hf-hub:a/resnet50",
            "local-dir:/tmp/resnet50", "[", "*", "maxvit_xlarge_tf_512"]  # fmt: skip
"""Of these, the sound ones with fewer than 2**30 weights take less than 2 GB."""
HARMFUL = ["pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "file", "url",
           "features_only", "num_classes", "pruned", "scriptable", "device", "dtype", "block", "cfg", "in_chans",
           "model_name", "feature_cfg", "out_indices", "jit", "exportable", "no_jit"]  # fmt: skip


def pick(rng: Rng, choices: Any) -> Any:
    """One of the choices."""
    return choices[int(rng.integers(len(choices)))]


def odd(rng: Rng) -> Any:
    """A value of any kind, some of them nested."""
    kind = rng.integers(8)
    if kind == 0:
        return nested(rng, int(pick(rng, [3, 30, 300, 1500])))
    if kind == 1:
        return [pick(rng, PLAIN) for _ in range(int(pick(rng, [2, 4, 70, 3000])))]
    if kind == 2:
        return {str(pick(rng, PLAIN)): pick(rng, PLAIN) for _ in range(3)}
    return pick(rng, PLAIN)


def nested(rng: Rng, depth: int) -> Any:
    """Lists or mappings in one another."""
    value: Any = pick(rng, PLAIN)
    in_list = bool(rng.integers(2))
    for _ in range(depth):
        value = [value] if in_list else {"a": value}
    return value


def arguments(rng: Rng) -> dict[str, Any]:
    """Arguments for a network: harmful ones, allowed ones out of bounds, allowed ones that make it large."""
    sizes: list[Callable[[], Any]] = [
        lambda: int(pick(rng, [0, 1, 8, 64, 1024, 4096, 4097])),
        lambda: [int(pick(rng, [1, 8, 64, 1024, 4096])) for _ in range(int(pick(rng, [1, 3, 4, 5])))],
        lambda: float(pick(rng, [0, 0.5, 1, 64])),
        lambda: bool(rng.integers(2)),
        lambda: odd(rng),
    ]
    names = HARMFUL if rng.integers(4) == 0 else sorted(ALLOWED)
    return {pick(rng, names): pick(rng, sizes)() for _ in range(int(pick(rng, [1, 1, 1, 2, 3])))}
