"""A run's folder: begun as a whole or not at all, and trained in by one process.

A start leaves a mark until the run can be resumed. What lies beside a mark is left of a
start that was killed: the next one clears it away.
"""

import contextlib
import fcntl
import itertools
import json
import logging
import os
import platform
import shutil
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from robot_bridge.files import Output, check_outputs

log = logging.getLogger("mjx_dex")

CONFIG = "config.yaml"
"""Written last: a run that has one has a checkpoint, and can be resumed."""
LINEAGE = "lineage.json"
CHECKPOINTS = "checkpoints"
STARTING = "starting"
"""Mark of a start that has not finished: what lies beside it may be removed."""
_NOTHING = "{0} has no complete checkpoint; delete {0}/config.yaml to begin anew there"
CLEARINGS = 10
"""Attempts to remove a folder that threads of a failed save may make again."""
LOCK = "lock"
"""Locked by the process that trains, and by nobody once that has ended, however."""


class RunFolder:
    """Folder of a run that this process trains.

    Args:
        path: of the folder.
        is_new: a run begins there; otherwise one is resumed.
    """

    def __init__(self, path: Path, is_new: bool):
        self.path, self.is_new = path, is_new

    def begun(self) -> None:
        """The run can be resumed from now on."""
        (self.path / STARTING).unlink(missing_ok=True)


def is_run(path: Path) -> bool:
    """Whether a run in this folder can be resumed."""
    return (path / CONFIG).exists()


def _new(runs: Path) -> Path:
    """Make a folder in ``runs`` that was not there, named by the time."""
    name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for suffix in itertools.chain([""], (f"_{n}" for n in itertools.count(2))):
        path = runs / f"{name}{suffix}"
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path
    raise AssertionError  # numbers have no end


@contextlib.contextmanager
def begin(path: Path | None, runs: Path) -> Iterator[RunFolder]:
    """A new run's folder, locked; it is as before if the start fails.

    Args:
        path: of the folder; None for a new one in ``runs``, named by the time.
        runs: folder of runs.

    Raises:
        ValueError: if it is in use, or holds what this run must not mix with.
    """
    innermost = path or runs
    made = [x for x in (innermost, *innermost.parents) if not x.exists()]
    try:
        check_outputs(Output("--run-dir", innermost, is_folder=True))
        innermost.mkdir(parents=True, exist_ok=True)
        if path is None:
            path = _new(runs)
            made = [path, *made]
        with _locked(path):
            _check_free(path)
            _clear(path)
            (path / STARTING).touch()
            try:
                yield RunFolder(path, is_new=True)
            finally:
                if (path / STARTING).exists():
                    _clear(path)
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # it holds a run, or something else
                folder.rmdir()


@contextlib.contextmanager
def resume(path: Path) -> Iterator[RunFolder]:
    """The folder of a run that is trained further, locked.

    Raises:
        ValueError: if there is no run, or another process trains it.
    """
    if not is_run(path):
        raise ValueError(f"--resume: there is no run in {path}")
    if not _complete(path / CHECKPOINTS):
        raise ValueError(f"--resume: {_NOTHING.format(path)}")
    with _locked(path):
        _clear_unfinished(path)
        folder = RunFolder(path, is_new=False)
        folder.begun()
        yield folder


def _check_free(path: Path) -> None:
    """Raise ValueError if a run must not begin in a folder."""
    if (path / "manifest.json").exists():
        raise ValueError(f"--run-dir: {path} is a bundle; give another folder")
    if is_run(path) and not _complete(path / CHECKPOINTS):
        raise ValueError(f"--run-dir: {_NOTHING.format(path)}")
    if is_run(path):
        raise ValueError(
            f"--run-dir: {path} holds a run already; add --resume to continue it, or "
            "give another folder"
        )
    if not (path / STARTING).exists() and _complete(path / CHECKPOINTS):
        raise ValueError(
            f"--run-dir: {path / CHECKPOINTS} holds checkpoints of a run without "
            f"{CONFIG}; delete that folder, or give another one"
        )


def _complete(checkpoints: Path) -> list[Path]:
    """Checkpoints that were written to their end; others have longer names."""
    return [x for x in checkpoints.glob("*") if x.name.isdigit()]


def _clear(path: Path) -> None:
    """Remove what a start leaves that did not get to its end."""
    checkpoints = path / CHECKPOINTS
    # Threads of a save that has failed make folders for a moment yet.
    for _ in range(CLEARINGS if checkpoints.exists() else 0):
        shutil.rmtree(checkpoints, ignore_errors=True)
        time.sleep(0.05)
    for name in (LINEAGE, STARTING):
        (path / name).unlink(missing_ok=True)


def _clear_unfinished(path: Path) -> None:
    """Remove checkpoints that a process was killed in the midst of."""
    for folder in (path / CHECKPOINTS).glob("*.orbax-checkpoint-tmp*"):
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """While it lasts, no other process trains in this folder.

    Raises:
        ValueError: if one does already.
    """
    file = path / LOCK
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor, path)
            if _is_same(descriptor, file):
                break
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its owner has just deleted it
    try:
        with contextlib.suppress(OSError):  # a full disk; it is for people alone
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(_self()).encode())
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"{path} is in use: {_owner(descriptor)} trains there; wait for it, stop "
            "it, or give another --run-dir"
        ) from None
    except OSError as error:
        log.warning(
            "%s cannot be locked (%s): see that no other process trains there",
            *(path, error.strerror),
        )


def _is_same(descriptor: int, file: Path) -> bool:
    """Whether a file that is open is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _self() -> dict[str, str | int]:
    return {"process": os.getpid(), "machine": platform.node()}


def _owner(descriptor: int) -> str:
    """Who holds a lock, as far as it has said so."""
    try:
        owner = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {owner['process']} on {owner['machine']}"
    except (ValueError, KeyError, OSError):
        return "another process"
