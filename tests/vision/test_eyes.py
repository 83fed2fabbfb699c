"""Vision in the loop: which pose the policy gets, how old, and what stays as it was."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp
from test_train import TINY

from mjx_dex import settings
from mjx_dex.play import Play
from mjx_dex.train import TrainCommand, make_trainer
from mjx_dex.vision import states
from mjx_dex.vision.config import VisionConfig
from mjx_dex.vision.eyes import Eyes, between

WORLDS = 3
STEPS = 4


def config_of(*options):
    return settings.config_of(
        settings.from_command_line(
            TrainCommand, settings.load("quickstart"), [*TINY, *options], None
        )
    )


@pytest.fixture(scope="module")
def agent():
    trainer = make_trainer(config_of())
    return trainer.agent(trainer.init(jax.random.key(0)))


class KnowingEyes(Eyes):
    """Draws nothing: the 'net' is told the state that would have been drawn."""

    def __init__(self, env, latency=0.0, shift=0.0):
        net = SimpleNamespace(config=VisionConfig(renderer="gl"), predict=self._know)
        self._shift = shift
        super().__init__(net, env, latency=latency)

    def _render(self, qpos):
        return qpos

    def _know(self, qpos):
        pose_of = jax.vmap(lambda x: states.pose_of(x, self._scene.hand))
        pose = pose_of(jnp.asarray(qpos, jnp.float32))
        return pose.replace(position=pose.position + self._shift)


def played(config, agent, make_eyes=None):
    """Policy inputs [STEPS + 1, WORLDS, n] and states, from the same seed."""
    play = Play(config, agent, WORLDS)
    if make_eyes is None:
        steps = play.steps(jax.random.key(0))
        found = [before for before, _, _ in itertools.islice(steps, STEPS)]
    else:
        eyes = make_eyes(play.env)
        play.look = eyes.look
        steps = play.steps(jax.random.key(0))
        found = [before for before, _, _ in itertools.islice(steps, STEPS)]
        eyes.close()
    inputs = np.stack([x.observation.policy for x in found])
    return inputs, np.stack([x.state.worlds.physics.qpos for x in found])


def test_a_perfect_net_without_latency_changes_nothing(agent):
    config = config_of("--task.start-steps", "0")
    plain, qpos = played(config, agent)
    seen, same = played(config, agent, KnowingEyes)
    np.testing.assert_allclose(seen, plain, atol=2e-6)
    np.testing.assert_allclose(qpos, same, atol=1e-5)


def test_only_the_pose_comes_from_the_net(agent):
    """Inputs are fingertips 15, position 3, orientation 4, joint angles 24."""
    config = config_of("--task.start-steps", "0", "--randomization.preset", "all")
    plain, _ = played(config, agent)
    seen, _ = played(config, agent, lambda env: KnowingEyes(env, shift=0.05))
    first, other = plain[0], seen[0]
    np.testing.assert_allclose(other[:, :15], first[:, :15], atol=1e-6)
    np.testing.assert_allclose(other[:, 22:], first[:, 22:], atol=1e-6)
    # Noise of a few millimetres is gone, five centimetres are there.
    assert np.abs(other[:, 15:18] - first[:, 15:18]).min() > 0.02
    assert np.abs(other[:, 18:22] - first[:, 18:22]).max() > 1e-3


def test_what_is_seen_is_as_old_as_the_latency(agent):
    """Of 1.25 control steps: a quarter of the way from one step ago to two."""
    config = config_of("--task.start-steps", "0")
    late = 1.25 * config.physics.control_period
    seen, qpos = played(config, agent, lambda env: KnowingEyes(env, latency=late))
    hand = Play(config, agent, 1).env._hand
    world = 0.75 * qpos[2, :, 24:27] + 0.25 * qpos[1, :, 24:27]
    expected = (world - hand.frame_position) @ hand.frame_rotation.T
    np.testing.assert_allclose(seen[3, :, 15:18], expected, atol=1e-5)
    # An episode that has just begun has been as it is.
    start = (qpos[0, :, 24:27] - hand.frame_position) @ hand.frame_rotation.T
    np.testing.assert_allclose(seen[0, :, 15:18], start, atol=1e-5)


def test_a_new_episode_forgets_the_one_before(agent):
    env = Play(config_of(), agent, 1).env
    eyes = KnowingEyes(env, latency=env.control_period)
    old, new = np.zeros((2, 31)), np.ones((2, 31))
    old[:, 27] = 1.0
    eyes._remember(old, np.array([True, True]))
    eyes._remember(new, np.array([False, True]))
    delayed = eyes._delayed()
    eyes.close()
    assert (delayed[0, :24] == 0).all() and (delayed[1, :24] == 1).all()


def test_between_two_states_is_on_the_way():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 31))
    turns = Rotation.random(5, random_state=0)
    little = Rotation.from_rotvec(0.1 * rng.normal(size=(5, 3)))
    first[:, 27:] = turns.as_quat()[:, [3, 0, 1, 2]]
    # The same rotation may be written with the other sign.
    second[:, 27:] = -(turns * little).as_quat()[:, [3, 0, 1, 2]]
    np.testing.assert_allclose(between(first, second, 0.0), first)
    middle = between(first, second, 0.3)
    np.testing.assert_allclose(middle[:, :27], (0.7 * first + 0.3 * second)[:, :27])
    for i in range(5):
        pair = Rotation.concatenate([turns[i], turns[i] * little[i]])
        expected = Slerp([0, 1], pair)(0.3).as_quat()[[3, 0, 1, 2]]
        assert abs(expected @ middle[i, 27:]) > 1 - 1e-5


def test_latency_is_not_negative(agent):
    env = Play(config_of(), agent, 1).env
    with pytest.raises(ValueError, match="--pose-latency"):
        KnowingEyes(env, latency=-0.1)
