"""Training on many GPUs as a sum on paper. Nothing here is a measurement.

    batch    = gpus * local, local = min(batch of a GPU, batch limit // gpus)
    compute  = local / step
    exchange = 2 (n - 1) / n * gradients / min(link, nic) + latency * 2 ceil(log2 n) * ceil(gradients / 25 MiB)
    exposed  = max(0, exchange - overlap * compute)
    data     = local / (cores * loader)
    storage  = fresh * max(batch * bytes / storage, batch / iops, batch / nodes * bytes / nic)
    step(e)  = max(compute + exposed, data, storage)
    fresh(e) = (1 - 1 / nodes)^e, e = 0, 1, ...; always 1 if a node's memory cannot hold the file
    failures = w / (w + i) + (i / 2 + restart) / (mtbf / nodes), i = max(120 s, w / 0.01)
    epoch(e) = images // batch * step(e) / (1 - failures)
    copying  = max(nodes * file / storage, file / nic)

`link` bounds a ring within a node, the node's network cards one over nodes. An engine works ahead, so the slowest part
alone counts. `fresh` is the share of a node's images that no epoch before brought into its page cache: the shuffle
deals each node other images in each epoch, so many nodes warm up slowly. It counts an image as cached once any crop of
it was read, which flatters engines that read parts. The speed of a step is taken to be the same at every batch, which
flatters small ones. The failures' share is of first order: it holds while it is small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.spec import InputError

_BUCKET = 25 << 20  # bytes; torch's DistributedDataParallel
_LEAST_LOCAL = 2  # images, for BatchNorm
_INTERVAL, _SHARE = 120.0, 0.01  # fixres.survival: seconds between states, and what of the time may go into them
WORTH_NAMING = 0.05
"""A cause is named from this share of the time on."""
REMEDIES = {
    "exchange": "larger batches for each GPU, gradients in 16 bits, faster links between nodes",
    "data": "an engine that decodes less (roc, roc-dali), more cores for each GPU",
    "storage": "faster shared storage, or a copy on each node's disk where copying takes less than it saves",
    "failures": "states on faster storage, quicker restarts, spare nodes",
    "batch": "no more GPUs for one run: give them to other seeds or recipes; else a recipe made for larger batches",
}


@dataclass(frozen=True)
class Inputs:
    """What the sum starts from; seconds, bytes, bytes a second, images a second.

    Attributes:
        images: of the training set.
        epochs: over which the page cache fills.
        step: images a second of one GPU.
        gradients: bytes that a step exchanges.
        local: images of a GPU in a step.
        batch_limit: images of all GPUs in a step.
        gpus_per_node: also on the last node.
        link: bus bandwidth within a node.
        nic: bandwidth of a node's network cards together.
        latency: of one hop.
        overlap: share of a step's computing behind which the exchange can hide.
        cores: for loading, for each GPU.
        loader: images a second of one core.
        image_bytes: read for an image.
        file_bytes: of the whole training set as stored.
        memory: of a node, for its page cache.
        storage: bandwidth of the storage that all nodes share.
        iops: reads a second of it, one for an image.
        mtbf: mean time between failures of a node.
        restart: from a failure to the first step.
        write: of a state.
    """

    images: int
    epochs: int
    step: float
    gradients: float
    local: int
    batch_limit: int
    gpus_per_node: int
    link: float
    nic: float
    latency: float
    overlap: float
    cores: float
    loader: float
    image_bytes: float
    file_bytes: float
    memory: float
    storage: float
    iops: float
    mtbf: float
    restart: float
    write: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (value > 0 or (value == 0 and name in ("overlap", "latency", "restart", "write"))):
                raise InputError(f"{name}={value} must be above 0")
        if self.overlap > 1:
            raise InputError(f"overlap={self.overlap} is a share of a step; it must be in [0, 1]")


@dataclass(frozen=True)
class Projected:
    """A run on some GPUs.

    Attributes:
        gpus: how many.
        local: images of each in a step.
        steps: of an epoch.
        first_seconds: of the first epoch.
        epoch_seconds: mean of all epochs.
        copy_seconds: to bring the whole file to every node from the shared storage, before the first epoch.
        efficiency: share of the time in which the GPUs compute.
        lost: share of the time lost to "exchange", "data", "storage" and "failures": each of what is left by those
            before it.
        first: the cause that costs most, if it is worth naming; "batch" if the limit leaves each GPU fewer images.
    """

    gpus: int
    local: int
    steps: int
    first_seconds: float
    epoch_seconds: float
    copy_seconds: float
    efficiency: float
    lost: dict[str, float]
    first: str | None


def project(inputs: Inputs, gpus: int) -> Projected:
    """The sum for one number of GPUs.

    Raises:
        InputError: more GPUs than the batch limit has pairs of images, or failures that leave no time.
    """
    nodes, local = math.ceil(gpus / inputs.gpus_per_node), min(inputs.local, inputs.batch_limit // gpus)
    if local < _LEAST_LOCAL or inputs.images < gpus * local:
        raise InputError(f"{gpus} GPUs are too many for batches of {inputs.batch_limit} of {inputs.images} images")
    compute = local / inputs.step
    busy = compute + max(0.0, exchange_seconds(inputs, gpus) - inputs.overlap * compute)
    fed = max(busy, local / (inputs.cores * inputs.loader))
    steps_seconds = [max(fed, share * storage_seconds(inputs, gpus * local, nodes)) for share in _fresh(inputs, nodes)]
    step, failing = math.fsum(steps_seconds) / len(steps_seconds), failure_share(inputs, nodes)
    if failing >= 1:
        raise InputError(f"{gpus} GPUs fail before they have saved anything; give a longer mtbf")
    num_steps = inputs.images // (gpus * local)
    lost = {
        "exchange": 1 - compute / busy,
        "data": 1 - busy / fed,
        "storage": max(0.0, 1 - fed / step),
        "failures": failing,
    }
    return Projected(
        gpus=gpus,
        local=local,
        steps=num_steps,
        first_seconds=num_steps * steps_seconds[0] / (1 - failing),
        epoch_seconds=num_steps * step / (1 - failing),
        copy_seconds=max(nodes * inputs.file_bytes / inputs.storage, inputs.file_bytes / inputs.nic),
        efficiency=compute / step * (1 - failing),
        lost=lost,
        first=_first(lost, local < inputs.local),
    )


def exchange_seconds(inputs: Inputs, gpus: int) -> float:
    """All gradients of a step, one after another."""
    if gpus == 1:
        return 0.0
    bandwidth = inputs.link if gpus <= inputs.gpus_per_node else min(inputs.link, inputs.nic)
    hops = 2 * math.ceil(math.log2(gpus)) * math.ceil(inputs.gradients / _BUCKET)
    return 2 * (gpus - 1) / gpus * inputs.gradients / bandwidth + hops * inputs.latency


def storage_seconds(inputs: Inputs, batch: int, nodes: int) -> float:
    """To read a whole step's images from the shared storage."""
    read = batch * inputs.image_bytes
    return max(read / inputs.storage, batch / inputs.iops, read / nodes / inputs.nic)


