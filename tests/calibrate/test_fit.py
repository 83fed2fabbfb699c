"""One finger of a hidden hand is found again, from what the bridge records of it.

The hidden hand differs in damping and slack, which alone are free: what all 264 values
gain is a measurement, not a test.
"""

import dataclasses
import json
import shlex

import mujoco
import numpy as np
import pytest

from mjx_dex.calibrate import __main__ as command
from mjx_dex.calibrate import factors, fit, recordings, replay, report
from mjx_dex.calibrate.config import (
    CalibrateConfig,
    FactorConfig,
    FactorsConfig,
    WindowsConfig,
)
from mjx_dex.calibrate.hidden import HiddenCommand, hidden_draw
from mjx_dex.config import HandConfig, PhysicsConfig
from mjx_dex.hand import build_hand, calibration
from robot_bridge import replay as bridge_replay
from robot_bridge import run

PART = "FF"
FREE = ("joint_damping", "backlash_closing", "backlash_opening")
FIXED = [name for name in factors.FACTORS if name not in FREE]
CONFIG = CalibrateConfig(
    iterations=6,
    first_sweeps=3,
    factors=dataclasses.replace(
        FactorsConfig(), **{name: FactorConfig(free=False) for name in FIXED}
    ),
    windows=WindowsConfig(stride=0.5),
)
ARGUMENTS = [
    *(f"--factors.{name.replace('_', '-')}.no-free" for name in FIXED),
    "--windows.stride=0.5",
    "--first-sweeps=2",
]


@pytest.fixture(scope="module")
def nominal():
    return calibration.load_calibration(calibration.CALIBRATED)


@pytest.fixture(scope="module")
def truth():
    drawn = hidden_draw(HiddenCommand(seed=1))
    return factors.nominal_draw().replace(
        **{name: getattr(drawn, name) for name in FREE}
    )


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
    problems = fit.make_problems(track, CONFIG)
    return next(problem for problem in problems if problem.part == PART)


def resting(track, joint, target):
    """A track of a hand that rests, one joint and its target at other angles."""
    angles, targets = np.zeros_like(track.angles), np.zeros_like(track.targets)
    angles[:, joint] = joint_angle = 0.5
    targets[:, recordings.JOINT_ACTUATORS[joint]] = joint_angle + target
    return dataclasses.replace(
        track,
        angles=angles,
        smooth_angles=angles,
        velocities=0 * angles,
        targets=targets,
    )


@pytest.mark.parametrize(
    ("pull", "known"), [(0.0, False), (0.004, False), (0.1, True), (-0.1, True)]
)
def test_slack_is_known_where_the_target_is_away(pull, known, track):
    joint = recordings.JOINTS.index("rh_FFJ3")
    own = recordings.JOINT_ACTUATORS[joint]
    # 0.1 rad of 0.8 take up 1/8 of 70 (or 4) units in a second.
    player = replay.Replay(resting(track, joint, pull), PART, CONFIG)
    doubt = player.doubt(0.01, 0.005)[:, own]
    assert (doubt[track.starts > 40 / CONFIG.timestep] < 0.01).all() == known
    # Nobody knows what was before a recording.
    second = int(track.starts[-2])
    begins = np.isin(np.arange(len(track.angles)), [0, second])
    again = dataclasses.replace(resting(track, joint, pull), begins=begins)
    doubt = replay.Replay(again, PART, CONFIG).doubt(0.01, 0.005)[:, own]
    np.testing.assert_allclose(doubt[[0, -2]], 2.0, atol=0.01)


def test_fingers_that_touch_are_not_replayed_alone(track):
    first, middle = (recordings.JOINTS.index(f"rh_{f}J4") for f in ("FF", "MF"))
    angles = np.zeros_like(track.angles)
    half = len(angles) // 2
    angles[half:, first], angles[half:, middle] = -0.35, 0.35
    found = replay.touches(dataclasses.replace(track, smooth_angles=angles), CONFIG)
    length = round(CONFIG.windows.seconds / CONFIG.timestep)
    together = track.starts + length > half
    expected = together[:, None] & [True, True, False, False, False]
    np.testing.assert_array_equal(found, expected)


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
    # The last command holds the hand where it was measured.
    steps = np.abs(np.diff(recording.targets[:-3], axis=0))
    assert steps.max() <= 2.0 * 0.08 + 1e-6
    low, high = hand.ctrl_range.T
    # It begins where the hand is, which may be beyond an end.
    inside = recording.targets[30:-3]
    assert (inside >= low - 1e-6).all()
    assert (inside <= high + 1e-6).all()


