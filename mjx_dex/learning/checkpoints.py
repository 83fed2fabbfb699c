"""Saving and restoring a whole ``Learner``, so that a run goes on bit for bit."""

import hashlib
import json
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from mjx_dex.learning.trainer import Learner, Trainer

CHECKSUMS = "checksums.json"
"""Written into a checkpoint when it is complete: SHA-256 of each of its files."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; the message names it."""


class Checkpoints:
    """The checkpoints of one run, named by iteration; the last few are kept.

    A checkpoint is written under a temporary name and renamed when it is complete, so
    that a killed process leaves the previous one as the latest.
    """

    def __init__(self, folder: Path, keep: int = 3):
        self._folder = folder.resolve()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep),
            item_handlers=ocp.StandardCheckpointHandler(),
        )

    def save(self, learner: Learner) -> None:
        """Write a checkpoint, and wait for it to be on disk.

        Raises:
            CheckpointError: if it cannot be written, for example on a full disk.
        """
        step = int(learner.iteration)
        if step == self.latest():
            return
        folder = self._folder / str(step)
        try:
            self._manager.save(step, args=ocp.args.StandardSave(_keys_to_data(learner)))
            self._manager.wait_until_finished()
            (folder / CHECKSUMS).write_text(json.dumps(_checksums(folder)))
        except Exception as error:
            raise CheckpointError(
                f"cannot save checkpoint {folder}: {_first_line(error)}; "
                f"the latest complete one is {self.latest()}"
            ) from error

    def latest(self) -> int | None:
        """Iteration of the latest complete checkpoint, if there is one."""
        return self._manager.latest_step()

    def restore(self, trainer: Trainer, key: jax.Array) -> Learner:
        """Read the latest checkpoint.

        Args:
            trainer: built from the same configuration, on as many devices.
            key: any random key; only its shape matters.

        Raises:
            CheckpointError: if there is none, or it is damaged or of another shape.
        """
        step = self.latest()
        if step is None:
            raise CheckpointError(f"there is no checkpoint in {self._folder}")
        like = jax.eval_shape(trainer.init, key)
        target = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=sharding
            ),
            jax.eval_shape(_keys_to_data, like),
            _broadcast_prefix(trainer.sharding, like),
        )
        try:
            # Checked first: orbax, surprised by a damaged file, says so in many pages.
            _check_files(self._folder / str(step))
            _check_shapes(self._manager.item_metadata(step).tree, target)
            data = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        except Exception as error:
            raise CheckpointError(
                f"cannot read checkpoint {self._folder / str(step)}: "
                f"{_first_line(error)}"
            ) from error
        return _data_to_keys(data, like)

    def close(self) -> None:
        """Release the folder."""
        self._manager.close()


def _checksums(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CHECKSUMS
    }


def _check_files(folder: Path) -> None:
    """Raise ValueError if a file is not as it was written."""
    if not (folder / CHECKSUMS).exists():
        return  # the run was killed just before it wrote them; orbax was done
    written = json.loads((folder / CHECKSUMS).read_text())
    found = _checksums(folder)
    damaged = [name for name, digest in written.items() if found.get(name) != digest]
    if damaged:
        raise ValueError(
            f"damaged or missing: {', '.join(damaged)}; "
            f"delete the folder to go on from the checkpoint before it"
        )


def _check_shapes(written, target) -> None:
    """Raise ValueError if a checkpoint is of another configuration or device count."""

    def shapes(tree):
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        return {
            jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
            for path, leaf in leaves
        }

    found, expected = shapes(written), shapes(target)
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise ValueError(
                f"it is of another configuration or number of devices: {name} has "
                f"shape {found.get(name)} there and {expected.get(name)} here"
            )


def _is_key(x) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _keys_to_data(tree):
    """Random keys as the integers they are made of, which files can hold."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def _data_to_keys(tree, like):
    return jax.tree.map(
        lambda x, y: jax.random.wrap_key_data(x) if _is_key(y) else x, tree, like
    )


def _broadcast_prefix(prefix: Learner, tree: Learner) -> Learner:
    """Repeat each field of ``prefix`` for every leaf of that field of ``tree``."""

    def repeat(name):
        leaf = getattr(prefix, name)
        return jax.tree.map(lambda _: leaf, getattr(tree, name))

    return Learner(**{name: repeat(name) for name in Learner.__dataclass_fields__})


def _first_line(error: Exception) -> str:
    name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return f"{name}{error}".splitlines()[0][:300]
