"""``train --from-run``: the networks of one run in the worlds of another."""

import jax
import numpy as np
import pytest
from test_train import TINY, error_of, rows

from mjx_dex import evaluate, train
from mjx_dex.learning.checkpoints import LEARNED, Checkpoints
from mjx_dex.runs import load_config
from mjx_dex.train import make_trainer

PRISM = ["--object.shape", "prism", "--task.locked-wrist"]


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A run of two iterations with the block."""
    folder = tmp_path_factory.mktemp("runs") / "block"
    assert train.main([*TINY, "--run-dir", str(folder), "--max-env-steps", "32"]) == 0
    return folder


@pytest.fixture(scope="module")
def tuned(origin, tmp_path_factory):
    """A run that begins with its networks, and makes one iteration with the prism."""
    folder = tmp_path_factory.mktemp("runs") / "prism"
    arguments = ["--from-run", str(origin), "--run-dir", str(folder), *PRISM]
    assert train.main([*arguments, "--max-env-steps", "16"]) == 0
    return folder


def learned(run, step):
    """What checkpoint ``step`` of a run holds, without its worlds."""
    config = load_config(run)
    trainer = make_trainer(config)
    checkpoints = Checkpoints(run / "checkpoints")
    checkpoints._folder._manager.latest_step = lambda: step
    like = jax.eval_shape(trainer.init, jax.random.key(0))
    learner = checkpoints.restore_learned(trainer, like)
    checkpoints.close()
    return {name: getattr(learner, name) for name in LEARNED}


def test_it_begins_with_all_that_was_learned_and_counts_anew(origin, tuned):
    before, start = learned(origin, 2), learned(tuned, 0)
    assert int(before.pop("iteration")) == 2 and int(start.pop("iteration")) == 0
    jax.tree.map(np.testing.assert_array_equal, before, start)
    assert [row["env_steps"] for row in rows(tuned)] == [16]


def test_it_keeps_the_configuration_but_for_what_is_changed(origin, tuned):
    before, after = load_config(origin), load_config(tuned)
    assert after.object.shape == "prism" and after.task.locked_wrist
    assert (after.network, after.ppo) == (before.network, before.ppo)


def test_it_goes_on_learning(tuned):
    start, end = learned(tuned, 0)["parameters"], learned(tuned, 1)["parameters"]
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), start, end)
    assert max(jax.tree.leaves(moved)) > 0


def test_it_says_what_it_began_with(origin, tuned, capsys):
    assert (tuned / "origin.txt").read_text() == f"{origin}\n"
    assert not (origin / "origin.txt").exists()
    assert evaluate.main([str(tuned), "--untrained"]) == 1
    assert f"began with the networks of {origin}" in capsys.readouterr().err


def test_networks_of_another_size_are_one_line(origin, tmp_path, capsys):
    capsys.readouterr()
    arguments = ["--from-run", str(origin), "--run-dir", str(tmp_path / "x")]
    error = error_of([*arguments, "--network.hidden", "24"], capsys)
    assert str(origin) in error and "another configuration: parameters" in error


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--from-run", "/none"], "--from-run: there is no run in /none"),
        (["--from-run", "/none", "--resume"], "give one"),
    ],
)
def test_what_cannot_be_begun_is_one_line(arguments, message, capsys):
    assert message in error_of(arguments, capsys)