def test_windows_to_test_with_share_nothing_with_the_others(track):
    length = round(CONFIG.windows.seconds / CONFIG.timestep)
    tested, fitted = track.starts[track.is_test], track.starts[~track.is_test]
    assert len(tested) > 5
    assert len(fitted) > 20
    assert np.abs(tested[:, None] - fitted).min() >= length


def test_a_replay_is_mujocos(problem, track):
    """Window by window, in MuJoCo's own loop, of a hand that differs in everything."""
    everything = hidden_draw(HiddenCommand(seed=2))
    windows = problem.train[[0, 17]]
    draws = type(everything)(**{name: x[None] for name, x in vars(everything).items()})
    found = problem.replay(draws, np.array([0.016]), windows)
    hand = build_hand(HandConfig(), None, PhysicsConfig())
    model = hand.model
    for name, values in factors.model_fields(everything, model).items():
        getattr(model, name)[...] = values
    pace = np.exp(hand.log_backlash)
    pace *= np.stack([everything.backlash_closing, everything.backlash_opening], 1)
    half = np.ptp(hand.ctrl_range, axis=1) / 2
    for n, window in enumerate(windows):
        start, slack = track.starts[window], np.zeros(20)
        data = mujoco.MjData(model)
        data.qpos[:] = track.smooth_angles[start]
        data.qvel[:] = track.velocities[start]
        for k in range(start + 125):
            # 16 ms are two steps.
            target = track.targets[max(k - 2, 0)]
            angles = data.qpos if k >= start else track.smooth_angles[k]
            angles = hand.actuator_joints @ angles
            action = (target - angles) / half
            rate = np.where(action < 0, pace[:, 0], pace[:, 1]) * 0.008
            moved = np.abs(action) * rate
            share = np.abs(np.sign(action) - slack) / np.maximum(moved, 1e-12)
            share = np.where(action == 0, 0, np.clip(share, 0, 1))
            slack = np.clip(slack + np.sign(action) * moved, -1, 1)
            if k >= start:
                data.ctrl[:] = angles + (1 - share) * action * half
                mujoco.mj_step(model, data)
            if k + 1 - start in (31, 62, 94, 125):
                at = [31, 62, 94, 125].index(k + 1 - start)
                # The wrist bears less than all fingers, and is not fitted here.
                own = np.isin(problem.replay.joints, problem.joints)
                expected = data.qpos[problem.joints]
                np.testing.assert_allclose(found[0, n, at, own], expected, atol=1e-3)


def test_the_error_falls_on_windows_that_were_held_out(squares):
    before, after = report.overall([squares])
    assert before > 3 * after
    assert squares.latency == pytest.approx(0.02, abs=0.008)


def test_what_is_told_is_within_a_tenth_and_the_rest_is_named(squares, truth):
    off = np.abs(squares.off(truth))
    assert squares.is_told.sum() >= 4
    assert off[squares.is_told].max() < 0.1
    lines = [line.strip().split(": ") for line in report.text([squares]).splitlines()]
    listed = {line[0]: line[1].split(", ") for line in lines if line[0] in FREE}
    for entry, told in zip(squares.problem.entries, squares.is_told, strict=True):
        name = factors.FACTORS[entry.factor][entry.index].removeprefix("rh_")
        assert (name in listed.get(entry.factor, [])) != told


class Straight(fit.Problem):
    """One value moves every angle by the noise that is reckoned with, others none; and
    what is off is ``off`` [m] of that noise, whatever the values are."""

    off = 0.0

    def errors(self, z, windows):
        shape = (len(z), len(windows), 4, len(self.joints))
        moved = z[:, :1] + self.off * np.ones(len(windows))
        return self.config.noise * np.broadcast_to(moved[..., None, None], shape)


