"""Which arguments of timm's networks recipes, checkpoints and options may give: those that shape the network.

timm.create_model takes further ones, which read files, download, or write into caches (pretrained, cache_dir,
checkpoint_path, pretrained_cfg_overlay, ...). An untrusted recipe or checkpoint must not reach them.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from fixres.pipelines.spec import MAX_RESOLUTION, InputError

_MAX_ITEMS = 64


class _Kind(NamedTuple):
    """What a value may be.

    Attributes:
        words: for messages.
        fits: whether a single value is allowed.
        lists: whether lists of such values, and lists of these, are allowed.
    """

    words: str
    fits: Callable[[Any], bool]
    lists: bool = False


def _numbers(words: str, high: float, *types: type, lists: bool = True) -> _Kind:
    return _Kind(f"{words} from 0 to {high}", lambda value: type(value) in types and 0 <= value <= high, lists)


# All images are RGB here, also gray ones.
_CHANNELS = _Kind("3, because all images are RGB here", lambda value: type(value) is int and value == 3)
_SWITCH = _Kind("true or false", lambda value: isinstance(value, bool))
_COUNT = _numbers("whole numbers", 4096, int)
_SIDE = _numbers("pixels", MAX_RESOLUTION, int)
_WINDOW = _numbers("whole numbers", 32, int)
_SHARE = _numbers("a number", 1, int, float, lists=False)
_FACTOR = _numbers("numbers", 64, int, float)
_WORD = _Kind("a word", lambda value: isinstance(value, str) and re.fullmatch(r"[a-z0-9_]{0,32}", value) is not None)

_BY_KIND = {
    _CHANNELS: "in_chans",
    _SWITCH: "always_partition aux_logits avg_down class_token conv_bias conv_mlp dynamic_img_pad dynamic_img_size "
    "fc_norm final_norm fix_stem head_norm_first no_embed_class preact pre_norm qk_norm qkv_bias replace_stem_pool "
    "strict_img_size use_grn zero_init_last",
    _COUNT: "base_width block_config block_reduce_first cardinality channels depth depths dims down_kernel_size "
    "embed_dim embed_dims growth_rate head_hidden_size kernel_size kernel_sizes layers num_features num_heads "
    "output_stride patch_size reg_tokens stem_chs stem_size stem_width transformer_partition_ratio widths",
    _SIDE: "img_size",
    _WINDOW: "transformer_grid_size transformer_window_size window_size",
    _SHARE: "attn_drop_rate bn_momentum drop_block_rate drop_path_rate drop_rate patch_drop_rate pos_drop_rate "
    "proj_drop_rate",
    _FACTOR: "head_init_scale init_values layer_scale_init_value ls_init_value mlp_ratio mlp_ratios norm_eps",
    _WORD: "aa_layer act_layer global_pool norm_layer pad_type pool_type stem_type",
}
ALLOWED = {name: kind for kind, names in _BY_KIND.items() for name in names.split()}
"""The kind of each argument that may be given."""
_EXAMPLES = "channels, depth, img_size, drop_path_rate"


def check_arguments(setting: str, values: Mapping[str, Any]) -> None:
    """Raises InputError for an argument that is not allowed, or out of its bounds.

    Args:
        setting: name of the mapping, for the message.
        values: arguments of timm.create_model by name.
    """
    for name, value in values.items():
        kind = ALLOWED.get(name) if isinstance(name, str) else None
        if kind is None:
            raise InputError(
                f"{setting}: the argument {reprlib.repr(name)} is not allowed; only some that shape the network are, "
                f"such as {_EXAMPLES}; docs/model.md lists them"
            )
        if value is not None and not all(map(kind.fits, _items(value) if kind.lists else [value])):
            lists = f", at most {_MAX_ITEMS} in a list" if kind.lists else ""
            raise InputError(f"{setting}.{name}={reprlib.repr(value)} must be {kind.words}{lists}")


def _items(value: Any, depth: int = 0) -> Iterator[Any]:
    """The values in a list and in its lists; a longer or deeper list is given as it is, and fits no kind."""
    if isinstance(value, list | tuple) and depth < 2 and 0 < len(value) <= _MAX_ITEMS:
        for item in value:
            yield from _items(item, depth + 1)
    else:
        yield value
