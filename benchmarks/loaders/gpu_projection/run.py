"""Instructions and speed of engine roc-gpu's kernels, projected from their machine code without a GPU.

python -m benchmarks.loaders.gpu_projection --data FILE.beton|PHOTOS [--train-res 128,160,224] [--json FILE]

The kernels are compiled for sm_90 by NVRTC and disassembled by nvdisasm, which the package triton has. The lengths of
their loops are multiplied by how often real training crops run them, which a host build of the same sources counts
(g++). Nothing is run on a GPU: the speeds are what an H100 (SXM) would reach at 0.5 and at 2 instructions a cycle on
each multiprocessor. It has 4 schedulers; these are guesses of a low and a high rate.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness.conditions import conditions
from benchmarks.harness.options import PhotoOptions
from benchmarks.harness.records import Interruption, command, record
from benchmarks.loaders.gpu_fixtures import fixtures
from benchmarks.loaders.gpu_projection.counts import WARP, Counter, Counts, by_warps
from benchmarks.loaders.gpu_projection.instructions import KERNELS, Costs, crop_instructions
from benchmarks.loaders.gpu_projection.machine_code import MachineCode
from benchmarks.loaders.gpu_projection.tables import gpu_projection_table
from fixres.pipelines.roc.gpu.arguments import launches
from fixres.pipelines.roc.gpu.crop_plan import COLUMNS, DATA, DATA_END, HEADER_SIZE, ROWS

ARCHITECTURE = "sm_90"
H100 = {"num_sms": 132, "hertz": 1.755e9, "bytes_per_second": 3.35e12, "warps": 64, "registers": 65536,
        "shared_bytes": 227 * 1024}  # fmt: skip
RATES = (0.5, 2.0)
"""Instructions a cycle on each multiprocessor."""
_BATCH_SIZE, _RESERVED_BYTES = 256, 1024  # of shared memory, for each block


@dataclass(frozen=True, kw_only=True)
class GPUProjectionOptions(PhotoOptions):
    """Options of the benchmark."""

    train_res: list[int] = field(default_factory=lambda: [128, 160, 224])
    """Sides of the training crops in pixels."""
    num_crops: int = 200
    """Crops at each resolution."""


def project(made: dict[str, np.ndarray], side: int, costs: Costs, counter: Counter) -> dict[str, Any]:
    """Means over the crops of one resolution, from `gpu_fixtures.fixtures`."""
    plans = made[f"plans_{side}"]
    counts = counter.count(made[f"stored_{side}"], plans, int(made[f"scratch_{side}"]))
    most_segments = int((plans[:, ROWS] * plans[:, COLUMNS]).max())
    _, decode_segments, *_ = launches(_BATCH_SIZE, side, most_segments)
    most_blocks = decode_segments.num_blocks[1]
    steps = [crop_instructions(costs, plan, one, side, most_blocks) for plan, one in zip(plans, counts, strict=True)]
    mean = {name: float(np.mean([one[name] for one in steps])) for name in steps[0]}
    rates = [H100["num_sms"] * H100["hertz"] * rate / sum(mean.values()) for rate in RATES]
    return {
        "res": side,
        "num_crops": len(plans),
        "mcus": float(np.mean([len(one.codes) for one in counts])),
        "codes": float(np.mean([one.codes.sum() for one in counts])),
        "instructions": mean,
        "busy_share": _busy(counts),
        "images_per_second": rates,
        "bytes": _bytes(plans, counts, side, int(made[f"scratch_{side}"])),
    }


def _busy(counts: list[Counts]) -> float:
    """Share of a warp's threads that have a code left, in its turns of the loop over codes."""
    turns = sum(by_warps(one.codes).max(1).sum() for one in counts)
    return float(sum(one.codes.sum() for one in counts) / (WARP * turns))


def _bytes(plans: np.ndarray, counts: list[Counts], side: int, scratch_size: int) -> dict[str, float]:
    """Bytes that each kernel reads and writes for a crop."""
    stored = float((plans[:, DATA_END] - plans[:, DATA] + plans[:, HEADER_SIZE]).mean())
    planes = 64 * float(np.mean([one.codes.size for one in counts]))
    taps = scratch_size / len(plans) - planes
    return {"fill_taps": taps, "decode_segments": stored + planes, "resample": planes + taps + 3 * side**2}


def kernels(code: MachineCode) -> dict[str, dict[str, int]]:
    """Registers, shared memory and resident warps of a multiprocessor, for each kernel."""
    found = {}
    for name, num_threads in (("fill_taps", 128), ("decode_segments", 128), ("resample", 256)):
        one = code.resources[name]
        # Registers are given to a warp in groups of 8 for each thread.
        by_registers = H100["registers"] // (-(-one.num_registers // 8) * 8 * num_threads)
        by_shared = H100["shared_bytes"] // (one.shared_bytes + _RESERVED_BYTES)
        warps = min(by_registers, by_shared) * num_threads // WARP
        limit = "registers" if by_registers <= by_shared else "shared memory"
        if warps > H100["warps"]:
            warps, limit = H100["warps"], "warps"
        found[name] = {"registers": one.num_registers, "shared_bytes": one.shared_bytes, "warps": warps, "limit": limit}
    return found


def measure(options: GPUProjectionOptions) -> dict[str, Any]:
    """Projects all resolutions; returns the record."""
    code, counter = MachineCode(ARCHITECTURE), Counter()  # first, because they end the command where they cannot work
    costs = Costs.of(code)
    path: Path = options.data if options.data.is_file() else options.files().path("roc")
    environment, results = conditions(path), []
    with Interruption() as interruption:
        for side in tqdm(options.train_res, desc="resolutions", disable=None):
            results.append(project(fixtures(path, options.num_crops, [side]), side, costs, counter))
    note = f"{options.num_crops} training crops; projected, not run on a GPU."
    fields = {"architecture": ARCHITECTURE, "gpu": H100, "rates": RATES, "kernels": kernels(code), "steps": KERNELS,
              "costs": asdict(costs), "results": results}  # fmt: skip
    return record("gpu_projection", options.settings(), environment, note, interruption.happened, **fields)


main = command(GPUProjectionOptions, __doc__, measure, gpu_projection_table)
