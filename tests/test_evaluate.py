import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_dex import evaluate, grasps, probe, runs, train, view
from mjx_dex.config import replace
from mjx_dex.play import Play
from mjx_dex.train import make_trainer

TRIALS = 48


@pytest.fixture(scope="module")
def brief(config):
    """Goals so easy, and limits so tight, that random actions see every end."""
    return replace(
        config,
        **{
            "task.goal.distribution": "near",
            "task.goal.angles": (1.401, 1.5),
            "task.goal.tolerance": 1.4,
            "task.goal.seconds": 0.4,
            "task.goal.count": 3,
            "task.drop_height": 0.15,
            "bank.size": 16,
            "bank.starting": 4,
        },
    )


@pytest.fixture(scope="module")
def agent(brief):
    trainer = make_trainer(brief)
    return trainer.agent(trainer.init(jax.random.key(0)))


@pytest.fixture(scope="module")
def recorded(brief, agent):
    """Metrics of every step, with where each world's object was and what was asked."""
    play = Play(brief, agent, TRIALS)
    judge = play.env.judge

    def judge_and_record(state, moved, lost):
        next_state, time_step = judge(state, moved, lost)
        record = {"qpos": moved.physics.qpos, "goal": state.goal}
        return next_state, time_step.replace(metrics=time_step.metrics | record)

    play.env.judge = judge_and_record
    steps = play.steps(jax.random.key(5))
    return [
        {name: np.asarray(x) for name, x in next(steps)[2].metrics.items()}
        for _ in range(3 * 5 + 1)
    ]


def angle_between(a, b):
    """[rad] between two unit quaternions."""
    return 2 * np.arccos(min(1.0, abs(float(np.dot(a, b)))))


def recount(recorded, config, world):
    """A world's first episode, slowly: goals, why it ended, steps to each goal.

    The goals that were asked for are taken from the record; whether one was met is not.
    """
    goals, waited, waits = 0, 0, []
    for step in recorded:
        qpos, goal = step["qpos"][world], step["goal"][world]
        waited += 1
        if angle_between(qpos[-4:], goal) < config.task.goal.tolerance:
            goals, waits, waited = goals + 1, [*waits, waited], 0
        if qpos[-5] < config.task.drop_height:
            return goals, "drops", waits
        if goals == config.task.goal.count:
            return goals, "completions", waits
        if waited * 0.08 >= config.task.goal.seconds - 1e-9:
            return goals, "timeouts", waits
    raise AssertionError(f"world {world} has not ended")


def test_counting_agrees_with_a_slow_recount_of_the_trajectories(recorded, brief):
    trials = evaluate.count(recorded, brief, TRIALS)
    expected = [recount(recorded, brief, world) for world in range(TRIALS)]
    assert trials.goals == [goals for goals, _, _ in expected]
    assert trials.ends == [end for _, end, _ in expected]
    waits = sorted(0.08 * n for _, _, waits in expected for n in waits)
    assert sorted(trials.seconds_per_goal) == pytest.approx(waits)


def test_the_record_holds_the_edge_cases(recorded, brief):
    """Otherwise the test above would say less than it seems to."""
    expected = [recount(recorded, brief, world) for world in range(TRIALS)]
    assert {end for _, end, _ in expected} == {"drops", "timeouts", "completions"}
    last_moment = brief.goal_steps
    assert any(last_moment in waits for _, _, waits in expected)
    dropped_with_goal = 0
    for world, (_, end, waits) in enumerate(expected):
        last = recorded[sum(waits) - 1] if waits else None
        if end == "drops" and waits:
            dropped_with_goal += last["qpos"][world][-5] < brief.task.drop_height
    assert dropped_with_goal > 0


def metrics(**flags):
    names = "goals", "lost_contacts", *evaluate.ENDS
    return {name: np.array(flags.get(name, [0, 0])) for name in names}


def test_only_the_first_episode_of_a_world_counts(config):
    steps = [
        metrics(goals=[1, 0]),
        metrics(goals=[1, 0], drops=[1, 0]),
        metrics(goals=[1, 1], lost_contacts=[5, 2]),
        metrics(timeouts=[0, 1]),
    ]
    trials = evaluate.count(steps, config, 2)
    assert trials.goals == [2, 1]
    assert trials.ends == ["drops", "timeouts"]
    assert trials.seconds_per_goal == pytest.approx([0.08, 0.08, 0.24])
    assert trials.lost_contacts == 1


