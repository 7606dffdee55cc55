"""The check of a GPU in ten minutes: pixels and speed of the kernels of engine `roc-gpu`.

python -m benchmarks.loaders.gpu_decoder FILE.npz [pixels] [speed] [train] [--json FILE]

FILE.npz is from `benchmarks.loaders.gpu_fixtures`. This needs Python, torch with CUDA (which brings NVRTC and
cuda.bindings), numpy and lazy_loader, and for "train" torchvision. No network, no photographs, no compiler.

"pixels" counts the values that differ from those of engine roc (uint8, half, bfloat16). "speed" times batches of 256
and 1024 crops and each kernel, with the stored bytes in the GPU's memory and in pinned host memory. "train" compares
steps of ResNet-50 (bf16, with torch.compile if there is a C compiler) on a batch at hand with steps that the kernels
feed. Without a name, all three are done.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import json
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fixres.pipelines.roc.gpu.arguments import BFLOAT16, HALF, UINT8, Batch, Launch, launches
from fixres.pipelines.roc.gpu.launcher import Launcher, open_launcher

PARTS = ("pixels", "speed", "train")
_DTYPES = {UINT8: torch.uint8, HALF: torch.float16, BFLOAT16: torch.bfloat16}
_NUM_SEGMENTS, _ROWS, _COLUMNS, _PLANES, _TAPS = 5, 6, 7, 31, 32  # columns of `crop_plan`, which would need numba
_BATCHES, _ROUNDS, _WARMUP = (256, 1024), 30, 5


class Job:
    """A batch of n crops, repeated if there are fewer, in the memory of a device.

    Args:
        of: which ones, the end of the names of their arrays: "128", or "128_indexed" for crops by an index.
    """

    def __init__(
        self, launcher: Launcher, made: dict[str, np.ndarray], of: str | int, num: int, kind: int = UINT8
    ) -> None:
        self.launcher, self.num, self.kind = launcher, num, kind
        self.side, by_index = made[f"images_{of}"].shape[1], str(of).endswith("_indexed")
        pick = np.arange(num) % len(made[f"plans_{of}"])
        plans, scratch_size = made[f"plans_{of}"][pick].copy(), int(made[f"scratch_{of}"])
        copies = np.arange(num) // len(made[f"plans_{of}"])
        plans[:, [_PLANES, _TAPS]] += (copies * scratch_size)[:, None]
        arrays = (plans, made[f"boxes_{of}"][pick], np.zeros(num, np.int64), made[f"stored_{of}"])
        self.crops, self.boxes, self.codes, self.stored = (self._there(array) for array in arrays)
        self.scratch = torch.empty((int(copies[-1]) + 1) * scratch_size, dtype=torch.uint8, device=launcher.device)
        self.images = torch.zeros((num, self.side, self.side, 3), dtype=_DTYPES[kind], device=launcher.device)
        num_segments = plans[:, _NUM_SEGMENTS] if by_index else plans[:, _ROWS] * plans[:, _COLUMNS]
        self.launches = launches(num, self.side, int(num_segments.max()), by_index=by_index)

    def _there(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.launcher.device)

    def arguments(self, stored: Tensor) -> Batch:
        batch = Batch(num=self.num, resolution=self.side, kind=self.kind)
        batch.normalize()
        batch.bytes, batch.crops, batch.boxes = stored.data_ptr(), self.crops.data_ptr(), self.boxes.data_ptr()
        batch.scratch, batch.out, batch.codes = self.scratch.data_ptr(), self.images.data_ptr(), self.codes.data_ptr()
        return batch

    def run(self, stored: Tensor | None = None, only: Launch | None = None) -> None:
        """Starts the kernels, or one of them; call it inside `working`."""
        batch = self.arguments(self.stored if stored is None else stored)
        for launch in (only,) if only else self.launches:
            self.launcher.launch(launch, batch)


def check_pixels(launcher: Launcher, made: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Counts of values that differ from engine roc's, by resolution and kind of output; RoC records, then untouched
    images by an index.
    """
    found, sides = [], made["resolutions"].tolist()
    for of in (*map(str, sides), *(f"{side}_indexed" for side in sides)):
        for kind, dtype in _DTYPES.items():
            with launcher.working():
                job = Job(launcher, made, of, len(made[f"plans_{of}"]), kind)
                job.run()
                expected, batch = job._there(made[f"images_{of}"]), job.arguments(job.stored)
                if kind != UINT8:
                    shift, factor = (
                        job._there(np.array(list(part), np.float32)) for part in (batch.shift, batch.factor)
                    )
                    expected = ((expected.float() - shift) * factor).to(dtype)
                num_different = int((job.images != expected).sum())
                num_bad = int((job.codes != 0).sum())
            found.append({"res": job.side, "images": "untouched" if "_" in of else "roc", "dtype": str(dtype),
                          "num_crops": job.num, "num_different": num_different,
                          "num_bad_samples": num_bad})  # fmt: skip
            print(f"pixels {of} px, {dtype}: {num_different} values differ, {num_bad} errors", flush=True)
    return found


def _milliseconds(work: Callable[[], object]) -> float:
    """Median time of a call on the current stream."""
    taken = []
    for number in range(_WARMUP + _ROUNDS):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        work()
        last.record()
        last.synchronize()
        if number >= _WARMUP:
            taken.append(first.elapsed_time(last))
    return statistics.median(taken)


