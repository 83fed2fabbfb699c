import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_dex.checkpoints import CheckpointError
from mjx_dex.config import replace
from mjx_dex.learning import resuming
from mjx_dex.learning.checkpoints import Checkpoints
from mjx_dex.train import make_trainer

MOVING = {
    "randomization.preset": "extras",
    "randomization.adaptive.enabled": True,
    "randomization.adaptive.episodes": 1,
    "randomization.adaptive.widen_at": 0.0,
    "randomization.adaptive.narrow_at": 0.0,
    "task.goal.seconds": 0.16,
}
"""All there is to save: the whole menu, and ranges that move all the time."""


@pytest.fixture(scope="module")
def trainer(config):
    return make_trainer(replace(config, **MOVING))


@pytest.fixture(scope="module")
def key(config):
    return jax.random.key(config.seed)


def iterate(trainer, learner, times):
    for _ in range(times):
        learner, metrics = trainer.iterate(learner)
    return learner, metrics


def plain(learner):
    return jax.tree.map(
        lambda x: np.asarray(
            jax.random.key_data(x)
            if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
            else x
        ),
        learner,
    )


def saved(trainer, key, folder, iterations):
    """A folder with a checkpoint after each of so many iterations."""
    checkpoints = Checkpoints(folder)
    learner = trainer.init(key)
    for _ in range(iterations):
        learner, _ = trainer.iterate(learner)
        checkpoints.save(trainer, learner)
    checkpoints.close()
    return folder


def restored(trainer, folder):
    checkpoints = Checkpoints(folder)
    try:
        return checkpoints.restore(trainer)
    finally:
        checkpoints.close()


def test_a_resumed_run_equals_a_straight_one_bit_for_bit(trainer, key, tmp_path):
    straight, straight_metrics = iterate(trainer, trainer.init(key), 4)
    saved(trainer, key, tmp_path, 2)
    resumed, metrics = iterate(trainer, restored(trainer, tmp_path), 2)
    jax.tree.map(np.testing.assert_array_equal, plain(resumed), plain(straight))
    jax.tree.map(np.testing.assert_array_equal, metrics, straight_metrics)
    assert (resumed.actors.env_state.adaptive.levels > 0).any()


def test_only_the_last_few_are_kept(trainer, key, tmp_path):
    saved(trainer, key, tmp_path, 5)
    assert sorted(int(p.name) for p in tmp_path.iterdir()) == [3, 4, 5]


def test_no_checkpoint_is_said_so(trainer, key, tmp_path):
    with pytest.raises(CheckpointError, match=f"no checkpoint in {tmp_path}"):
        restored(trainer, tmp_path)


def test_any_truncated_file_is_named(trainer, key, tmp_path):
    saved(trainer, key, tmp_path, 1)
    for path in [p for p in (tmp_path / "1").rglob("*") if p.is_file()]:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError) as error:
            restored(trainer, tmp_path)
        assert f"cannot read checkpoint {tmp_path}/1" in str(error.value)
        if path.name != "checksums.json":
            assert f"damaged or missing: {path.relative_to(tmp_path / '1')}" in str(
                error.value
            )
        path.write_bytes(whole)
    assert int(restored(trainer, tmp_path).iteration) == 1


def test_a_checkpoint_of_another_network_is_said_so(config, trainer, key, tmp_path):
    saved(trainer, key, tmp_path, 1)
    other = make_trainer(replace(config, **{"network.hidden": 24}))
    assert restored(other, tmp_path) is None
    with pytest.raises(ValueError, match=r"another configuration.*\(16,\).*24"):
        resuming.resume(other, Checkpoints(tmp_path).learned(), key)


def test_another_optimizer_begins_anew_and_the_networks_do_not(trainer, key, tmp_path):
    saved(trainer, key, tmp_path, 1)
    arrays = Checkpoints(tmp_path).learned()
    name = next(name for name in arrays if name.startswith("optimizer_state."))
    arrays[name] = np.zeros(3)
    _, carried, anew = resuming.resume(trainer, arrays, key)
    assert "policy" in carried and anew == ("optimizer",)


def test_clipping_of_gradients_may_begin_and_end(config, trainer, key, tmp_path):
    """Adam's moments are the same ones."""
    saved(trainer, key, tmp_path, 1)
    assert config.ppo.max_gradient_norm is not None
    other = make_trainer(replace(config, **MOVING, **{"ppo.max_gradient_norm": None}))
    moments, others = (restored(x, tmp_path).optimizer_state for x in (trainer, other))
    jax.tree.map(np.testing.assert_array_equal, moments, others)


