"""Writing files so that nobody ever reads half of one."""

from pathlib import Path


def write_at_once(path: Path, text: str) -> None:
    """Write a file that is either all there or not at all, even after a kill."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(text)
    unfinished.replace(path)
