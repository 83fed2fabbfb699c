"""Saving and restoring a whole ``Learner``, so that a run goes on bit for bit."""

import functools
import logging
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from mjx_dex.checkpoints import CheckpointFolder, check_shapes, shapes
from mjx_dex.learning import rollout
from mjx_dex.learning.trainer import Learner, Trainer

log = logging.getLogger(__name__)

LEARNED = ("parameters", "optimizer_state", "statistics", "learning_rate", "iteration")
"""Fields of a ``Learner`` that mean something without its worlds."""


class Checkpoints:
    """The checkpoints of one run, named by iteration; the last few are kept."""

    def __init__(self, folder: Path, keep: int = 3):
        self._folder = CheckpointFolder(folder, keep)

    def save(self, learner: Learner) -> None:
        """See ``CheckpointFolder.save``."""
        self._folder.save(int(learner.iteration), _keys_to_data(learner))

    def latest(self) -> int | None:
        """Iteration of the latest complete checkpoint, if there is one."""
        return self._folder.latest()

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
        with self._folder.reading() as (step, written):
            devices = written["actors.first"][0]
            like = _learner_on(devices, trainer, key)
            check_shapes(written, shapes(jax.eval_shape(_keys_to_data, like)))
            target = _placed(like, trainer)
            data = self._folder.restore(step, target)
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
        with self._folder.reading() as (step, written):
            wanted = shapes(target)
            found = {
                name: shape
                for name, shape in written.items()
                if name.partition(".")[0] in LEARNED
            }
            check_shapes(found, wanted)
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                learned = reader.restore(
                    self._folder.path / str(step) / "default",
                    args=ocp.args.PyTreeRestore(
                        item=target,
                        restore_args=ocp.checkpoint_utils.construct_restore_args(
                            target
                        ),
                        partial_restore=True,
                    ),
                )
        return learner.replace(**learned)

    def close(self) -> None:
        """Release the folder."""
        self._folder.close()


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
