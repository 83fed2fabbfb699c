"""Writing files so that nobody ever reads half of one, and no result is lost."""

from pathlib import Path


def with_folder(path: Path) -> Path:
    """The same path, in a folder that exists: after an hour is no time to miss one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_at_once(path: Path, text: str) -> None:
    """Write a file that is either all there or not at all, even after a kill."""
    unfinished = with_folder(path).with_suffix(".unfinished")
    unfinished.write_text(text)
    unfinished.replace(path)
