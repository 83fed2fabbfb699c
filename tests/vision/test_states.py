"""Random states, the augmentation of the paper, and batches that a seed decides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_dex import rotations
from mjx_dex.vision import states
from mjx_dex.vision.config import AppearanceConfig, StatesConfig
from mjx_dex.vision.rendering import make_renderer
from mjx_dex.vision.stream import make_draw, stream

NUMBER = 4000


def drawn(function, *arguments):
    keys = jax.random.split(jax.random.key(0), NUMBER)
    return np.asarray(jax.jit(jax.vmap(lambda key: function(key, *arguments)))(keys))


def angles_between(first, second):
    return 2 * np.arccos(np.clip(np.abs((first * second).sum(-1)), 0, 1))


def test_random_states_are_within_the_joints_ranges(scene):
    qpos = drawn(states.random_state, StatesConfig(), scene.hand)
    low, high = scene.hand.model.jnt_range[:24].T
    assert (qpos[:, :24] >= low - 1e-6).all() and (qpos[:, :24] <= high + 1e-6).all()
    # A quarter of each range, or less where ranges end.
    assert ((qpos[:, :24].std(0) / (high - low)) > 0.1).all()
    np.testing.assert_allclose(qpos[:, 24:27].mean(0), states.OVER_PALM, atol=7e-4)
    np.testing.assert_allclose(qpos[:, 24:27].std(0), 0.008, rtol=0.06)
    np.testing.assert_allclose(np.linalg.norm(qpos[:, 27:], axis=1), 1, atol=1e-5)
    # Uniform rotations turn by 90 + 360/pi^2 = 126.5 degrees on average.
    turns = angles_between(qpos[:, 27:], np.array([1.0, 0, 0, 0]))
    np.testing.assert_allclose(np.rad2deg(turns).mean(), 126.5, atol=3)


def test_a_smaller_task_turns_less(scene):
    qpos = drawn(states.random_state, StatesConfig(max_rotation=45.0), scene.hand)
    turns = np.rad2deg(angles_between(qpos[:, 27:], np.array([1.0, 0, 0, 0])))
    assert turns.max() < 45.01
    np.testing.assert_allclose(turns.mean(), 22.5, atol=1)


def test_objects_are_kept_turned_or_jittered_as_often_as_in_the_paper(poses):
    qpos = jnp.asarray(poses(1)[0], jnp.float32)
    moved = drawn(states.augment, qpos, StatesConfig())
    np.testing.assert_array_equal(moved[:, :24], np.tile(qpos[:24], (NUMBER, 1)))
    shift = moved[:, 24:27] - np.asarray(qpos[24:27])
    turns = np.rad2deg(angles_between(moved[:, 27:], np.asarray(qpos[27:])))
    is_moved = np.abs(shift).max(1) > 0
    is_turned = np.abs(turns - 90) < 0.1
    is_kept = ~is_moved & (turns < 0.1)
    error = 5 * (0.24 / NUMBER) ** 0.5
    np.testing.assert_allclose(is_kept.mean(), 0.2, atol=error)
    np.testing.assert_allclose(is_turned.mean(), 0.4, atol=error)
    np.testing.assert_allclose(is_moved.mean(), 0.4, atol=error)
    assert (is_kept.astype(int) + is_turned + is_moved == 1).all()
    np.testing.assert_allclose(shift[is_moved].std(0), 0.005, rtol=0.1)
    # The mean of |N(0, 5)|.
    np.testing.assert_allclose(turns[is_moved].mean(), 5 * (2 / np.pi) ** 0.5, rtol=0.1)


def test_quarter_turns_are_about_the_objects_own_axes(poses):
    """They take its corners to its corners, all six ways."""
    qpos = jnp.asarray(poses(1)[0], jnp.float32)
    config = StatesConfig(as_is=0.0, quarter_turns=1.0)
    turned = drawn(states.augment, qpos, config)[:, 27:]
    undone = jax.vmap(rotations.multiply, (None, 0))(
        rotations.conjugate(qpos[27:]), jnp.asarray(turned)
    )
    matrices = np.asarray(jax.vmap(rotations.to_matrix)(undone))
    np.testing.assert_allclose(matrices, np.round(matrices), atol=1e-5)
    ways, counts = np.unique(np.round(matrices), axis=0, return_counts=True)
    assert len(ways) == 6 and counts.min() > 0.8 * NUMBER / 6


def test_positions_are_told_in_the_frame_of_the_sensors(scene, poses):
    qpos = poses(1)[0]
    pose = states.pose_of(jnp.asarray(qpos), scene.hand)
    hand = scene.hand
    expected = hand.frame_rotation @ (qpos[24:27] - hand.frame_position)
    np.testing.assert_allclose(pose.position, expected, atol=1e-6)
    np.testing.assert_allclose(pose.quaternion, qpos[27:], atol=1e-6)


def batches(scene, renderer, first=0, number=3):
    draw = make_draw(scene, StatesConfig(), AppearanceConfig(), number=2)
    batches = stream(draw, renderer, seed=5, first=first)
    return [next(batches) for _ in range(number)]


def test_batches_depend_on_the_seed_and_their_number_alone(scene):
    with make_renderer("gl", scene.model, 32) as one:
        alone = batches(scene, one)
        resumed = batches(scene, one, first=2, number=1)
    with make_renderer("gl", scene.model, 32, workers=2) as two:
        together = batches(scene, two)
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_array_equal(first.images, second.images)
        np.testing.assert_array_equal(first.poses.position, second.poses.position)
    np.testing.assert_array_equal(resumed[0].images, alone[2].images)
    assert not np.array_equal(alone[0].images, alone[1].images)


@pytest.mark.parametrize(("held_out", "rows"), [(False, (0, 3)), (True, (3, 4))])
def test_states_of_a_file_are_drawn(held_out, rows, scene, tmp_path, poses):
    """Of four, the last one is for tests."""
    path = tmp_path / "states.npy"
    np.save(path, poses(4).astype(np.float32))
    config = StatesConfig(path=str(path), as_is=1.0, quarter_turns=0.0)
    draw = make_draw(scene, config, AppearanceConfig(), 50, held_out)
    drawn = np.unique(np.asarray(draw(jax.random.key(0)).qpos), axis=0)
    expected = np.unique(poses(4)[slice(*rows)], axis=0)
    np.testing.assert_allclose(drawn, expected, atol=1e-6)


def test_a_twentieth_of_states_is_held_out():
    training, testing = states.split(np.arange(1000)[:, None])
    np.testing.assert_array_equal(training[:, 0], np.arange(950))
    np.testing.assert_array_equal(testing[:, 0], np.arange(950, 1000))


def test_a_truncated_file_is_one_line(tmp_path, poses):
    path = tmp_path / "states.npy"
    np.save(path, poses(100).astype(np.float32))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=f"states.path: cannot read {path}"):
        states.load(str(path))
    with pytest.raises(ValueError, match="cannot read"):
        states.load(str(tmp_path / "nothing.npy"))
    np.save(path, np.zeros((4, 7)))
    with pytest.raises(ValueError, match=r"shape \(4, 7\); states are \[n, 31\]"):
        states.load(str(path))
    np.save(path, np.zeros((1, 31)))
    with pytest.raises(ValueError, match="holds 1 states"):
        states.load(str(path))