def test_the_interval_holds_the_mean_as_often_as_it_says():
    """Samples of a known distribution: 95% of intervals hold its mean, within 4
    standard errors (and a little, for the bootstrap is narrow at n = 100)."""
    rng = np.random.default_rng(1)
    held, repeats = 0, 300
    for _ in range(repeats):
        goals = rng.poisson(5.0, 100).tolist()
        trials = evaluate.Trials("native", goals, ["drops"] * 100, [], 0)
        low, high = trials.interval(resamples=500)
        held += low <= 5.0 <= high
    error = np.sqrt(0.95 * 0.05 / repeats)
    assert held / repeats == pytest.approx(0.95, abs=4 * error + 0.01)


def test_the_most_likely_action_is_the_same_for_every_key(brief, agent):
    play = Play(brief, agent, 4, most_likely=True)
    playing = play.start(jax.random.key(0))
    one, _ = play.step(playing, jax.random.key(1))
    two, _ = play.step(playing, jax.random.key(2))
    chosen = [x.state.worlds.memory.smoothed_action for x in (one, two)]
    np.testing.assert_array_equal(*chosen)
    assert jnp.isfinite(chosen[0]).all()


SMALL = [
    *("--config", "quickstart", "--engine", "native", "--num-envs", "4"),
    *("--bank.size", "4", "--bank.starting", "2", "--task.start-steps", "3"),
    *("--network.hidden", "16", "--network.memory", "8", "--ppo.horizon", "4"),
    *("--ppo.chunk", "2", "--ppo.minibatch-size", "8", "--max-env-steps", "32"),
]
TIGHT = ["--trials", "6", "--task.goal.seconds", "0.4"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    assert train.main([*SMALL, "--run-dir", str(folder)]) == 0
    return folder


def test_a_table_is_the_same_twice(run_dir, capsys):
    tables = []
    for _ in range(2):
        capsys.readouterr()
        assert evaluate.main([str(run_dir), *TIGHT]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]
    assert "limit 0.4 s per goal" in tables[0] and "cap 50" in tables[0]
    assert "trained for 32 env steps" in tables[0]


def test_the_papers_limits_are_the_default(run_dir):
    _, command = runs.from_command_line(
        evaluate.EvaluateCommand, [str(run_dir)], evaluate.__doc__
    )
    assert command.task.goal.seconds == 80 and command.task.goal.count == 50
    assert command.trials == 100


@pytest.mark.parametrize("command", [evaluate, grasps, probe, view])
def test_help_needs_no_run_and_a_call_without_one_is_explained(command, capsys):
    with pytest.raises(SystemExit) as exited:
        command.main(["--help"])
    assert exited.value.code == 0
    assert "--object.shape" in capsys.readouterr().out
    assert command.main([]) == 1
    name = command.__name__
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: give a run's folder: python -m {name} RUN")


def test_another_engine_has_a_column_beside_native(run_dir, tmp_path, capsys):
    saved, picture = tmp_path / "new" / "e.json", tmp_path / "other" / "e.png"
    files = ["--json", str(saved), "--plot", str(picture)]
    capsys.readouterr()
    assert evaluate.main([str(run_dir), *TIGHT, "--engine", "warp", *files]) == 0
    assert "| | warp | native (sim-to-sim) |" in capsys.readouterr().out
    content = json.loads(saved.read_text())
    assert [trials["engine"] for trials in content["engines"]] == ["warp", "native"]
    assert all(len(trials["goals"]) == 6 for trials in content["engines"])
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize(
    "change, message",
    [
        (["--network.hidden", "24"], r"another configuration: parameters.*24"),
        (["--task.policy-inputs", "fingertips"], r"another configuration: parameters"),
        (["--task.goal.count", "many"], "--task.goal.count"),
        (["--randomization.preset", "some"], "--randomization.preset"),
    ],
)
def test_what_does_not_fit_is_said(run_dir, change, message, capsys):
    try:
        status = evaluate.main([str(run_dir), *change])
    except SystemExit as exited:  # tyro's way
        status = exited.code
    assert status != 0
    assert re.search(message, capsys.readouterr().err)


def test_worlds_may_be_other_than_those_of_training(run_dir, capsys):
    other = ["--object.shape", "prism", "--task.locked-wrist"]
    other += ["--randomization.preset", "no_physics"]
    capsys.readouterr()
    assert evaluate.main([str(run_dir), *TIGHT, *other]) == 0
    said = capsys.readouterr().out
    for part in ("object prism", "wrist locked", "randomization no_physics"):
        assert part in said
