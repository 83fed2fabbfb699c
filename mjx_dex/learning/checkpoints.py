"""Checkpoints of a run: whole, to continue bit for bit, or portable.

A checkpoint has two parts in folders of their own: ``learned``, which is portable, and
``environments``, which is what a whole one has beside it.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from mjx_dex import trees
from mjx_dex.checkpoints import CheckpointFolder, check_shapes, shapes
from mjx_dex.learning.trainer import Learner, Trainer

LEARNED, ENVIRONMENTS = "learned", "environments"


class Checkpoints:
    """The checkpoints of one run, named by iteration; the last few are kept.

    Args:
        folder: theirs.
        keep: how many.
        whole: save environments, too.
    """

    def __init__(self, folder: Path, keep: int = 3, whole: bool = True):
        self._folder = CheckpointFolder(folder, keep, (LEARNED, ENVIRONMENTS))
        self._whole = whole

    def save(self, trainer: Trainer, learner: Learner) -> None:
        """See ``CheckpointFolder.save``."""
        items = {LEARNED: trainer.learned(learner)}
        if self._whole:
            items[ENVIRONMENTS] = _environments(learner)
        self._folder.save(int(learner.iteration), items)

    def latest(self) -> int | None:
        """Iteration of the latest complete checkpoint, if there is one."""
        return self._folder.latest()

    def learned(self) -> dict[str, np.ndarray]:
        """What the latest checkpoint holds of a ``Learned``, by dotted name.

        Raises:
            CheckpointError: if there is none, or it is damaged.
        """
        with self._folder.reading() as (step, written):
            if LEARNED not in written:
                raise ValueError(
                    "an earlier version of mjx_dex saved it, in another layout; "
                    "continue with that version, or train again"
                )
            return self._folder.arrays(step, LEARNED)

    def fits(self, trainer: Trainer) -> bool:
        """Whether the latest checkpoint is whole, of environments like the trainer's.

        Raises:
            CheckpointError: as ``learned`` does.
        """
        with self._folder.reading() as (_, written):
            like = jax.eval_shape(trainer.init, jax.random.key(0))
            expected = shapes(jax.eval_shape(_environments, like))
            return written.get(ENVIRONMENTS) == expected

    def restore(self, trainer: Trainer) -> Learner:
        """Read the latest checkpoint, which ``fits``, to continue bit for bit.

        Raises:
            CheckpointError: if it is damaged, or of other networks.
        """
        arrays, expected = self.learned(), trainer.learned_like()
        with self._folder.reading() as (step, written):
            check_shapes(written[LEARNED], shapes(expected))
            like = jax.eval_shape(trainer.init, jax.random.key(0))
            sharding = {"actors": trainer.sharding.actors, "key": trainer.sharding.key}
            target = {
                name: _placed(part, sharding[name])
                for name, part in jax.eval_shape(_environments, like).items()
            }
            environments = self._folder.restore(step, ENVIRONMENTS, target)
        placed = {n: jax.device_put(x, trainer.sharding.key) for n, x in arrays.items()}
        learned = vars(trees.from_names(expected, placed)).copy()
        learned.pop("progress")  # the environments hold it themselves
        return Learner(**learned, **_data_to_keys(environments, like))

    def close(self) -> None:
        """Release the folder."""
        self._folder.close()


def _environments(learner: Learner) -> dict[str, Any]:
    """What a portable checkpoint lacks."""
    return _keys_to_data({"actors": learner.actors, "key": learner.key})


def _placed(like: Any, sharding: jax.sharding.Sharding) -> Any:
    """What to restore, and where its arrays go."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like
    )


def _is_key(x) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _keys_to_data(tree):
    """Random keys as the integers they are made of, which files can hold."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def _data_to_keys(environments: dict[str, Any], like: Learner) -> dict[str, Any]:
    return {
        name: jax.tree.map(
            lambda x, y: jax.random.wrap_key_data(x) if _is_key(y) else x,
            tree,
            getattr(like, name),
        )
        for name, tree in environments.items()
    }
