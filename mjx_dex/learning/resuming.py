"""Continuing what was learned, with environments started anew."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from mjx_dex import trees
from mjx_dex.checkpoints import check_shapes
from mjx_dex.learning.agent import Agent
from mjx_dex.learning.trainer import Learned, Learner, Trainer

RATE = "learning rate"
"""A part only where the KL divergence steers it: else the configuration holds it."""

PARTS = {
    "policy": ("parameters.policy.", "statistics.policy."),
    "value network": (
        "parameters.value.",
        "statistics.value.",
        "statistics.returns.",
    ),
    "optimizer": ("optimizer_state.",),
    RATE: ("learning_rate",),
    "iteration": ("iteration",),
}
"""Parts of a ``Learned`` that are carried wholly or not at all, by how the dotted names
of their leaves begin."""

PROGRESS = "curriculum and adaptive bounds"
"""The part that belongs to environments: ``Learned.progress``."""

NETWORKS = ("policy", "value network")
"""Parts that must have the trainer's shapes: others are no continuation."""


class Resumed(NamedTuple):
    """A learner, and where its parts are from."""

    learner: Learner
    carried: tuple[str, ...]
    """Parts that continue, equal bit for bit."""
    anew: tuple[str, ...]
    """Parts that begin anew, because they were not there or did not fit."""


def resume(trainer: Trainer, arrays: dict[str, np.ndarray], key: jax.Array) -> Resumed:
    """Continue what was learned, on the trainer's environments and devices.

    Args:
        trainer: whose networks are those of ``arrays``; all else may differ.
        arrays: leaves of a ``Learned`` by dotted name (``trees.by_name``).
        key: random key of the environments and of what begins anew.

    Raises:
        ValueError: if the networks are of another shape, or there is no policy.
    """
    like = trainer.learned_like()
    progress = _fitting_progress(trainer, arrays, like)
    learner = trainer.init(key, progress)
    expected = [x for x in PARTS if x != RATE or trainer.adapts_learning_rate]
    carried = [part for part in expected if _is_carried(part, arrays, like)]
    changed = {}
    for name, leaf in trees.by_name(trainer.learned(learner)).items():
        is_carried = any(name.startswith(PARTS[part]) for part in carried)
        value = arrays[name].astype(leaf.dtype) if is_carried else leaf
        changed[name] = jax.device_put(value, trainer.sharding.key)
    learned = trees.from_names(like, changed)
    learner = learner.replace(
        parameters=learned.parameters,
        optimizer_state=learned.optimizer_state,
        statistics=learned.statistics,
        learning_rate=learned.learning_rate,
        iteration=learned.iteration,
    )
    if trees.by_name(like.progress):
        expected.append(PROGRESS)
    if progress is not None:
        carried.append(PROGRESS)
    anew = tuple(part for part in expected if part not in carried)
    return Resumed(learner, tuple(carried), anew)


def agent(trainer: Trainer, arrays: dict[str, np.ndarray]) -> Agent:
    """The networks among ``arrays``, to act with; no environment is started for them.

    Args:
        trainer: whose networks they are.
        arrays: leaves of a ``Learned`` by dotted name, the policy's at least.

    Raises:
        ValueError: as ``resume`` does.
    """
    like = trainer.learned_like()
    carried = [part for part in NETWORKS if _is_carried(part, arrays, like)]

    def networks(field):
        return {
            name: trees.from_names(subtree, arrays, f"{field}.{name}.")
            for name, subtree in getattr(like, field).items()
            if any(f"{field}.{name}." in PARTS[part] for part in carried)
        }

    fields = {field: networks(field) for field in ("parameters", "statistics")}
    return trainer.agent(like.replace(**jax.device_put(fields)))


def _is_carried(part: str, arrays: dict[str, np.ndarray], like: Learned) -> bool:
    """Whether a part is there and fits.

    Raises:
        ValueError: if it is of a network, and does not fit.
    """
    expected, found = (
        {name: x.shape for name, x in leaves.items() if name.startswith(PARTS[part])}
        for leaves in (trees.by_name(like), arrays)
    )
    if part == "policy" or (part in NETWORKS and found):
        check_shapes(found, expected)
    return found == expected


def _fitting_progress(
    trainer: Trainer, arrays: dict[str, np.ndarray], like: Learned
) -> Any:
    """The progress among ``arrays``, or None if there is none for these environments.

    The number of environments may be another one: distributed to the trainer's, both
    have the same shapes.
    """
    prefix = "progress."
    found = {name for name in arrays if name.startswith(prefix)}
    if not found or found != {prefix + name for name in trees.by_name(like.progress)}:
        return None
    progress = trees.from_names(like.progress, arrays, prefix)
    distribute = functools.partial(
        trainer.vector_env.distribute_progress, devices=trainer.num_devices
    )
    found, expected = (jax.eval_shape(distribute, x) for x in (progress, like.progress))
    fits = jax.tree.map(lambda x, y: x.shape == y.shape, found, expected)
    return progress if all(jax.tree.leaves(fits)) else None