def test_environments_of_another_kind_are_not_restored(trainer, key, tmp_path):
    saved(trainer, key, tmp_path, 1)
    assert restored(trainer, tmp_path) is not None
    other = Checkpoints(tmp_path, kind=np.ones(32, np.uint8))
    assert other.restore(trainer) is None
    other.close()


@pytest.mark.parametrize(("part", "is_whole"), [("environments", 0), ("learned", 1)])
def test_environments_alone_may_be_left_out(trainer, key, tmp_path, part, is_whole):
    saved(trainer, key, tmp_path, 1)
    shutil.rmtree(tmp_path / "1" / part)
    if not is_whole:
        assert restored(trainer, tmp_path) is None
        return
    with pytest.raises(CheckpointError, match="damaged or missing: learned/"):
        restored(trainer, tmp_path)


def test_damaged_environments_keep_nobody_from_what_was_learned(trainer, key, tmp_path):
    saved(trainer, key, tmp_path, 1)
    before = Checkpoints(tmp_path).learned()
    for path in (tmp_path / "1/environments").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1])
    after = Checkpoints(tmp_path).learned()
    assert before.keys() == after.keys()
    with pytest.raises(CheckpointError, match="delete environments there to continue"):
        restored(trainer, tmp_path)
    shutil.rmtree(tmp_path / "1/environments")
    assert restored(trainer, tmp_path) is None


KILLED_WHILE_SAVING = """
import os, signal, sys
import subprocess
import sys

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

manager = ocp.CheckpointManager(sys.argv[1])
tree = {"x": jnp.arange(4_000_000.0)}
manager.save(1, args=ocp.args.StandardSave(tree))
manager.wait_until_finished()
manager.save(2, args=ocp.args.StandardSave(tree))
# The folder is made in the background.
while not any(name.startswith("2") for name in os.listdir(sys.argv[1])):
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_save_that_was_killed_leaves_the_one_before(trainer, key, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING, tmp_path])
    assert done.returncode == -9
    assert any(p.name.startswith("2.") for p in tmp_path.iterdir()), "not in a save"
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() == 1
    # And the run can go on saving where the dead one was.
    learner, _ = iterate(trainer, trainer.init(key), 2)
    checkpoints.save(trainer, learner)
    assert checkpoints.latest() == 2
    checkpoints.close()


def test_a_full_disk_is_reported(trainer, key, tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    learner, _ = iterate(trainer, trainer.init(key), 1)
    checkpoints.save(trainer, learner)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._folder._manager, "save", full)
    learner, _ = iterate(trainer, learner, 1)
    with pytest.raises(CheckpointError, match=r"No space left.*the latest is 1"):
        checkpoints.save(trainer, learner)
    checkpoints.close()


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from mjx_dex.checkpoints import ONLY, CheckpointFolder
folder = CheckpointFolder(Path(sys.argv[1]))
arrays = np.random.default_rng(0).normal(size=(40, 30_000)).astype(np.float32)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    folder.save(0, {ONLY: {str(k): x for k, x in enumerate(arrays)}})
except Exception as error:
    print(f"error: {error}", file=sys.stderr)
"""
"""Saves where no file may become large: the system refuses a write, as on a full disk.
"""


def test_a_write_that_fails_is_one_line_and_leaves_nothing(tmp_path):
    """Orbax's threads fail one by one, and each would print pages."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: cannot save checkpoint {tmp_path}/0: ")
    assert line.endswith("there is no other")
    assert not [x for x in tmp_path.iterdir() if x.name.isdigit()]


def test_nan_in_one_world_is_counted_and_does_not_spread(trainer, key):
    learner, _ = iterate(trainer, trainer.init(key), 1)
    worlds = learner.actors.env_state.worlds
    qpos = worlds.physics.qpos.at[0, 1, 0].set(jnp.nan)
    broken = learner.actors.env_state.replace(
        worlds=worlds.replace(physics=worlds.physics.replace(qpos=qpos))
    )
    learner = learner.replace(actors=learner.actors.replace(env_state=broken))
    learner, metrics = iterate(trainer, learner, 1)
    assert int(metrics["broken_worlds"]) == 1
    finite = jax.tree.map(lambda x: bool(np.isfinite(x).all()), plain(learner))
    assert all(jax.tree.leaves(finite))
