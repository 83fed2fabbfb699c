"""Saving and restoring a whole ``Learner``, so that a run goes on bit for bit."""

import contextlib
import functools
import hashlib
import json
import logging
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from mjx_dex.learning import rollout
from mjx_dex.learning.trainer import Learner, Trainer

log = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"
"""Written into a checkpoint when it is complete: SHA-256 of each of its files."""

LEARNED = ("parameters", "optimizer_state", "statistics", "learning_rate", "iteration")
"""Fields of a ``Learner`` that mean something without its worlds."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; the message names it."""


class Checkpoints:
    """The checkpoints of one run, named by iteration; the last few are kept.

    A checkpoint is written under a temporary name and renamed when it is complete, so
    that a killed process leaves the previous one as the latest. Where several processes
    train together, all of them save and restore at the same time, in one folder.
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
            if jax.process_index() == 0:
                (folder / CHECKSUMS).write_text(json.dumps(_checksums(folder)))
            multihost_utils.sync_global_devices("checksums are written")
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

        Where it was saved on another number of devices, its worlds are dealt to the
        trainer's: everything goes on, but not bit for bit as it would have.

        Args:
            trainer: built from the same configuration.
            key: any random key; only its shape matters.

        Raises:
            CheckpointError: if there is none, or it is damaged or of another shape.
        """
        with self._reading() as (step, written):
            devices = written["actors.first"][0]
            like = _learner_on(devices, trainer, key)
            _check_shapes(written, _shapes(jax.eval_shape(_keys_to_data, like)))
            target = _placed(like, trainer)
            data = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        learner = _data_to_keys(data, like)
        if devices != trainer.num_devices:
            log.info(
                "worlds of %d devices are dealt to %d", devices, trainer.num_devices
            )
            learner = learner.replace(actors=trainer.redistribute(learner.actors))
        return learner

    def restore_learned(self, trainer: Trainer, learner: Learner) -> Learner:
        """Read from the latest checkpoint what was learned, and no worlds.

        Args:
            trainer: whose networks are those of the checkpoint; its worlds may differ.
            learner: a learner of the trainer's, or its shapes.

        Returns:
            The learner with the checkpoint's ``LEARNED`` fields.

        Raises:
            CheckpointError: as ``restore`` does.
        """
        target = {
            name: jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(
                    x.shape, x.dtype, sharding=trainer.sharding.key
                ),
                getattr(learner, name),
            )
            for name in LEARNED
        }
        with self._reading() as (step, written):
            wanted = _shapes(target)
            found = {
                name: shape
                for name, shape in written.items()
                if name.partition(".")[0] in LEARNED
            }
            _check_shapes(found, wanted)
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                learned = reader.restore(
                    self._folder / str(step) / "default",
                    args=ocp.args.PyTreeRestore(
                        item=target,
                        restore_args=ocp.checkpoint_utils.construct_restore_args(
                            target
                        ),
                        partial_restore=True,
                    ),
                )
        return learner.replace(**learned)

    @contextlib.contextmanager
    def _reading(self):
        """The latest checkpoint's step and shapes; what fails is a CheckpointError."""
        step = self.latest()
        if step is None:
            raise CheckpointError(f"there is no checkpoint in {self._folder}")
        folder = self._folder / str(step)
        try:
            # Checked first: orbax, surprised by a damaged file, says so in many pages.
            _check_files(folder)
            yield step, _shapes(self._manager.item_metadata(step).tree)
        except Exception as error:
            raise CheckpointError(
                f"cannot read checkpoint {folder}: {_first_line(error)}"
            ) from error

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


def _shapes(tree) -> dict[str, tuple[int, ...]]:
    """Shape of every leaf by dotted name."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _check_shapes(found: dict[str, tuple], expected: dict[str, tuple]) -> None:
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


def _learner_on(devices: int, trainer: Trainer, key: jax.Array) -> Learner:
    """Shapes and types of a trainer's learner, if it had so many devices."""
    like = jax.eval_shape(trainer.init, key)
    deal = functools.partial(rollout.redistribute, trainer.vector_env, devices=devices)
    return like.replace(actors=jax.eval_shape(deal, like.actors))


def _placed(like: Learner, trainer: Trainer) -> Learner:
    """What to restore: ``like``, and where its arrays go."""
    sharding = trainer.sharding
    if like.actors.first.shape[0] != trainer.num_devices:
        # On every device, until they are dealt.
        sharding = sharding.replace(actors=sharding.key)
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(_keys_to_data, like),
        _broadcast_prefix(sharding, like),
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
