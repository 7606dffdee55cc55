"""Records with made-up checkpoints, for tests of files and journals; small JPEG files."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

import fixres.pipelines.crop_index.checkpoints as checkpoints
from fixres.pipelines.crop_index.building import IndexingConfig, build_index
from fixres.pipelines.crop_index.records import FileStamp, Record, make_entry
from fixres.pipelines.sources import open_folder

NUM_JPEGS = 12  # in the fixture `folder`


def made_record(name: bytes, item: int, rng: np.random.Generator, mtime_ns: int = 1, coarse: bytes = b"") -> Record:
    """A record of an image of random size, with random words; one in four is decoded whole."""
    sample = np.zeros(checkpoints.NUM_SAMPLE_COLUMNS, np.int64)
    image = rng.integers(0, 256, rng.integers(0, 300), np.uint8)
    if rng.random() < 0.25:
        sample[checkpoints.KIND] = checkpoints.PROGRESSIVE
    else:
        sample[checkpoints.HEIGHT], sample[checkpoints.WIDTH] = rng.integers(1, 400, 2)
        sample[checkpoints.NUM_COMPONENTS] = rng.choice([1, 3])
        sample[checkpoints.BLOCK_ROWS], sample[checkpoints.BLOCK_COLUMNS] = rng.integers(1, 3, 2)
        size = len(coarse) or image.size
        sample[checkpoints.HEADER_SIZE], sample[checkpoints.DATA_SIZE] = size // 3, size // 2
    words = rng.integers(0, 1 << 16, checkpoints.num_words(sample), np.uint16).tobytes()
    stamp, entry = FileStamp(image.size, mtime_ns, 3), make_entry(item, image, sample, words, coarse)
    return Record(name, stamp, entry, words + coarse)


def jpeg(number: int, side: int = 40, **options: object) -> bytes:
    """Noise of `side` rows and `side + number` columns; the options are Pillow's."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side + number, 3), np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), "JPEG", **options)
    return file.getvalue()


def kill_builders(folder: Path, config: IndexingConfig, seconds: float) -> None:
    """Lets two processes build the index of a folder at once, and kills them after a while."""
    children = []
    for _ in range(2):
        if (pid := os.fork()) == 0:
            tqdm.set_lock(threading.RLock())  # the default is shared with this process, and may be held in the end
            build_index(open_folder(folder), config)
            os._exit(0)
        children.append(pid)
    time.sleep(seconds)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
