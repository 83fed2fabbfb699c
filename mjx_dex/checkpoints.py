"""Checkpoints in a folder: complete or not there, and checked when they are read."""

import contextlib
import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from mjx_dex import trees
from robot_bridge.files import write_at_once

ONLY = "default"
"""Name of the item of checkpoints that hold a single tree."""

CHECKSUMS = "checksums.json"
"""Written into a checkpoint when it is complete: SHA-256 of each of its files."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; the message names it."""


class CheckpointFolder:
    """Checkpoints of one run, named by their step; the last few are kept.

    A checkpoint is written under a temporary name and renamed when it is complete, so
    that a killed process leaves the previous one as the latest. Where several processes
    train together, all of them save and restore at the same time, in one folder.

    Args:
        folder: theirs.
        keep: how many.
        items: names of the trees that a checkpoint may hold, each in a folder.
        optional: those of them that may have been left out when it was copied.
    """

    def __init__(
        self,
        folder: Path,
        keep: int = 3,
        items: tuple[str, ...] = (ONLY,),
        optional: tuple[str, ...] = (),
    ):
        self.path, self._items, self._optional = folder.resolve(), items, optional
        self._manager = ocp.CheckpointManager(
            self.path,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep),
            item_handlers={name: ocp.StandardCheckpointHandler() for name in items},
        )

    def save(self, step: int, items: dict[str, Any]) -> None:
        """Write a checkpoint, and wait for it to be on disk.

        Args:
            step: its name.
            items: trees by name.

        Raises:
            CheckpointError: if it cannot be written, for example on a full disk.
        """
        if step == self.latest():
            return
        folder = self.path / str(step)
        try:
            with _quiet():
                self._write(step, items)
            if jax.process_index() == 0:
                write_at_once(folder / CHECKSUMS, json.dumps(_checksums(folder)))
            multihost_utils.sync_global_devices("checksums are written")
        except Exception as error:
            self._clear_unfinished(step)
            raise CheckpointError(
                f"cannot save checkpoint {folder}: {_reason(error)}; {self._latest()}"
            ) from error

    def _write(self, step: int, items: dict[str, Any]) -> None:
        saves = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        self._manager.save(step, args=ocp.args.Composite(**saves))
        self._manager.wait_until_finished()

    def _clear_unfinished(self, step: int) -> None:
        """Remove what there is of a checkpoint: a full disk needs the room."""
        for folder in self.path.glob(f"{step}.*"):
            shutil.rmtree(folder, ignore_errors=True)

    def latest(self) -> int | None:
        """Step of the latest complete checkpoint, if there is one."""
        return self._manager.latest_step()

    def _latest(self) -> str:
        step = self.latest()
        return "there is no other" if step is None else f"the latest is {step}"

    @contextlib.contextmanager
    def reading(self, unread: tuple[str, ...] = ()):
        """The latest checkpoint's step, and the shapes of its items by name.

        What fails within is a CheckpointError.

        Args:
            unread: items that are not needed: they are left out, damaged or not.
        """
        step = self.latest()
        if step is None:
            raise CheckpointError(f"there is no checkpoint in {self.path}")
        folder = self.path / str(step)
        try:
            # Checked first: orbax, surprised by a damaged file, says so in many pages.
            _check_files(folder, self._optional, unread)
            items = [x for x in self._items if (folder / x).exists()]
            read = [item for item in items if item not in unread]
            yield step, {item: shapes(_metadata(folder / item)) for item in read}
        except Exception as error:
            raise CheckpointError(
                f"cannot read checkpoint {folder}: {_first_line(error)}"
            ) from error

    def restore(self, step: int, item: str, target):
        """Read an item shaped as ``target``; within ``reading``."""
        args = ocp.args.Composite(**{item: ocp.args.StandardRestore(target)})
        return self._manager.restore(step, args=args)[item]

    def arrays(self, step: int, item: str) -> dict[str, np.ndarray]:
        """Leaves of an item by dotted name, in host memory; within ``reading``."""
        path = self.path / str(step) / item
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        how = jax.tree.map(lambda _: as_numpy, _metadata(path))
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            tree = reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=how))
        return trees.by_name(tree)

    def close(self) -> None:
        """Release the folder."""
        self._manager.close()


def _metadata(path: Path):
    """Shapes and types of an item, a tree, without reading it."""
    return ocp.StandardCheckpointHandler().metadata(path).tree


def _checksums(folder: Path, unchecked: Collection[str] = ()) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint, but of items that are unchecked."""
    files = {
        str(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CHECKSUMS
    }
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if _item(name) not in unchecked
    }


def _item(name: str) -> str:
    """The item that a checkpoint's file belongs to."""
    return Path(name).parts[0]


def _check_files(
    folder: Path, optional: tuple[str, ...], unread: tuple[str, ...]
) -> None:
    """Raise ValueError if a file is not as it was written.

    Args:
        folder: of a checkpoint.
        optional: items that may be missing as a whole.
        unread: items that are not needed, and may be damaged.
    """
    if not (folder / CHECKSUMS).exists():
        return  # the run was killed just before it wrote them; orbax was done
    written = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    left_out = (item for item in optional if not (folder / item).exists())
    unchecked = {*unread, *left_out}
    found = _checksums(folder, unchecked)
    damaged = [
        name
        for name, digest in written.items()
        if _item(name) not in unchecked and found.get(name) != digest
    ]
    if not damaged:
        return
    items = {_item(name) for name in damaged}
    road = "delete the folder to continue from the checkpoint before it"
    if items <= set(optional):
        road = f"delete {', '.join(sorted(items))} there to continue without"
    more = f" and {len(damaged) - 2} more" if len(damaged) > 2 else ""
    raise ValueError(f"damaged or missing: {', '.join(damaged[:2])}{more}; {road}")


def shapes(tree) -> dict[str, tuple[int, ...]]:
    """Shape of every leaf by dotted name."""
    return {name: tuple(leaf.shape) for name, leaf in trees.by_name(tree).items()}


def check_shapes(found: dict[str, tuple], expected: dict[str, tuple]) -> None:
    """Raise ValueError if a checkpoint is of another configuration."""
    # Networks first: a stranger's optimizer state says less to its reader.
    for name in sorted(
        found.keys() | expected.keys(),
        key=lambda name: (not name.startswith("parameters"), name),
    ):
        if found.get(name) != expected.get(name):
            raise ValueError(
                f"it is of another configuration: {name} has shape "
                f"{found.get(name)} there and {expected.get(name)} here"
            )


@contextlib.contextmanager
def _quiet():
    """Without the pages that orbax prints of an error that it raises as well.

    After an error the silence stays: its threads print until the process ends.
    """
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    hook = sys.unraisablehook

    def unraisable(found):
        if str(found.exc_value) != "Event loop is closed":
            hook(found)

    for logger in loggers:
        logger.addFilter(_is_harmless)
    sys.unraisablehook = unraisable
    yield
    for logger in loggers:
        logger.removeFilter(_is_harmless)
    sys.unraisablehook = hook


def _is_harmless(record: logging.LogRecord) -> bool:
    return record.levelno < logging.WARNING


def _reason(error: Exception) -> str:
    full = "No space left on device"
    return full if full in str(error) else _first_line(error)


def _first_line(error: Exception) -> str:
    name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return f"{name}{error}".splitlines()[0][:300]