def test_a_value_is_as_uncertain_as_moments_contradict_each_other(problem):
    straight = Straight(**vars(problem))
    count = 4 * len(straight.joints) * len(straight.train)
    # Windows of a second begin every half.
    information = 0.5 * count + 1
    expected = np.eye(len(problem.start))
    expected[0, 0] = 1 / information
    z = np.zeros(len(problem.start))
    np.testing.assert_allclose(fit.covariance(straight, z), expected, atol=1e-9)
    moments = problem.replay.moments(problem.train)
    starts = problem.replay._track.starts[problem.train] * CONFIG.timestep
    assert (np.diff(starts)[np.diff(moments) == 0] < 1.0).all()
    assert (np.diff(starts)[np.diff(moments) == 1] >= 1.0).all()
    # Half of them say that the value is larger, and half smaller.
    straight.off = np.where(moments < np.median(moments), 0.2, -0.2)
    pulls = [0.5 * count * np.sum(straight.off[moments == k]) for k in set(moments)]
    pulls = np.array(pulls) / len(straight.train)
    expected[0, 0] += np.sum(pulls**2) / information**2
    assert expected[0, 0] > 2 / information
    found = fit.covariance(straight, z)
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=1e-9)


class Rough(Straight):
    """Two values undo each other, but one sticks, as friction does: in every other
    window a hundredth sooner, and in the others later."""

    def errors(self, z, windows):
        sooner = np.resize([0.01, -0.01], len(windows))[:, None, None]
        sticks = np.sign(z[:, 0])[:, None, None, None] * sooner
        return (
            super().errors(z[:, :1] - z[:, 1:2], windows) + self.config.noise * sticks
        )


def test_what_values_do_together_is_measured_together(problem):
    """A small step of one is a tenth more or less than the other's; together they may
    go as far as the prior lets them, and half of that is each one's."""
    rough, z = Rough(**vars(problem)), np.zeros(len(problem.start))
    found = fit.covariance(rough, z)
    np.testing.assert_allclose(found[:2, :2], 0.5, atol=0.05)


def test_coordinate_descent_gains_with_every_sweep(problem, truth):
    config = dataclasses.replace(CONFIG, method="coordinate_descent")
    found = fit.fit(dataclasses.replace(problem, config=config))
    assert (np.diff(found.errors) <= 0).all()
    before, after = report.overall([found])
    assert before > 2 * after
    assert np.abs(found.off(truth))[found.is_told].max() < 0.15


class Deaf(fit.Problem):
    """Whatever is changed, joints are a tenth of a radian off."""

    def errors(self, z, windows):
        return np.full((len(z), len(windows), 4, len(self.joints)), 0.1)


@pytest.mark.parametrize("method", ["least_squares", "coordinate_descent"])
def test_a_fit_that_cannot_get_better_says_so_and_keeps_its_start(method, problem):
    config = dataclasses.replace(CONFIG, method=method)
    found = fit.fit(Deaf(**{**vars(problem), "config": config}))
    assert "nothing better" in found.stuck
    np.testing.assert_allclose(found.z, problem.start)
    assert not found.is_told.any()
    assert f"FF: {found.stuck}; its best is kept" in report.text([found])


def test_the_command_writes_a_hand_that_is_built(excited, nominal, tmp_path, capsys):
    out = tmp_path / "my hand.json"
    arguments = [str(excited), "--out", str(out), "--iterations", "2", *ARGUMENTS]
    truth = excited.parent / "hidden.json"
    assert command.main([*arguments, "--truth", str(truth)]) == 0
    printed = capsys.readouterr().out
    words = shlex.split(printed.splitlines()[-1].split("train with it: ")[1])
    assert words == ["python", "-m", "mjx_dex.train", "--hand.calibration", str(out)]
    assert "within 10%" in printed
    assert out.with_suffix(".png").stat().st_size > 10_000
    fitted = json.loads(out.read_text())
    assert fitted["joints"]["MFJ2"] == nominal["joints"]["MFJ2"]
    assert fitted["joints"]["FFJ2"] != nominal["joints"]["FFJ2"]
    assert fitted["actuators"]["A_MFJ1"] == nominal["actuators"]["A_MFJ1"]
    assert fitted["actuators"]["A_FFJ1"] != nominal["actuators"]["A_FFJ1"]
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
