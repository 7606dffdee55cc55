"""What a file is that was given as a .beton file, from its first bytes."""

from __future__ import annotations

NUM_LOOKED_AT = 265
_BEGINNINGS = {
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG\r\n": "a PNG image",
    b"GIF8": "a GIF image",
    b"RIFF": "a WebP image or another RIFF file",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"PK\x03\x04": "a ZIP archive or a file of weights",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"PAR1": "a parquet file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy file",
}


def kind_of(beginning: bytes) -> str | None:
    """What a file with this beginning (`NUM_LOOKED_AT` bytes) is, with its article; None if that is not known."""
    if beginning[4:8] == b"ftyp":
        return "an image of a phone (HEIC, AVIF) or a video"
    if beginning[257:262] == b"ustar":
        return "a tar archive"
    return next((kind for magic, kind in _BEGINNINGS.items() if beginning.startswith(magic)), None)
