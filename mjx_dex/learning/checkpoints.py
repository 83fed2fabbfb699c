"""Checkpoints of a run: whole, to continue bit for bit, or portable.

A checkpoint has two parts in folders of their own: ``learned``, which is portable, and
``environments``, which is what a whole one has beside it.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from mjx_dex import trees
from mjx_dex.checkpoints import CheckpointFolder, shapes
from mjx_dex.learning.trainer import Learner, Trainer

LEARNED, ENVIRONMENTS = "learned", "environments"


class Checkpoints:
    """The checkpoints of one run, named by iteration; the last few are kept.

    Args:
        folder: theirs.
        keep: how many.
        whole: save environments, too.
        kind: [32] bytes that tell environments of one kind from others; those of
            another kind are not continued.
    """

    def __init__(
        self,
        folder: Path,
        keep: int = 3,
        whole: bool = True,
        kind: np.ndarray | None = None,
    ):
        self._folder = CheckpointFolder(
            folder, keep, items=(LEARNED, ENVIRONMENTS), optional=(ENVIRONMENTS,)
        )
        self._whole = whole
        self._kind = np.zeros(32, np.uint8) if kind is None else kind

    def save(self, trainer: Trainer, learner: Learner) -> None:
        """See ``CheckpointFolder.save``."""
        items = {LEARNED: trainer.learned(learner)}
        if self._whole:
            kind = jax.device_put(self._kind, trainer.sharding.key)
            items[ENVIRONMENTS] = _environments(learner, kind)
        self._folder.save(int(learner.iteration), items)

    def latest(self) -> int | None:
        """Iteration of the latest complete checkpoint, if there is one."""
        return self._folder.latest()

    def learned(self) -> dict[str, np.ndarray]:
        """What the latest checkpoint holds of a ``Learned``, by dotted name.

        Raises:
            CheckpointError: if there is none, or it is damaged.
        """
        with self._folder.reading(unread=(ENVIRONMENTS,)) as (step, written):
            if LEARNED not in written:
                raise ValueError(
                    "an earlier version of mjx_dex saved it; export a bundle with that "
                    "version, which train --from-run continues"
                )
            return self._folder.arrays(step, LEARNED)

    def restore(self, trainer: Trainer) -> Learner | None:
        """Read the latest checkpoint, to continue bit for bit.

        Returns:
            None if it is portable, or its environments, networks or optimizer are
            others than the trainer's: ``learned`` may be continued then.

        Raises:
            CheckpointError: if there is none, or it is damaged.
        """
        like = jax.eval_shape(trainer.init, jax.random.key(0))
        parts = jax.eval_shape(_environments, like, self._kind)
        learned = trainer.learned_like()
        expected = {LEARNED: shapes(learned), ENVIRONMENTS: shapes(parts)}
        shared = trainer.sharding.key
        sharding = {"actors": trainer.sharding.actors, "key": shared, "kind": shared}
        with self._folder.reading() as (step, written):
            if written != expected:
                return None
            target = {name: _placed(x, sharding[name]) for name, x in parts.items()}
            environments = self._folder.restore(step, ENVIRONMENTS, target)
            if (np.asarray(environments.pop("kind")) != self._kind).any():
                return None
            arrays = self._folder.arrays(step, LEARNED)
        placed = {name: jax.device_put(x, shared) for name, x in arrays.items()}
        fields = vars(trees.from_names(learned, placed)).copy()
        fields.pop("progress")  # the environments hold it themselves
        return Learner(**fields, **_data_to_keys(environments, like))

    def close(self) -> None:
        """Release the folder."""
        self._folder.close()


def _environments(learner: Learner, kind: jax.Array) -> dict[str, Any]:
    """What a portable checkpoint lacks."""
    data = _keys_to_data({"actors": learner.actors, "key": learner.key})
    return data | {"kind": kind}


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
