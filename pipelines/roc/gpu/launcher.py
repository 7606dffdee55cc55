"""Runs the kernels on a CUDA device: memory, copies and events by torch, kernels by the driver.

`Launcher` is all that the engine needs of a device, so that tests can put the host build of the kernels in its place.
"""

from __future__ import annotations

import ctypes
import mmap
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from fixres.pipelines.roc.gpu.arguments import Batch, Launch
from fixres.pipelines.roc.gpu.nvrtc import machine_code
from fixres.pipelines.spec import InputError


class Event(Protocol):
    """A place in a stream of work."""

    def query(self) -> bool:
        """Whether the work before it is done."""
        ...

    def synchronize(self) -> None:
        """Waits until it is."""
        ...


class Launcher(Protocol):
    """A device with a stream of its own for decoding. All calls but `receive` are made inside `working`."""

    device: torch.device

    def working(self) -> AbstractContextManager:
        """Makes the stream and the device the current ones of this thread."""
        ...

    def memory(self) -> tuple[int, int]:
        """Bytes of the device's memory that are free, and all of them."""
        ...

    def host_buffer(self, num_bytes: int) -> Tensor:
        """uint8 (num_bytes,) in host memory from which `send` copies; contents undefined. May be called anywhere."""
        ...

    def pinned(self, num_bytes: int) -> Tensor:
        """uint8 (num_bytes,) in host memory that kernels can read; contents undefined."""
        ...

    def send(self, host: Tensor) -> Tensor:
        """Starts the copy of a host buffer to the device."""
        ...

    def fetch(self, tensor: Tensor) -> Tensor:
        """Starts the copy of a tensor to the host; valid after a later event."""
        ...

    def launch(self, launch: Launch, batch: Batch) -> None:
        """Starts a kernel; `batch` may be changed afterwards, the memory it points to may not."""
        ...

    def record(self) -> Event:
        """Marks the end of the work so far."""
        ...

    def receive(self, tensors: tuple[Tensor, ...], done: Event) -> None:
        """Makes the consumer's stream wait for an event before it uses tensors of this stream."""
        ...


class CudaLauncher:
    """The GPU. Nothing here waits for it.

    Memory comes from torch's caches: those of the device reuse it in the order of the stream, those of pinned host
    memory after the copy from it is done. So there is no ring of buffers to manage.
    """

    def __init__(self, device: str) -> None:
        """Compiles the kernels for the device, or reads them from the disk.

        Raises:
            InputError: cuda.bindings, NVRTC or the driver cannot be used.
        """
        self.device = torch.device(device)
        major, minor = torch.cuda.get_device_capability(self.device)
        code = machine_code(f"sm_{major}{minor}")
        from cuda.bindings import driver  # `machine_code` has said so in one line if it is missing

        self._driver, self._stream = driver, torch.cuda.Stream(self.device)
        with torch.cuda.device(self.device):
            torch.zeros(1, device=self.device)  # makes torch's context the current one of the driver
            self._context = self._check(driver.cuCtxGetCurrent())
            self._module = self._check(driver.cuModuleLoadData(code))
        self._functions: dict[str, Any] = {}

    @contextmanager
    def working(self) -> Iterator[None]:
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            self._check(self._driver.cuCtxSetCurrent(self._context))  # each thread has its own current one
            yield

    def memory(self) -> tuple[int, int]:
        return torch.cuda.mem_get_info(self.device)

    def host_buffer(self, num_bytes: int) -> Tensor:
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)

    def pinned(self, num_bytes: int) -> Tensor:
        """Not by torch's cache, which would round a large size up to a power of two."""
        memory, runtime = mmap.mmap(-1, num_bytes), torch.cuda.cudart()
        tensor = torch.frombuffer(memory, dtype=torch.uint8)
        if int(runtime.cudaHostRegister(tensor.data_ptr(), num_bytes, 0)):
            raise InputError(f"{num_bytes / 1e9:.1f} GB of memory cannot be pinned; use --resident never")
        weakref.finalize(memory, runtime.cudaHostUnregister, tensor.data_ptr())
        return tensor

    def send(self, host: Tensor) -> Tensor:
        return host.to(self.device, non_blocking=True)

    def fetch(self, tensor: Tensor) -> Tensor:
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor, non_blocking=True)

    def launch(self, launch: Launch, batch: Batch) -> None:
        if launch.kernel not in self._functions:
            found = self._driver.cuModuleGetFunction(self._module, launch.kernel.encode())
            self._functions[launch.kernel] = self._check(found)
        function, parameters = self._functions[launch.kernel], (ctypes.c_void_p * 1)(ctypes.addressof(batch))
        grid, block = (*launch.num_blocks, 1), (launch.num_threads, 1, 1)
        stream, address = self._stream.cuda_stream, ctypes.addressof(parameters)
        self._check(self._driver.cuLaunchKernel(function, *grid, *block, 0, stream, address, 0))

    def record(self) -> Event:
        return self._stream.record_event()

    def receive(self, tensors: tuple[Tensor, ...], done: Event) -> None:
        current = torch.cuda.current_stream(self.device)
        current.wait_event(done)
        for tensor in tensors:  # else the next batch could get its memory while the training step still reads it
            tensor.record_stream(current)

    def _check(self, result: tuple) -> Any:
        """The value of a call of the driver."""
        error, *values = result
        if int(error):
            raise InputError(f"the CUDA driver refuses the decoder's kernels ({error}); use --engine roc")
        return values[0] if values else None


def open_launcher(device: str) -> Launcher:
    """The launcher of a CUDA device.

    Raises:
        InputError: `device` is no GPU, or its kernels cannot be compiled.
    """
    if torch.device(device).type != "cuda":
        raise InputError(f"engine='roc-gpu' decodes on a GPU, but device={device!r}; use --engine roc on CPUs")
    return CudaLauncher(device)
