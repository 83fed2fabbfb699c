"""``train --from-run``: the networks of one run in the worlds of another."""

import numpy as np
import pytest
from test_train import TINY, error_of, rows

from mjx_dex import evaluate, lineage, train
from mjx_dex.learning.checkpoints import Checkpoints
from mjx_dex.runs import load_config

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
    """What checkpoint ``step`` of a run has learned, by dotted name."""
    checkpoints = Checkpoints(run / "checkpoints")
    checkpoints._folder._manager.latest_step = lambda: step
    arrays = checkpoints.learned()
    checkpoints.close()
    return arrays


def test_it_continues_with_all_that_was_learned(origin, tuned):
    before, start = learned(origin, 2), learned(tuned, 2)
    assert before.keys() == start.keys()
    for name in before:
        np.testing.assert_array_equal(start[name], before[name], err_msg=name)
    # 32 env steps of the block, and 16 of its own.
    assert [(row["iteration"], row["env_steps"]) for row in rows(tuned)] == [(3, 48)]


def test_it_keeps_the_configuration_but_for_what_is_changed(origin, tuned):
    before, after = load_config(origin), load_config(tuned)
    assert after.object.shape == "prism" and after.task.locked_wrist
    assert (after.network, after.ppo) == (before.network, before.ppo)


def test_it_goes_on_learning(tuned):
    start, end = learned(tuned, 2), learned(tuned, 3)
    moved = [np.abs(end[n] - start[n]).max() for n in start if "parameters" in n]
    assert max(moved) > 0


def test_it_says_what_it_continues(origin, tuned, capsys):
    line = lineage.read(tuned)
    assert line.origin == str(origin)
    assert [(s.run, s.env_steps) for s in line.before] == [("block", 0)]
    assert [(s.run, s.env_steps) for s in line.here] == [("prism", 32)]
    assert lineage.read(origin).origin == ""
    assert evaluate.main([str(tuned), "--untrained"]) == 1
    assert f"with those of {origin}" in capsys.readouterr().err


def test_networks_of_another_size_are_one_line(origin, tmp_path, capsys):
    capsys.readouterr()
    arguments = ["--from-run", str(origin), "--run-dir", str(tmp_path / "x")]
    error = error_of([*arguments, "--network.hidden", "24"], capsys)
    assert f"{origin}: its networks are others: network.hidden 16, not 24" in error


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--from-run", "/none"], "--from-run: there is no run or bundle in /none"),
        (["--from-run", "/none", "--resume"], "give one"),
    ],
)
def test_what_cannot_be_begun_is_one_line(arguments, message, capsys):
    assert message in error_of(arguments, capsys)
