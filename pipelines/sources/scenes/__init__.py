"""A generated data set of synthetic scenes, for demonstrations and tests without a download.

`scene` draws the contents of each picture, `render` its pixels, and `write` the files.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "render": ["render_scene", "scene_jpeg"],
        "scene": ["SceneConfig", "draw_scene"],
        "write": ["write_scenes"],
    },
)
