"""Names of files and folders that programs leave behind: never classes, images or members of a data set."""

from __future__ import annotations

# Of macOS, Windows, Synology, file systems. Those of others begin with a dot: .DS_Store, ._x.jpg, .ipynb_checkpoints.
_NAMES = {
    "__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information", "lost+found",
}  # fmt: skip


def is_hidden(name: str) -> bool:
    """Whether a name begins with a dot or is one of the known names, in any case; "." and ".." are not hidden."""
    return (name[:1] == "." and name[1:2] not in (".", "")) or name.lower() in _NAMES


def has_hidden(path: str) -> bool:
    """Whether a component of a relative path is hidden."""
    return any(map(is_hidden, path.split("/")))
