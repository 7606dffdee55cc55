"""The tables of what a GPU would need for engine roc-gpu's kernels."""

from __future__ import annotations

from typing import Any

from benchmarks.harness.tables import markdown, number

_NEEDED = 8_000  # crops/s


def gpu_projection_table(record: dict[str, Any]) -> str:
    """Markdown: warp instructions of a crop by step and resolution, projected speeds; below, the kernels' bounds."""
    steps = [step for names in record["steps"].values() for step in names]
    needed = f"share of the GPU at {_NEEDED:,} crops/s, %"
    rows = [["px", "MCUs", "Huffman codes", *steps, "all", "crops/s, thousands, projected", needed]]
    for one in record["results"]:
        counts = (one["instructions"][step] for step in steps)
        total, speeds = sum(one["instructions"].values()), one["images_per_second"]
        shares = [number(_NEEDED / speed, 1, 100) for speed in reversed(speeds)]
        cells = [str(one["res"]), number(one["mcus"]), number(one["codes"]), *(number(n, 0, 1e-3) for n in counts)]
        speed = " to ".join(number(speed, 0, 1e-3) for speed in speeds)
        rows.append([*cells, number(total, 0, 1e-3), speed, " to ".join(shares)])
    return f"{markdown(rows)}\n\n{_kernels_table(record)}"


def _kernels_table(record: dict[str, Any]) -> str:
    """What bounds each kernel, at the first resolution."""
    first, gpu = record["results"][0], record["gpu"]
    rows = [["kernel", f"thousand instructions at {first['res']} px", "us at 2 a cycle", "KB read and written",
             "us of memory", "bound by", "registers", "shared memory, KB", "warps of 64", "limited by"]]  # fmt: skip
    for name, one in record["kernels"].items():
        count = sum(first["instructions"][step] for step in record["steps"][name])
        # Time of the whole GPU for one crop.
        computing = 1e6 * count / (gpu["num_sms"] * gpu["hertz"] * max(record["rates"]))
        moving = 1e6 * first["bytes"][name] / gpu["bytes_per_second"]
        bound = "instructions" if computing > moving else "memory"
        shown = [number(count, 0, 1e-3), number(computing, 3), number(first["bytes"][name], 0, 1e-3), number(moving, 3)]
        resources = [str(one["registers"]), number(one["shared_bytes"], 0, 1 / 1024), str(one["warps"]), one["limit"]]
        rows.append([name, *shown, bound, *resources])
    busy, costs = number(first["busy_share"], 0, 100), {name: number(cost) for name, cost in record["costs"].items()}
    return (
        f"{markdown(rows)}\n\nInstructions of a warp: {costs['code']} for a Huffman code, {costs['transform']} for an "
        f"inverse DCT, {costs['rows_tap']} for a tap of four columns in the sums over rows, {costs['columns_tap']} for "
        f"one of four rows in the sums over columns. {busy} % of a warp's threads have a Huffman code left while it "
        "decodes."
    )
