"""One scene and sixteen looks of it, for all tests of vision."""

import jax
import mujoco
import numpy as np
import pytest

from mjx_dex.config import HandConfig, ObjectConfig
from mjx_dex.vision import appearance
from mjx_dex.vision.config import AppearanceConfig, RigConfig
from mjx_dex.vision.scene import build_scene

TABLE_9 = AppearanceConfig()


@pytest.fixture(scope="session")
def scene():
    return build_scene(HandConfig(), ObjectConfig(), RigConfig())


@pytest.fixture(scope="session")
def sample_looks(scene):
    """Draws looks: number, configuration -> (Appearance, fields), both [n, ...]."""
    nominal = appearance.nominal(scene)

    def sample(number, config=TABLE_9, seed=0):
        def draw(key):
            look = appearance.sample(key, config, nominal)
            return look, appearance.model_fields(look, scene)

        keys = jax.random.split(jax.random.key(seed), number)
        return jax.tree.map(np.asarray, jax.jit(jax.vmap(draw))(keys))

    return sample


@pytest.fixture(scope="session")
def poses():
    """Draws poses [n, 31]: fingers a little bent, the block over the palm."""

    def sample(number, seed=0):
        rng = np.random.default_rng(seed)
        qpos = np.zeros((number, 31))
        qpos[:, :24] = rng.uniform(0.0, 0.6, (number, 24))
        qpos[:, 24:27] = (1.0, 0.87, 0.22)
        qpos[:, 24:27] += 0.008 * rng.normal(size=(number, 3))
        qpos[:, 27:] = rng.normal(size=(number, 4))
        qpos[:, 27:] /= np.linalg.norm(qpos[:, 27:], axis=1, keepdims=True)
        return qpos

    return sample


@pytest.fixture
def data(scene):
    return mujoco.MjData(scene.model)
