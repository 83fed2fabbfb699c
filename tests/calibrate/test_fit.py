"""One finger of a hidden hand is found again, from what the bridge records of it."""

import dataclasses
import json

import mujoco
import numpy as np
import pytest

from mjx_dex.calibrate import __main__ as command
from mjx_dex.calibrate import factors, fit, recordings, replay, report
from mjx_dex.calibrate.config import CalibrateConfig, FactorConfig
from mjx_dex.calibrate.hidden import HiddenCommand, hidden_draw
from mjx_dex.config import HandConfig, PhysicsConfig
from mjx_dex.hand import build_hand, calibration
from robot_bridge import replay as bridge_replay
from robot_bridge import run

PART = "FF"
CONFIG = CalibrateConfig(iterations=8)


@pytest.fixture(scope="module")
def nominal():
    return calibration.load_calibration(calibration.CALIBRATED)


@pytest.fixture(scope="module")
def truth():
    return hidden_draw(HiddenCommand(seed=1))


@pytest.fixture(scope="module")
def excited(careful_path, nominal, truth, tmp_path_factory):
    """A recording of the first finger of a hidden hand, noisy and late."""
    folder = tmp_path_factory.mktemp("excited")
    (folder / "hidden.json").write_text(report.as_json(factors.apply(truth, nominal)))
    arguments = ["--transport", "lockstep", "--excite", PART, "--imperfections"]
    arguments += ["noisy", "--calibration", str(folder / "hidden.json")]
    file = folder / "excite.mcap"
    assert run.main([str(careful_path), *arguments, "--record", str(file)]) == 0
    return file


@pytest.fixture(scope="module")
def recording(excited):
    return recordings.read(excited)


@pytest.fixture(scope="module")
def track(recording):
    return replay.make_track([recording], CONFIG.timestep, CONFIG.windows)


@pytest.fixture(scope="module")
def problem(track):
    (problem,) = fit.make_problems(track, replay.Replay(track, CONFIG), CONFIG)
    return problem


@pytest.fixture(scope="module")
def squares(problem):
    return fit.fit(problem)


def test_an_excitation_is_replayed_bit_for_bit(excited):
    found = bridge_replay.replay(excited)
    assert found.ticks > 300
    assert found.different == 0


def test_an_excitation_reaches_both_ends_of_every_joint(recording, truth):
    hand = build_hand(HandConfig(), None, PhysicsConfig())
    for k, name in enumerate(recordings.JOINTS):
        if name[3:5] != PART:
            continue
        seen = np.ptp(recording.angles[:, k])
        assert seen > 0.6 * np.ptp(hand.ctrl_range[recordings.JOINT_ACTUATORS[k]]) / (
            2 if name[-1] in "12" else 1
        )


def test_an_excitation_is_slow_and_within_ranges(recording):
    hand = build_hand(HandConfig(), None, PhysicsConfig())
    steps = np.abs(np.diff(recording.targets, axis=0))
    assert steps.max() <= 2.0 * 0.08 + 1e-6
    low, high = hand.ctrl_range.T
    assert (recording.targets >= low - 1e-6).all()
    assert (recording.targets <= high + 1e-6).all()


def test_windows_to_test_with_share_nothing_with_the_others(track):
    length = round(CONFIG.windows.seconds / CONFIG.timestep)
    tested, fitted = track.starts[track.is_test], track.starts[~track.is_test]
    assert len(tested) > 5
    assert len(fitted) > 20
    assert np.abs(tested[:, None] - fitted).min() >= length


def test_a_replay_is_mujocos(problem, track, truth):
    """Window by window, in MuJoCo's own loop with a hand from the file."""
    windows = problem.train[[0, 17]]
    draws = type(truth)(**{name: x[None] for name, x in vars(truth).items()})
    found = problem.replay(draws, np.array([0.016]), windows)
    hand = build_hand(HandConfig(), None, PhysicsConfig())
    model = hand.model
    for name, values in factors.model_fields(truth, model).items():
        getattr(model, name)[...] = values
    pace = np.exp(hand.log_backlash)
    pace *= np.stack([truth.backlash_closing, truth.backlash_opening], 1)
    half = np.ptp(hand.ctrl_range, axis=1) / 2
    for n, window in enumerate(windows):
        start, slack = track.starts[window], np.zeros(20)
        data = mujoco.MjData(model)
        data.qpos[:] = track.smooth_angles[start]
        data.qvel[:] = track.velocities[start]
        for k in range(-125, 125):
            # 16 ms are two steps.
            target = track.targets[start + k - 2]
            angles = data.qpos if k >= 0 else track.smooth_angles[start + k]
            angles = hand.actuator_joints @ angles
            action = (target - angles) / half
            rate = np.where(action < 0, pace[:, 0], pace[:, 1]) * 0.008
            moved = np.abs(action) * rate
            share = np.clip(np.abs(np.sign(action) - slack) / (moved + 1e-12), 0, 1)
            share = np.where(action == 0, 0, share)
            slack = np.clip(slack + np.sign(action) * moved, -1, 1)
            if k >= 0:
                data.ctrl[:] = angles + (1 - share) * action * half
                mujoco.mj_step(model, data)
            if k + 1 in (31, 62, 94, 125):
                at = [31, 62, 94, 125].index(k + 1)
                np.testing.assert_allclose(found[0, n, at], data.qpos, atol=1e-6)


