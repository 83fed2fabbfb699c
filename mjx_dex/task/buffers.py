"""Room for contacts on warp and mjx, found by playing."""

import functools
import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from mjx_dex import trees
from mjx_dex.config import Config, replace
from mjx_dex.hand import build_hand
from mjx_dex.physics import choose_engine
from mjx_dex.physics.contacts import ContactStatistics, measure_contacts
from mjx_dex.task.env import HandEnv, make_env

log = logging.getLogger(__name__)

WORLDS = 64
STEPS = 50
"""Control steps that are played in each of so many worlds."""
MARGIN = 1.5
"""Room for this times what was seen: a policy grasps more firmly than chance does."""


def with_buffers(config: Config) -> Config:
    """Set ``physics.max_contacts`` and ``max_constraints``, where they are not set.

    The C engine, whose buffers grow by themselves, plays random actions with the
    configuration's own object and randomization.
    """
    physics = config.physics
    engine, _ = choose_engine(config.engine)
    given = {"contacts": physics.max_contacts, "constraints": physics.max_constraints}
    if engine == "native" or None not in given.values():
        return config
    seen = _play(
        Config(
            engine="native",
            hand=config.hand,
            object=config.object,
            physics=config.physics,
            task=config.task,
            randomization=config.randomization,
            seed=config.seed,
        )
    )
    most = {"contacts": seen.most_contacts, "constraints": seen.most_constraints}
    if jax.process_count() > 1:
        # Chaos may differ between processors; what is compiled must not.
        most = multihost_utils.broadcast_one_to_all(most)
        most = {name: int(number) for name, number in most.items()}
    room = {
        name: _with_margin(most[name]) if limit is None else limit
        for name, limit in given.items()
    }
    for name, limit in room.items():
        log.info("%s: at most %d in a world; room for %d", name, most[name], limit)
    return replace(
        config, **{f"physics.max_{name}": limit for name, limit in room.items()}
    )


def _with_margin(seen: int) -> int:
    return 8 * math.ceil(MARGIN * max(seen, 1) / 8)


@functools.cache
def _play(config: Config) -> ContactStatistics:
    """Contacts of worlds that play random actions, and begin again when they drop."""
    env = make_env(replace(config, **{"randomization.adaptive.enabled": False}))
    keys = jax.random.split(jax.random.key(config.seed), WORLDS)
    begun = jax.vmap(env.begin, (0, None))(keys, env.adaptive.init())
    play = jax.jit(
        lambda states: jax.lax.scan(
            lambda states, _: jax.vmap(lambda state: _step(env, state))(states),
            states,
            length=STEPS,
        )[1]
    )
    physics = jax.tree.map(np.asarray, play(begun))
    model = build_hand(config.hand, config.object, config.physics).model
    return measure_contacts(
        model,
        physics.qpos.reshape(-1, model.nq),
        physics.qvel.reshape(-1, model.nv),
    )


def _step(env: HandEnv, state):
    moved, _ = env.act(state, env.random_action(state))
    again = env.begin(jax.random.split(state.key)[1], env.adaptive.init())
    older = moved.replace(episode_steps=jnp.add(moved.episode_steps, 1))
    after = trees.where(env.is_lost(moved), again, older)
    return after, after.physics
