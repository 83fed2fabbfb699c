"""Trained policies that come with the bridge, found by name from any folder."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def find(path: str | Path) -> Path:
    """Path of a bundle or a run: the given one, or else a packaged policy of that name.

    Args:
        path: a folder, or ``near.dex`` (also ``policies/near.dex``) where there is no
            such folder.
    """
    path = Path(path)
    packaged = FOLDER / path.name
    is_name = path.parent in (Path(), Path("policies"))
    if path.exists() or not is_name or not (packaged / "manifest.json").exists():
        return path
    return packaged
