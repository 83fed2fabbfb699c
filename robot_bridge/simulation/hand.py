"""A hand and an object in MuJoCo's C engine, as a driver would see them.

Physics runs at 1 kHz; a low-level controller sets motor torques every 5 ms from
absolute targets (appendix B.4); sensors speak every 8 ms, in motion capture's frame,
which has nothing to do with the simulation's. Angles are in Shadow's names, signs and
zeros.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any, Iterator

import mujoco
import numpy as np

from mjx_dex import settings
from mjx_dex.config import Config, replace
from mjx_dex.hand import build_hand
from mjx_dex.hand.model import NUM_JOINTS, REFERENCE_MARKERS
from mjx_dex.hand.slack import take_up
from robot_bridge import rotations
from robot_bridge.description import read_hand
from robot_bridge.messages import HandInfo
from robot_bridge.sensors import SensorMaps
from robot_bridge.simulation.imperfections import Imperfections
from robot_bridge.simulation.shadow_urdf import shadow_urdf
from robot_bridge.task import Task

STEP = 0.001
"""Of physics [s]."""
CONTROL_STEPS, SENSOR_STEPS = 5, 8
"""Physics steps between two updates of torques (B.4), and between two messages."""

RESTING = 2.0
"""An object that has been put back has stayed in the hand for so long [s]."""

MOCAP_POSITION = np.array([0.3, -0.2, 1.1])
MOCAP_QUATERNION = rotations.normalize(np.array([0.7, 0.2, -0.4, 0.5]))
"""Motion capture's frame in the simulation's world, like no other."""

SENSOR_KNOTS = 5
"""Points between which a joint sensor is linear (B.5: 3 to 5)."""


class SimulatedHand:
    """One hand, from one seed.

    Args:
        manifest: of a bundle: which hand and object it was trained with.
        imperfections: how this hand differs.
        seed: of the hand's peculiarities, of noise and of trials.
        side: 'right', or 'left' for a hand that only calls itself so.
        calibration: file of another hand than the policy was trained with, whose
            backlash there is, too.

    Raises:
        ValueError: if that file cannot be used.
    """

    def __init__(
        self,
        manifest: dict[str, Any],
        imperfections: Imperfections,
        seed: int = 0,
        side: str = "right",
        calibration: Path | None = None,
    ):
        self._manifest, self._flaws = manifest, imperfections
        self._task = Task(manifest)
        self._generator = np.random.default_rng([seed, 1])
        self.joint_names = [joint["name"] for joint in manifest["joints"]]
        self.actuator_names = [actuator["name"] for actuator in manifest["actuators"]]
        self._signs = np.array([joint["sign"] for joint in manifest["joints"]])
        self._actuator_signs = np.array([a["sign"] for a in manifest["actuators"]])
        config = settings.parse(manifest["training"]["config"], "the bundle's manifest")
        if calibration:
            config = replace(config, **{"hand.calibration": str(calibration)})
        self._build(config, np.random.default_rng([seed, 0]))
        self.urdf = shadow_urdf({"right": "rh_", "left": "lh_"}[side])
        self.serial = f"simulated-{seed}"
        self.sensor_maps = lambda raw: raw.copy()
        """What the driver makes of readings: by default it thinks them straight."""
        limits = read_hand(shadow_urdf()).limits
        actuators = manifest["actuators"]
        self._range = np.array(
            [np.sum([limits[j] for j in a["joints"]], axis=0) for a in actuators]
        )
        self._has_slack = calibration is not None
        self._steps = 0
        self.force = 1.0
        self._targets = self._rest_targets()
        self._commands: deque = deque()
        self._history: deque = deque(maxlen=250)
        self._lost_until = np.zeros(len(self._hand.fingertip_sites))
        self.messages: dict[str, np.ndarray] = {}
        """The latest of every sensor, anew every ``SENSOR_STEPS``."""
        self.sensed_at = 0.0
        self.reset()

    @property
    def info(self) -> HandInfo:
        """What a driver says of it."""
        return read_hand(self.urdf, self.serial, simulated=True)

    @property
    def time(self) -> float:
        """Since it was built [s]."""
        return self._steps * STEP

    @property
    def set_points(self) -> np.ndarray:
        """[20] targets that the low-level controller follows [rad]."""
        return self._targets

    @property
    def joint_angles(self) -> np.ndarray:
        """[24] true angles [rad]."""
        return self._signs * self._data.qpos[:NUM_JOINTS]

    @property
    def object_pose(self) -> np.ndarray:
        """[7] true pose in the simulation's world."""
        return self._data.qpos[NUM_JOINTS : NUM_JOINTS + 7].copy()

    def reset(self, with_object: bool = True) -> None:
        """A new trial: see ``putting_back``."""
        for _ in self.putting_back(with_object):
            pass

    def putting_back(self, with_object: bool = True) -> Iterator[None]:
        """A new trial, control period by control period: the object falls into the hand
        in a random orientation, random actions follow as in training, and all again
        until it is not dropped, and rests. Without an object: far below the hand."""
        control = self._manifest["control"]
        tick = round(control["period"] / STEP)
        while True:
            self.force = 1.0
            self._commands.clear()
            mujoco.mj_resetData(self._model, self._data)
            self._slack = np.zeros(len(self._actuator_signs))
            self._data.qpos[:NUM_JOINTS] = self._hand.rest_angles
            self._data.qpos[NUM_JOINTS + 3 :] = rotations.random(self._generator)
            self._targets = self._motor = self._rest_targets()
            if not with_object:
                self._data.qpos[NUM_JOINTS + 2] = -1.0
                return
            memory = self._task.no_actions()
            for _ in range(self._manifest["training"]["start_steps"]):
                action = self._generator.uniform(-1, 1, len(self._actuator_signs))
                action, memory = self._task.smooth(action, memory)
                self._targets = self._task.targets(action, self.joint_angles)
                self._advance(tick)
                yield
                if self.is_dropped:
                    break
            else:
                # It is left alone until somebody arms the hand.
                for _ in range(round(RESTING / control["period"])):
                    self._advance(tick)
                    yield
                if not self.is_dropped:
                    return

    @property
    def is_dropped(self) -> bool:
        """Whether the object is below the hand."""
        height = self._data.qpos[NUM_JOINTS + 2]
        return bool(height < self._manifest["goal"]["drop_height"])

    def command(self, targets: np.ndarray | None, force: float) -> None:
        """Tell the controller new targets [20] [rad], or none, and a share of force.

        Targets that are no numbers make their joints limp, as on the hand.
        """
        self._commands.append((self.time + self._flaws.command_delay, targets, force))

    def step(self, seconds: float) -> None:
        """Advance by a time, to the nearest physics step."""
        self._advance(round(seconds / STEP))

    def _advance(self, steps: int) -> None:
        while steps > 0:
            if self._steps % CONTROL_STEPS == 0:
                self._control()
            run = min(
                steps,
                CONTROL_STEPS - self._steps % CONTROL_STEPS,
                SENSOR_STEPS - self._steps % SENSOR_STEPS,
            )
            mujoco.mj_step(self._model, self._data, run)
            self._steps += run
            steps -= run
            if self._steps % SENSOR_STEPS == 0:
                self._sense()

    def _control(self) -> None:
        """Torques of the motors for the next 5 ms."""
        while self._commands and self._commands[0][0] <= self.time:
            _, targets, self.force = self._commands.popleft()
            if targets is not None:
                low, high = self._range.T
                # NaN gets through the real hand's clamp, too.
                self._targets = np.clip(targets, low, high)
        lag = self._flaws.motor_lag
        weight = 1.0 if lag == 0 else 1 - np.exp(-CONTROL_STEPS * STEP / lag)
        self._motor = self._motor + weight * (self._targets - self._motor)
        angles = self._task.actuator_angles(self.joint_angles)
        speeds = self._task.actuator_angles(self._signs * self._data.qvel[:NUM_JOINTS])
        error = self._motor - angles
        error = error - np.clip(error, -self._play / 2, self._play / 2)
        if self._has_slack:
            error = self._pass_on(error)
        torque = self._gain * (error - self._flaws.derivative * speeds)
        torque = np.where(np.isfinite(torque), torque, 0.0)
        self._motor = np.where(np.isfinite(self._motor), self._motor, angles)
        torque = np.clip(torque, -self._strongest, self._strongest)
        self._data.ctrl[:] = self._actuator_signs * self.force * torque

    def _pass_on(self, error: np.ndarray) -> np.ndarray:
        """What of an error [20] [rad] gets through the slack (C.2)."""
        half = self._actuator_signs * np.ptp(self._task.range, axis=1) / 2
        pace = np.exp(self._hand.log_backlash)
        steps = 1 / (pace * CONTROL_STEPS * STEP)
        wanted = np.nan_to_num(error) / half
        passed, self._slack = take_up(wanted, self._slack, steps, np)
        return np.where(np.isfinite(error), passed * half, error)

    def _sense(self) -> None:
        """What sensors say now, in ``messages``, of a little while ago."""
        mujoco.mj_kinematics(self._model, self._data)
        markers = np.concatenate(
            [
                self._data.site_xpos[self._base_sites],
                self._data.site_xpos[self._hand.fingertip_sites],
            ]
        )
        pose = self._data.qpos[NUM_JOINTS : NUM_JOINTS + 7].copy()
        self._history.appendleft((self.time, self.joint_angles, markers, pose))
        flaws = self._flaws
        _, angles, markers, _ = self._recall(flaws.sensor_delay)
        pose = self._recall(flaws.object_delay)[3]
        raw = self._read_raw(angles)
        self.sensed_at = self.time
        self.messages = {
            "joints": self.sensor_maps(raw),
            "raw": raw,
            "markers": self._read_markers(markers),
            "object": self._read_object(pose),
        }

    def _recall(self, delay: float) -> tuple:
        """The newest that is so old; the oldest there is if none is."""
        for entry in self._history:
            if self.time - entry[0] >= delay - STEP / 2:
                return entry
        return self._history[-1]

    def _read_raw(self, angles: np.ndarray) -> np.ndarray:
        """[24] what Hall sensors read: rising with the angle, in no unit (B.5)."""
        raw = SensorMaps(self._knots, self._values)(angles)
        noise = self._generator.standard_normal(len(angles))
        return raw + self._flaws.joint_noise * noise

    def _read_markers(self, markers: np.ndarray) -> np.ndarray:
        seen = self._to_mocap(markers)
        seen = seen + self._flaws.marker_noise * self._generator.standard_normal(
            seen.shape
        )
        probability = self._flaws.marker_losses * SENSOR_STEPS * STEP
        lost = self._generator.random(len(self._lost_until)) < probability
        lengths = self._generator.exponential(
            self._flaws.marker_loss_time, len(self._lost_until)
        )
        found = self._lost_until <= self.time
        self._lost_until = np.where(lost & found, self.time + lengths, self._lost_until)
        seen[len(REFERENCE_MARKERS) :][self._lost_until > self.time] = np.nan
        return seen

    def _read_object(self, pose: np.ndarray) -> np.ndarray:
        position = self._to_mocap(pose[:3])
        position = (
            position + self._flaws.object_noise * self._generator.standard_normal(3)
        )
        turn = self._flaws.turn_noise * self._generator.standard_normal(3)
        angle = np.linalg.norm(turn)
        axis = turn / angle if angle > 0 else np.array([1.0, 0, 0])
        to_mocap = rotations.conjugate(MOCAP_QUATERNION)
        orientation = rotations.multiply(to_mocap, pose[3:])
        noise = rotations.from_axis_angle(axis, angle)
        return np.concatenate([position, rotations.multiply(noise, orientation)])

    def _to_mocap(self, points: np.ndarray) -> np.ndarray:
        return (points - MOCAP_POSITION) @ rotations.to_matrix(MOCAP_QUATERNION)

    def _rest_targets(self) -> np.ndarray:
        """[20] the middles of all ranges."""
        return self._task.range.mean(1)

    def _build(self, config: Config, generator: np.random.Generator) -> None:
        """The model, as this hand's peculiarities make it."""
        flaws = self._flaws
        config = replace(config, **{"physics.timestep": STEP})
        self._hand = build_hand(config.hand, config.object, config.physics)
        model = self._model = self._hand.model
        self._data = mujoco.MjData(model)
        self._base_sites = [model.site(name).id for name in REFERENCE_MARKERS]

        def factors(deviation: float, size: int) -> np.ndarray:
            return np.exp(deviation * generator.standard_normal(size))

        strength = factors(flaws.strength, model.nu)
        self._gain = strength * model.actuator_gainprm[:, 0]
        self._strongest = strength * model.actuator_forcerange[:, 1]
        self._play = flaws.backlash * generator.random(model.nu)
        # Motors give the torques that ``_control`` asks for.
        model.actuator_gainprm[:, 0], model.actuator_biasprm[:] = 1.0, 0.0
        model.actuator_forcelimited[:] = 0
        model.dof_damping[:NUM_JOINTS] *= factors(flaws.damping, NUM_JOINTS)
        model.geom_friction[:, 0] *= factors(flaws.friction, 1)
        body = model.jnt_bodyid[-1]
        factor = factors(flaws.object_mass, 1)
        model.body_mass[body] *= factor[0]
        model.body_inertia[body] *= factor[0]
        model.site_pos[self._hand.fingertip_sites] += (
            flaws.marker_shift
            * generator.standard_normal((len(self._hand.fingertip_sites), 3))
        )
        mujoco.mj_setConst(model, self._data)
        ranges = np.sort(self._signs[:, None] * model.jnt_range[:NUM_JOINTS], axis=1)
        low, high = ranges.T
        self._knots = np.linspace(low - 1, high + 1, SENSOR_KNOTS).T
        errors = flaws.joint_nonlinearity * generator.standard_normal(self._knots.shape)
        self._values = self._knots + errors
