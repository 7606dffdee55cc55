"""Reads and writes data files: FFCV's .beton format, with RoC records or plain JPEGs, and webdataset tar shards.

Readers are `fixres.pipelines.spec.Source`s. They check every offset and size while opening, because files may be
damaged.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "beton_parts": ["BetonParts", "open_beton"],
        "beton_reader": ["BetonReader"],
        "beton_writer": ["BetonWriter", "write_beton"],
        "parts": ["Part"],
        "samples": ["EncodedSample"],
        "webdataset_reader": ["TarSource"],
        "webdataset_writer": ["ShardWriter", "write_shards"],
    },
)