def measure_speed(launcher: Launcher, made: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Crops/s and milliseconds of each kernel; stored bytes in the GPU's memory, and in pinned host memory."""
    found = []
    for side in made["resolutions"].tolist():
        for num in _BATCHES:
            with launcher.working():
                job = Job(launcher, made, side, num, HALF)
                pinned = job.stored.cpu().pin_memory()
                whole, over_pcie = _milliseconds(job.run), _milliseconds(lambda: job.run(pinned))  # noqa: B023
                each = {one.kernel: _milliseconds(lambda: job.run(only=one)) for one in job.launches}  # noqa: B023
            speed, pinned_speed = num / whole * 1e3, num / over_pcie * 1e3
            found.append({"res": side, "batch_size": num, "images_per_second": speed, "milliseconds": each,
                          "pinned_images_per_second": pinned_speed})  # fmt: skip
            print(f"speed {side} px, batch {num}: {speed:,.0f} crops/s, from pinned memory {pinned_speed:,.0f}; {each}")
    return found


class _Network:
    """Training steps of ResNet-50 in bf16, compiled if there is a C compiler."""

    def __init__(self, device: torch.device) -> None:
        from torchvision.models import resnet50

        network = resnet50().to(device, memory_format=torch.channels_last)
        self.is_compiled = any(shutil.which(name) for name in ("cc", "gcc", "clang"))  # which torch.compile needs
        self._forward = torch.compile(network) if self.is_compiled else network
        self._optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
        self._targets = torch.randint(0, 1000, (_BATCHES[0],), device=device)

    def step(self, images: Tensor) -> None:
        """Trains on images (N, r, r, 3)."""
        with torch.autocast("cuda", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(self._forward(images.permute(0, 3, 1, 2)), self._targets)
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


class _FedNetwork:
    """Trains on one of two batches while the kernels decode the other; its bytes are copied first, as in the engine."""

    def __init__(self, launcher: Launcher, made: dict[str, np.ndarray], side: int, network: _Network) -> None:
        self._launcher, self._network, self._number = launcher, network, 0
        with launcher.working():
            self._jobs = [Job(launcher, made, side, _BATCHES[0], HALF) for _ in range(2)]
            self._hosts = [job.stored.cpu().pin_memory() for job in self._jobs]
            for job in self._jobs:
                job.run()
        torch.cuda.synchronize()

    def step_at_hand(self) -> None:
        """Trains on the same batch each time; nothing is decoded."""
        self._network.step(self._jobs[0].images)

    def step(self) -> None:
        """Trains on the batch that the last call decoded."""
        decoded, trained = self._number % 2, 1 - self._number % 2
        self._number += 1
        used = torch.cuda.current_stream().record_event()
        with self._launcher.working():
            torch.cuda.current_stream().wait_event(used)
            self._jobs[decoded].stored.copy_(self._hosts[decoded], non_blocking=True)
            self._jobs[decoded].run()
            done = self._launcher.record()
        self._network.step(self._jobs[trained].images)
        torch.cuda.current_stream().wait_event(done)


def measure_training(launcher: Launcher, made: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Steps of ResNet-50 on a batch at hand, and fed by the kernels: how much longer the latter take."""
    network, num, found = _Network(launcher.device), _BATCHES[0], []
    for side in made["resolutions"].tolist():
        fed = _FedNetwork(launcher, made, side, network)
        at_hand, with_decoding = _milliseconds(fed.step_at_hand), _milliseconds(fed.step)
        longer = with_decoding / at_hand - 1
        found.append({"res": side, "batch_size": num, "is_compiled": network.is_compiled,
                      "step_milliseconds": at_hand, "longer_share": longer})  # fmt: skip
        print(f"train {side} px: {num / at_hand * 1e3:,.0f} images/s at hand, fed {100 * longer:.1f} % longer")
    return found


def parse(words: list[str]) -> tuple[Path, tuple[str, ...], Path | None]:
    """The file, the parts and the record's file; without the parser of the other commands, whose imports are many."""
    words = list(words)
    target = Path(words.pop(words.index("--json") + 1)) if "--json" in words[:-1] else None
    words = [word for word in words if word != "--json"]
    if not words or not set(words[1:]) <= set(PARTS):
        print(f"give FILE.npz of benchmarks.loaders.gpu_fixtures, then parts of {', '.join(PARTS)}", file=sys.stderr)
        sys.exit(2)
    return Path(words[0]), tuple(words[1:]) or PARTS, target


def main() -> int:
    """Runs the parts that are named; returns 1 if a value differs."""
    path, parts, target = parse(sys.argv[1:])
    launcher = open_launcher("cuda")
    made, properties = dict(np.load(path)), torch.cuda.get_device_properties(0)
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
    found: dict[str, Any] = {"kind": "gpu_decoder", "gpu": properties.name, "num_sms": properties.multi_processor_count}
    found |= versions
    work = {"pixels": check_pixels, "speed": measure_speed, "train": measure_training}
    for part in parts:
        found[part] = work[part](launcher, made)
        if target is not None:  # after each part, because the machine may be taken away
            target.write_text(json.dumps(found, indent=1))
    return int(any(one["num_different"] or one["num_bad_samples"] for one in found.get("pixels", ())))


if __name__ == "__main__":
    sys.exit(main())
