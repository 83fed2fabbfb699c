"""Writing files so that nobody ever reads half of one, and no result is lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

IMAGES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Suffixes of images that Pillow writes."""
VIDEOS = (".avi", ".mkv", ".mov", ".mp4")
"""Suffixes of videos that ffmpeg writes as imageio calls it."""


@dataclass(frozen=True)
class Output:
    """A file or folder that a command writes, often hours after its start."""

    flag: str
    """Option that names it, for messages."""
    path: Path | None
    """None where nothing is to be written."""
    suffixes: Collection[str] = ()
    """Those that its writer knows, in lower case; any if there are none."""
    is_folder: bool = False


def check_outputs(*outputs: Output, inputs: Iterable[Path] = ()) -> None:
    """Check, before anything is computed, that results can be written.

    Makes the folders that they go to, and leaves everything else as it is.

    Args:
        outputs: of the command.
        inputs: files that the command reads, which no output may replace.

    Raises:
        ValueError: if one of them cannot be written; names flag, path and reason.
    """
    taken = {os.path.realpath(path): "one that is read" for path in inputs}
    for output in outputs:
        if output.path is None:
            continue
        place = os.path.realpath(output.path)
        obstacle = _obstacle(output)
        if place in taken:
            obstacle = f"is the same file as {taken[place]}"
        if obstacle:
            raise ValueError(f"{output.flag} {output.path}: {obstacle}")
        taken[place] = output.flag


def _obstacle(output: Output) -> str:
    """Reason why an output cannot be written; '' if there is none."""
    path, kind = output.path, "folder" if output.is_folder else "file"
    if output.suffixes and path.suffix.lower() not in output.suffixes:
        return f"its name must end in one of {', '.join(sorted(output.suffixes))}"
    try:
        is_one = path.is_dir() if output.is_folder else path.is_file()
        if path.exists() and not is_one:
            return f"is there, and is not a {kind}"
        if path.exists() and not os.access(path, os.W_OK):
            return "is there, and is write-protected"
        folder = path if path.is_dir() else Path(os.path.realpath(path)).parent
        folder.mkdir(parents=True, exist_ok=True)
        # Written for real: permissions do not show that a file system is read-only.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".unfinished-"):
            return ""
    except (FileExistsError, NotADirectoryError) as error:
        return f"cannot be written: {error.filename} is not a folder"
    except OSError as error:
        return f"cannot be written: {error.strerror}"


def picture_formats() -> set[str]:
    """Suffixes of pictures that matplotlib draws."""
    # Imported here: most of those who need this module draw nothing.
    from matplotlib.backend_bases import FigureCanvasBase

    formats = {f".{name}" for name in FigureCanvasBase.get_supported_filetypes()}
    return formats - {".pgf"}  # which needs LaTeX


@contextlib.contextmanager
def written_at_once(path: Path) -> Iterator[Path]:
    """Path of a file or folder to write, which takes the place of ``path`` in the end.

    A folder does so only where there is none, or an empty one.
    Until then, and after a failure or a kill, ``path`` is what it was.

    Raises:
        OSError: names ``path`` and the reason.
    """
    place = Path(os.path.realpath(path))  # what a link points to is replaced
    # Unique: other processes, and files of the same stem, are written at the same time.
    # With the suffix, by which writers choose the format.
    unfinished = place.with_name(f".unfinished-{uuid.uuid4().hex}{place.suffix}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.replace(place)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()


def write_at_once(path: Path, text: str) -> None:
    """Write a file that is either all there or not at all, even after a kill."""
    with written_at_once(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def save_figure(figure, path: Path, dpi: int) -> None:
    """Draw a matplotlib figure to a file, at once."""
    with written_at_once(path) as unfinished:
        figure.savefig(unfinished, dpi=dpi)
