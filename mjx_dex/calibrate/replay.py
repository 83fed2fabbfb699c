"""Windows of a recording, replayed open loop on many hands at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco.batch import Batch

from mjx_dex.calibrate import factors
from mjx_dex.calibrate.config import CalibrateConfig, WindowsConfig
from mjx_dex.calibrate.recordings import Recording
from mjx_dex.config import PhysicsConfig
from mjx_dex.hand import build_hand, names
from mjx_dex.hand.model import assemble
from mjx_dex.hand.slack import take_up
from mjx_dex.physics.native import available_cores
from mjx_dex.types import HandDraw

SMOOTHING = 11
"""Readings of which a parabola gives angle and velocity where a window begins."""

NEAR = 0.001
"""Fingers that come so close may touch: links are not measured that well [m]."""

LOST = 10.0
"""Angle of a simulated hand that has blown up [rad]: an error like no other."""


@dataclass(frozen=True)
class Track:
    """Recordings, one after another, at the times of physics steps."""

    angles: np.ndarray
    """[n, 24] that were read [rad]."""
    smooth_angles: np.ndarray
    """[n, 24] without their noise."""
    velocities: np.ndarray
    """[n, 24] [rad/s]."""
    targets: np.ndarray
    """[n, 20] mean over the step [rad]."""
    begins: np.ndarray
    """[n] bool: where a recording begins, and nobody knows what was before."""
    starts: np.ndarray
    """[m] where windows begin."""
    is_test: np.ndarray
    """[m] bool: kept from the fit."""


def make_track(
    recordings: Sequence[Recording], timestep: float, windows: WindowsConfig
) -> Track:
    """Resample recordings and cut windows.

    Raises:
        ValueError: if they are too short for two windows, one to fit and one to test.
    """
    parts = [_resampled(recording, timestep) for recording in recordings]
    starts, is_test, offset = [], [], 0
    length, stride = (
        round(seconds / timestep) for seconds in (windows.seconds, windows.stride)
    )
    for angles, *_ in parts:
        first = np.arange(0, len(angles) - length, stride)
        # A window is tested with if it begins in the last of so many seconds.
        second = (first * timestep / windows.seconds).astype(int) % windows.held_out
        tested = second == windows.held_out - 1
        overlaps = (np.abs(first[:, None] - first[tested]) < length).any(1)
        kept = tested | ~overlaps
        starts.append(first[kept] + offset)
        is_test.append(tested[kept])
        offset += len(angles)
    starts, is_test = np.concatenate(starts), np.concatenate(is_test)
    if not is_test.any() or is_test.all():
        raise ValueError(
            f"{offset * timestep:.0f} s of recordings are too short: windows of "
            f"{windows.seconds} s, of which one in {windows.held_out} is held out"
        )
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    begins = np.concatenate([np.arange(len(angles)) == 0 for angles, *_ in parts])
    return Track(*columns, begins, starts, is_test)


def _resampled(recording: Recording, timestep: float) -> tuple[np.ndarray, ...]:
    """Angles, smoothed ones, velocities and targets, from the first command on."""
    from scipy.signal import savgol_filter

    begin = max(recording.time[0], recording.target_time[0])
    count = int((recording.time[-1] - begin) / timestep)
    time = begin + timestep * np.arange(count + 1)
    angles = np.stack(
        [np.interp(time, recording.time, angle) for angle in recording.angles.T], 1
    )
    smooth, velocities = (
        savgol_filter(angles, SMOOTHING, 2, order, timestep, axis=0) for order in (0, 1)
    )
    # The integral of targets that are held until the next, at any time.
    knots = np.append(recording.target_time, max(time[-1], recording.target_time[-1]))
    total = np.cumsum(np.diff(knots)[:, None] * recording.targets, axis=0)
    total = np.concatenate([np.zeros((1, total.shape[1])), total])
    total = np.stack([np.interp(time, knots, column) for column in total.T], 1)
    targets = np.diff(total, axis=0) / timestep
    return angles[:-1], smooth[:-1], velocities[:-1], targets


def part_of_hand(part: str, config: CalibrateConfig) -> mujoco.MjModel:
    """Wrist and one finger, which no other finger moves; with 'WR' the whole hand.

    Steps take a third of the whole hand's time.
    """
    spec = assemble(config.hand, None, PhysicsConfig(timestep=config.timestep))
    for finger in names.FINGERS:
        if part not in (finger, "WR"):
            spec.delete(spec.joint(_inmost(finger)).parent)
    for actuator in spec.actuators:
        actuator.ctrllimited = False
    model = spec.compile()
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return model


def touches(track: Track, config: CalibrateConfig) -> np.ndarray:
    """[m, 5] in which windows a finger touches another, and does not move alone."""
    model = build_hand(config.hand, None, PhysicsConfig()).model
    model.pair_margin += NEAR
    finger = np.full(model.nbody, -1)
    for k, name in enumerate(names.FINGERS):
        base = model.joint(_inmost(name)).id
        finger[model.jnt_bodyid[base]] = k
    for body in range(1, model.nbody):
        if finger[body] < 0:
            finger[body] = finger[model.body_parentid[body]]
    data = mujoco.MjData(model)
    touching = np.zeros((len(track.angles), len(names.FINGERS)), bool)
    for step, angles in enumerate(track.smooth_angles):
        data.qpos[:] = angles
        mujoco.mj_fwdPosition(model, data)
        pairs = finger[model.geom_bodyid[data.contact.geom]]
        pairs = pairs[(pairs >= 0).all(1) & (pairs[:, 0] != pairs[:, 1])]
        touching[step, pairs.ravel()] = True
    length = round(config.windows.seconds / config.timestep)
    return touching[track.starts[:, None] + np.arange(length)].any(1)


def _inmost(finger: str) -> str:
    """The joint between a finger and the palm."""
    return next(j.gymnasium for j in names.JOINTS if j.ours.startswith(finger))


class Replay:
    """Open-loop replay of a track's windows on MuJoCo's C engine.

    Args:
        track: what was recorded.
        part: of the hand, that is replayed: see ``part_of_hand``.
        config: hand, timestep and windows.
    """

    def __init__(self, track: Track, part: str, config: CalibrateConfig):
        self._track = track
        hand = build_hand(config.hand, None, PhysicsConfig(timestep=config.timestep))
        self.model = part_of_hand(part, config)
        self.joints, self.actuators = factors.in_model(self.model)
        """Of the 24 and the 20, those that are replayed."""
        self._counts = hand.actuator_joints[np.ix_(self.actuators, self.joints)].T
        self._half = np.ptp(hand.ctrl_range, axis=1)[self.actuators] / 2
        self._pace = np.exp(hand.log_backlash)[self.actuators]
        self._targets = track.targets[:, self.actuators]
        self._timestep = config.timestep
        self._length = round(config.windows.seconds / config.timestep)
        self._times = np.round(np.array(config.windows.times) / config.timestep)
        self._times = self._times.astype(int)
        threads = config.threads or available_cores()
        self._slack = self._follow()
        self._batch = Batch(self.model, nsim=config.worlds, nthread=threads)
        self.simulated = 0.0
        """Seconds so far."""

    def recorded(self, windows: np.ndarray) -> np.ndarray:
        """[m, times, joints] angles that were read at the windows' times [rad]."""
        starts = self._track.starts[windows]
        return self._track.angles[:, self.joints][starts[:, None] + self._times]

    def moments(self, windows: np.ndarray) -> np.ndarray:
        """[m] of a recording: windows of which each overlaps the next have one number.

        Args:
            windows: [m] which of the track's, in order.
        """
        starts = self._track.starts[windows]
        return np.cumsum(np.diff(starts, prepend=starts[0]) >= self._length)

    def __call__(
        self, draws: HandDraw, latency: np.ndarray, windows: np.ndarray
    ) -> np.ndarray:
        """Replay windows on hands.

        Args:
            draws: with a leading axis: c hands.
            latency: [c] from a command to when its effect is read [s].
            windows: [m] which of the track's.

        Returns:
            [c, m, times, joints] angles [rad].
        """
        fields = factors.model_fields(draws, self.model)
        slack = np.stack([draws.backlash_closing, draws.backlash_opening], -1)
        slack = slack[:, self.actuators]
        steps = 1 / (self._pace * slack * self._timestep)
        late = latency / self._timestep
        hands = np.repeat(np.arange(len(latency)), len(windows))
        starts = np.tile(self._track.starts[windows], len(latency))
        slacks = np.asarray(self._slack(steps, late))[:, windows]
        slacks = slacks.reshape(len(hands), -1)
        parts = [
            self._replay(
                {name: value[each] for name, value in fields.items()},
                steps[each],
                late[each],
                slacks[chunk],
                starts[chunk],
            )
            for chunk, each in (
                (slice(k, k + self._batch.nsim), hands[k : k + self._batch.nsim])
                for k in range(0, len(hands), self._batch.nsim)
            )
        ]
        self.simulated += len(hands) * self._length * self._timestep
        return np.concatenate(parts).reshape(
            len(latency), len(windows), len(self._times), -1
        )

    def doubt(self, late: float, off: float) -> np.ndarray:
        """How little is known of the slack with which windows begin.

        A joint that rests near its target takes up slack by what its reading is off,
        and nobody saw what was before the recording.

        Args:
            late: from a command to when its effect is read [s].
            off: by how much readings may be off [rad].

        Returns:
            [m, 20] for each of the track's windows: 0 known, 2 not at all; by the pace
            of the file that the fit begins with, or one that is e times slower or
            faster, whichever leaves more doubt.
        """
        pace = self._pace * np.exp([-1.0, 0.0, 1.0])[:, None, None]
        steps = 1 / (pace * self._timestep)
        late = np.full(len(steps), late / self._timestep)
        low, high = (self._slack(steps, late, side * off, side) for side in (-1.0, 1.0))
        doubt = np.zeros((len(self._track.starts), len(names.ACTUATORS)))
        doubt[:, self.actuators] = (high - low).max(0)
        return doubt

    def _follow(self):
        """A function of steps [c, actuators, 2] and latencies [c], in steps of physics:
        the slack [c, m, actuators] with which windows begin.

        It follows from all that was recorded before: near a target slack is taken up
        so slowly that it remembers for many seconds. Two more arguments say by how much
        readings are off [rad], and the slack before a recording.
        """
        track = self._track
        angles = jnp.asarray(track.smooth_angles[:, self.joints] @ self._counts)
        targets = jnp.asarray(self._targets)
        times = jnp.arange(len(targets))

        def one(steps, late, off, first):
            left = jnp.clip(jnp.floor(times - late).astype(int), 0, len(targets) - 2)
            share = jnp.clip(times - late - left, 0.0, 1.0)[:, None]
            delayed = (1 - share) * targets[left] + share * targets[left + 1]
            wanted = (delayed - angles + off) / self._half

            def step(slack, inputs):
                wanted, begins = inputs
                slack = jnp.where(begins, first, slack)
                return take_up(wanted, slack, steps, jnp)[1], slack

            slack = jnp.zeros(len(self._half))
            _, slack = jax.lax.scan(step, slack, (wanted, track.begins))
            return slack[track.starts]

        follow = jax.jit(jax.vmap(one, (0, 0, None, None)))
        return lambda steps, late, off=0.0, first=0.0: follow(steps, late, off, first)

    def _replay(self, fields, steps, late, slack, starts) -> np.ndarray:
        """[n, times, joints] of n worlds, as many as fit into the batch at once."""
        worlds, track, batch = np.arange(len(starts)), self._track, self._batch
        for name, values in fields.items():
            batch.expand(name)[worlds] = values
        qpos, ctrl = batch.bind("qpos"), batch.bind("ctrl")
        qpos[worlds] = track.smooth_angles[starts][:, self.joints]
        batch.bind("qvel")[worlds] = track.velocities[starts][:, self.joints]
        batch.bind("qacc_warmstart")[worlds] = 0.0
        seen = []
        for k in range(self._length):
            angles = qpos[worlds] @ self._counts
            wanted = (self._target(starts + k - late) - angles) / self._half
            passed, slack = take_up(wanted, slack, steps, np)
            ctrl[worlds] = angles + passed * self._half
            batch.step(worlds)
            if k + 1 in self._times:
                seen.append(qpos[worlds])
        return np.nan_to_num(np.stack(seen, 1), nan=LOST).clip(-LOST, LOST)

    def _target(self, position: np.ndarray) -> np.ndarray:
        """[n, actuators] at positions between the track's steps."""
        left = np.floor(position).astype(int)
        share = (position - left)[:, None]
        left = left.clip(0, len(self._targets) - 2)
        return (1 - share) * self._targets[left] + share * self._targets[left + 1]