def test_the_error_falls_five_times_on_windows_that_were_held_out(squares):
    before, after = report.overall([squares])
    assert before > 5 * after
    assert not squares.stuck
    assert squares.latency == pytest.approx(0.016, abs=0.008)


def test_what_is_told_is_within_a_tenth_and_the_rest_is_named(squares, truth):
    off = np.abs(squares.off(truth))
    assert squares.is_told.sum() > 5
    assert off[squares.is_told].max() < 0.1
    text = report.text([squares])
    for entry, told in zip(squares.problem.entries, squares.is_told, strict=True):
        (line,) = [x for x in text.splitlines() if x.startswith(f"  {entry.factor}:")]
        name = recordings_name(entry)
        assert (name in line.split(": ")[1].split(", ")) != told


def recordings_name(entry):
    return factors.FACTORS[entry.factor][entry.index].removeprefix("rh_")


def test_deviations_are_as_large_as_the_errors(squares, truth):
    """Of 45 values few are off by more than three of their deviations."""
    off = squares.off(truth) * squares.scales / squares.deviations
    assert np.mean(np.abs(off) < 3) > 0.85


def test_coordinate_descent_gains_with_every_sweep(problem):
    config = dataclasses.replace(CONFIG, method="coordinate_descent")
    found = fit.fit(dataclasses.replace(problem, config=config))
    assert (np.diff(found.errors) <= 0).all()
    before, after = report.overall([found])
    assert before > 2 * after


def test_a_fit_that_cannot_get_better_says_so_and_keeps_its_start(problem):
    """All that is free is a margin, which no window feels."""
    chosen = {
        name: FactorConfig(free=name == "joint_margin") for name in vars(CONFIG.factors)
    }
    config = dataclasses.replace(
        CONFIG,
        factors=dataclasses.replace(CONFIG.factors, **chosen),
        latency=(0.016, 0.01601),
    )
    for method in ("least_squares", "coordinate_descent"):
        stuck = dataclasses.replace(
            problem,
            config=dataclasses.replace(config, method=method),
            entries=factors.entries_of(PART, config),
        )
        found = fit.fit(stuck)
        assert "nothing better" in found.stuck
        assert report.overall([found])[1] <= 1.01 * report.overall([found])[0]
        assert not found.is_told.any()


def test_the_command_writes_a_hand_that_is_built(excited, nominal, tmp_path, capsys):
    out = tmp_path / "mine.json"
    arguments = [str(excited), "--out", str(out), "--iterations", "2"]
    truth = excited.parent / "hidden.json"
    assert command.main([*arguments, "--truth", str(truth)]) == 0
    printed = capsys.readouterr().out
    assert f"--hand.calibration {out}" in printed
    assert "within 10%" in printed
    assert out.with_suffix(".png").stat().st_size > 10_000
    fitted = json.loads(out.read_text())
    assert fitted["joints"]["MFJ2"] == nominal["joints"]["MFJ2"]
    assert fitted["joints"]["FFJ2"] != nominal["joints"]["FFJ2"]
    model = build_hand(HandConfig(calibration=str(out)), None, PhysicsConfig()).model
    damping = model.dof_damping[model.joint("robot0:FFJ2").dofadr[0]]
    assert damping == pytest.approx(fitted["joints"]["FFJ2"]["damping"])
    assert set(fitted["fit"]["joint_damping rh_FFJ3"]) == {"z", "deviation", "told"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a recording"),
        (["{}", "--hand.calibration", "gymnasium"], "no couplings"),
        (["{}", "--hand.calibration", "none.json"], "cannot read none.json"),
        (["{}", "--windows.seconds", "60"], "too short"),
        (["{}", "--windows.moving", "9"], "nothing moves"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message, excited, capsys):
    arguments = [argument.format(excited) for argument in arguments]
    assert command.main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
