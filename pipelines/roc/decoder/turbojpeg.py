"""libjpeg-turbo's TurboJPEG functions, callable from numba kernels without the GIL.

numba calls the functions by name, and LLVM looks them up in the loaded library. So compiled kernels can be cached on
disk; a ctypes pointer in a kernel would hold an address of one process.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import threading
import weakref

import llvmlite.binding
import numpy as np
from numba import types

from fixres.pipelines.runtime.numba_cache import kernel
from fixres.pipelines.spec import InputError

GRAY = 3  # TurboJPEG's TJSAMP_GRAY
_YCBCR_SPACE, _GRAY_SPACE = 1, 2  # TJCS_YCbCr, TJCS_GRAY
LIMIT_SCANS = 32768  # TJFLAG_LIMITSCANS: a progressive JPEG of thousands of scans takes minutes; it is an attack
_NAMES = ("libturbojpeg.so.0", "libturbojpeg.dylib")
_lock = threading.Lock()

_int, _pointer = types.intc, types.uintp
_decompress_header = types.ExternalFunction(
    "tjDecompressHeader3", _int(_pointer, _pointer, types.ulong, _pointer, _pointer, _pointer, _pointer)
)
_decompress_planes = types.ExternalFunction(
    "tjDecompressToYUVPlanes", _int(_pointer, _pointer, types.ulong, _pointer, _int, _pointer, _int, _int)
)


@functools.cache
def load() -> ctypes.CDLL:
    """Loads the library and registers it with LLVM. Call this before kernels that use it are compiled or run."""
    with _lock:
        for name in (*_NAMES, ctypes.util.find_library("turbojpeg")):
            try:
                library = ctypes.CDLL(name) if name else None
            except OSError:
                continue
            if library is not None and hasattr(library, "tjDecompressToYUVPlanes"):
                llvmlite.binding.load_library_permanently(name)
                library.tjInitDecompress.restype = ctypes.c_void_p
                library.tjDestroy.argtypes = [ctypes.c_void_p]
                return library
    raise InputError(
        "libturbojpeg is not installed; install it with 'apt-get install libturbojpeg0' (Debian, Ubuntu), "
        "'dnf install turbojpeg' (Fedora) or 'brew install jpeg-turbo'"
    )


class Decompressor:
    """A TurboJPEG handle. Only one thread may use it at a time."""

    def __init__(self) -> None:
        self.handle = load().tjInitDecompress()
        if not self.handle:
            raise MemoryError("libturbojpeg could not allocate a decompressor")
        weakref.finalize(self, load().tjDestroy, self.handle)


@kernel
def read_header(handle: int, jpeg: np.ndarray, numbers: np.ndarray) -> bool:
    """Reads a JPEG's size and chroma sampling.

    Args:
        handle: of a `Decompressor`.
        jpeg: uint8, contiguous.
        numbers: int32 (4,), filled: width, height, TurboJPEG's numbers of the subsampling and of the color space.

    Returns:
        True if the headers are valid and the colors are YCbCr or gray.
    """
    at = numbers.ctypes.data
    if _decompress_header(handle, jpeg.ctypes.data, jpeg.size, at, at + 4, at + 8, at + 12) != 0:
        return False
    if numbers[2] < 0 or numbers[2] > 5:
        return False
    return numbers[3] == _YCBCR_SPACE or (numbers[3] == _GRAY_SPACE and numbers[2] == GRAY)


@kernel
def reset(handle: int) -> None:
    """Makes a handle usable again after a failure.

    When tjDecompressHeader3 of libjpeg-turbo 2.1 refuses headers, it leaves the handle in their middle and reads the
    next image, even a valid one, as their continuation. The decompress functions do reset the handle when they fail. So
    this function makes one fail: two start markers in a row are an error in every state.
    """
    invalid, plane = np.empty(4, np.uint8), np.zeros(1024, np.uint8)
    invalid[0], invalid[1], invalid[2], invalid[3] = 0xFF, 0xD8, 0xFF, 0xD8
    starts, strides = np.zeros(3, np.int64), np.full(3, 16, np.int32)
    decode_planes(handle, invalid, 8, 8, plane, starts, strides)


@kernel
def chroma_factors(subsampling: int) -> tuple[int, int]:
    """Rows and columns of pixels per chroma sample, for TurboJPEG's numbers: 444, 422, 420, gray, 440, 411."""
    if subsampling == 1:
        return 1, 2
    if subsampling == 2:
        return 2, 2
    if subsampling == 4:
        return 2, 1
    return (1, 4) if subsampling == 5 else (1, 1)


@kernel
def decode_planes(
    handle: int, jpeg: np.ndarray, height: int, width: int, planes: np.ndarray, starts: np.ndarray, strides: np.ndarray
) -> bool:
    """Decodes to YCbCr planes, chroma not upsampled.

    Args:
        handle: of a `Decompressor`.
        jpeg: uint8, contiguous. Its size according to `read_header` is height x width.
        planes: uint8, filled; with padding as `whole_image.lay_out_planes` makes it.
        starts: int64 (3,), where each plane begins in `planes`.
        strides: int32 (3,), bytes from row to row.

    Returns:
        True if the data was valid to its end.
    """
    pointers = np.empty(3, np.uintp)
    for k in range(3):
        pointers[k] = planes.ctypes.data + np.uintp(starts[k])
    done = _decompress_planes(
        handle, jpeg.ctypes.data, jpeg.size, pointers.ctypes.data, width, strides.ctypes.data, height, LIMIT_SCANS
    )
    return done == 0 and pointers[0] != 0  # using `pointers` here keeps it alive during the call
