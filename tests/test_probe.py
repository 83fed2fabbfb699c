import json

import jax
import numpy as np
import pytest
from test_train import TINY, error_of

from mjx_dex import probe, settings, train
from mjx_dex.config import Config, replace
from mjx_dex.play import Play
from mjx_dex.train import make_trainer

N = 2000


def known(noise, features, seed=0):
    """Features of which one tells a normal number up to noise, and that number."""
    rng = np.random.default_rng(seed)
    number = rng.normal(size=(N, 1))
    x = rng.normal(size=(N, features))
    x[:, 3] = 5.0 + 0.01 * (number[:, 0] + noise * rng.normal(size=N))
    return x, number


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_accuracy_is_what_geometry_says(noise):
    """Two normal numbers at an angle a agree in sign with probability 1 - a / pi.

    Within 4 standard errors, and what 20 features of nothing may cost."""
    x, number = known(noise, features=20)
    expected = 1 - np.arctan(noise) / np.pi
    error = np.sqrt(expected * (1 - expected) / N)
    (found,) = probe.accuracy(x, probe.bigger(number))
    assert found == pytest.approx(expected, abs=4 * error + 0.02)


def test_nothing_is_known_from_noise_however_many_features():
    """Where a fit that were not held out would know half of it."""
    rng = np.random.default_rng(1)
    x, sides = rng.normal(size=(N, 500)), rng.random((N, 4)) < 0.5
    found = probe.accuracy(x, sides)
    np.testing.assert_allclose(found, 0.5, atol=4 * 0.5 / np.sqrt(N))


def test_each_parameter_is_asked_after_on_its_own():
    x, number = known(0.0, features=10)
    noise = np.random.default_rng(2).normal(size=(N, 2))
    shot = probe.Snapshot(5.0, x, x[:, :3], {"told": number, "untold": noise})
    told, untold = probe.ask(shot)
    assert (told.parameter, told.coordinates, told.episodes) == ("told", 1, N)
    assert told.memory > 0.97 and told.observation < 0.56
    assert untold.coordinates == 2 and untold.memory < 0.56


def test_a_rare_flag_is_not_known_from_noise():
    """Where saying that it is not set is right nine times in ten."""
    rng = np.random.default_rng(3)
    x, sides = rng.normal(size=(N, 20)), rng.random((N, 1)) < 0.1
    (found,) = probe.accuracy(x, sides)
    assert found == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(0.1 * N) / 2)
    (found,) = probe.accuracy(np.c_[x, sides], sides)
    assert found > 0.95


def test_bigger_than_the_median_are_half_and_true_is_true():
    values = np.array([[1.0], [2.0], [3.0], [10.0]])
    assert probe.bigger(values).ravel().tolist() == [False, False, True, True]
    flags = np.array([[1.0], [1.0], [1.0], [0.0]])
    assert probe.bigger(flags).ravel().tolist() == [True, True, True, False]


@pytest.fixture(scope="module")
def shots(config):
    randomized = replace(config, **{"randomization.preset": "all"})
    trainer = make_trainer(randomized)
    agent = trainer.agent(trainer.init(jax.random.key(0)))
    play = Play(randomized, agent, 64)
    return play, probe.snapshots(play, (0.0, 0.24))


def test_snapshots_are_of_worlds_in_their_first_episode(shots):
    play, (early, late) = shots
    assert early.memory.shape[1] == 2 * play.config.network.memory
    assert len(late.memory) <= len(early.memory) <= 64
    for shot in (early, late):
        sizes = shot.parameters["object_size"]
        assert sizes.shape == (len(shot.memory), 1)
        # Table 1, and no two worlds alike.
        assert sizes.min() >= 0.95 and sizes.max() <= 1.05
        assert len(np.unique(sizes)) == len(sizes)
        assert set(np.unique(shot.parameters["action_delay"])) == {0.0, 1.0}
    assert np.isin(
        late.parameters["object_size"], early.parameters["object_size"]
    ).all()


def test_memory_is_what_the_policy_had_after_its_observation(shots):
    play, (early, _) = shots
    before, _, _ = next(play.steps(jax.random.key(play.config.seed)))
    np.testing.assert_array_equal(early.observation, before.observation.policy)
    carry, _ = play._agent.act(
        play._agent.networks.policy.initial_carry(),
        before.observation.policy[0],
        np.array(True),
    )
    np.testing.assert_allclose(early.memory[0], np.concatenate(carry), atol=1e-5)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert train.main([*TINY, "--run-dir", str(folder), "--max-env-steps", "16"]) == 0
    return folder


def test_a_run_is_asked_and_answers_in_a_table(run_dir, tmp_path, capsys):
    saved, picture = tmp_path / "probe.json", tmp_path / "probe.png"
    options = ["--randomization.preset", "all", "--episodes", "64"]
    options += ["--seconds", "0.08", "0.16", "--json", str(saved)]
    capsys.readouterr()
    assert probe.main([str(run_dir), *options, "--plot", str(picture)]) == 0
    said = capsys.readouterr().out
    assert "| object_size | 1 |" in said and "randomization all" in said
    answers = json.loads(saved.read_text())
    assert {answer["seconds"] for answer in answers} == {0.08, 0.16}
    assert all(0 <= answer["memory"] <= 1 for answer in answers)
    assert picture.stat().st_size > 10_000


def test_without_randomization_there_is_nothing_to_ask(run_dir, capsys):
    capsys.readouterr()
    error = error_of([str(run_dir), "--episodes", "64"], capsys, probe)
    assert "nothing is randomized" in error and "--randomization.preset" in error


def test_without_memory_there_is_nobody_to_ask(tmp_path, capsys):
    feed_forward = replace(Config(), **{"network.policy_memory": "none"})
    settings.save(feed_forward, tmp_path / "config.yaml")
    assert "has no memory" in error_of([str(tmp_path)], capsys, probe)