def failure_share(inputs: Inputs, nodes: int) -> float:
    """Share of the time in states, in work done twice and in restarts."""
    interval = max(_INTERVAL, inputs.write / _SHARE)
    return inputs.write / (inputs.write + interval) + (interval / 2 + inputs.restart) / (inputs.mtbf / nodes)


def _fresh(inputs: Inputs, nodes: int) -> list[float]:
    """For each epoch the share of a node's images that it has never read."""
    again = 1 - 1 / nodes if inputs.file_bytes <= inputs.memory else 1.0
    return [again**epoch for epoch in range(inputs.epochs)]


def _first(lost: dict[str, float], limited: bool) -> str | None:
    cause = max(lost, key=lambda name: lost[name])
    if lost[cause] >= WORTH_NAMING:
        return cause
    return "batch" if limited else None


def breaks(inputs: Inputs) -> dict[str, int | None]:
    """For each cause the number of GPUs, doubled from one node on, from which it is worth naming; None if never."""
    found: dict[str, int | None] = dict.fromkeys(REMEDIES)
    gpus = inputs.gpus_per_node
    while min(inputs.local, inputs.batch_limit // gpus) >= _LEAST_LOCAL and gpus * _LEAST_LOCAL <= inputs.images:
        try:
            one = project(inputs, gpus)
        except InputError:
            break
        for cause, share in (one.lost | {"batch": float(one.local < inputs.local)}).items():
            if found[cause] is None and share >= WORTH_NAMING:
                found[cause] = gpus
        gpus *= 2
    return found
