"""Everything between what a hand sends and what it is told.

Knows no clock, file or network: the same calls with the same values give the same
commands, which is what ``replay`` relies on.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robot_bridge.bundle import Bundle
from robot_bridge.goals import GoalRules, Goals
from robot_bridge.messages import HandInfo, Sample, Snapshot
from robot_bridge.safety import Event, Fault, Limits, State, next_state
from robot_bridge.sensing import Sensing
from robot_bridge.task import Task

COMMANDING = (State.ARMED, State.RUNNING, State.HOLD, State.LIMP)
"""States in which the hand is told something."""

REMEMBERED = 5
"""Commands that controllers may still follow, when messages were lost or are late."""


class RefusedError(ValueError):
    """The policy must not run on this hand; the message says why."""


@dataclass(frozen=True)
class Options:
    """How the policy acts."""

    most_likely: bool = False
    """Take the most likely action instead of drawing one."""
    force: float = 1.0
    """Share of the controllers' force while running."""
    speed: float | None = None
    """Largest change of a target [rad/s], for a first run; slower than trained."""
    seed: int = 0
    """Of goals and actions."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self):
        """Raise ValueError for what no hand should be told."""
        if not 0 <= self.force <= 1:
            raise ValueError(f"--force {self.force:g} is no share: give 0 to 1")
        if self.speed is not None and not 0 < self.speed < np.inf:
            raise ValueError(f"--speed {self.speed:g} rad/s must be above 0")
        for name, age in (("--pose-age", self.limits.object_age),):
            if not 0 < age < np.inf:
                raise ValueError(f"{name} {age:g} s must be above 0")


@dataclass(frozen=True)
class Command:
    """What the hand is to be told."""

    targets: np.ndarray | None = None
    """[20] absolute [rad]; None: whatever they are."""
    force: float = 1.0
    """Share of the controllers' force; 0 is limp."""


class Controller:
    """The policy, its memory, its goals and its limits.

    Args:
        bundle: what was trained.
        info: of the hand at the other end.
        rules: of goals.
        options: see there.

    Raises:
        RefusedError: if that hand is not the one that the policy was trained for.
    """

    def __init__(
        self, bundle: Bundle, info: HandInfo, rules: GoalRules, options: Options
    ):
        check_hand(bundle, info, options.limits)
        self._policy, self._options, self._rules = bundle.policy, options, rules
        self.period = bundle.manifest["control"]["period"]
        self._limits, self._bins = options.limits, bundle.manifest["control"]["bins"]
        self._deviations = bundle.deviations
        self._actuators = bundle.actuators
        self.task = Task(bundle.manifest)
        self.sensing = Sensing(bundle.manifest, info, self._limits)
        robot = actuator_limits(bundle, info)
        margin = np.minimum(self._limits.margin, np.ptp(robot, axis=1) / 2)
        self._allowed = robot + margin[:, None] * [1, -1]
        self._generator = np.random.default_rng(options.seed)
        self.state, self.why = State.CONNECT, ""
        self.command: Command | None = None
        self.goals: Goals | None = None
        self.trials = 0
        """That were started."""
        self.oldest_pose = 0.0
        """Of the object, that the policy acted on [s]."""
        self.counts = {"late": 0, "slowed": 0, "clipped": 0}
        self.trouble = ""
        """What is wrong now, or still missing."""
        self._well_since = np.inf
        self._sent = deque(maxlen=REMEMBERED)
        self._foreign: list[float] = []
        self._set_points: Sample | None = None
        self._late = 0

    def look(
        self, snapshot: Snapshot, now: float, others: tuple[Fault, ...] = ()
    ) -> None:
        """Take in what the hand sends; stop if something is wrong.

        Called often between ticks: a fault must not wait for the next one.

        Args:
            snapshot: the latest.
            now: by the transport's clock [s].
            others: what is known to be wrong otherwise.
        """
        self.sensing.update(snapshot)
        faults = list(others)
        if snapshot.fault:
            faults.append(Fault("transport", snapshot.fault))
        if snapshot.danger:
            faults.append(Fault("transport", snapshot.danger, Event.DANGER))
        faults += self._controllers(snapshot.set_points, now)
        faults += self.sensing.faults(now, self.state is State.RUNNING)
        missing = self.sensing.missing
        if self.state is State.CONNECT and not missing:
            self._go(Event.HEARD)
        self._well_since = np.inf if faults else min(self._well_since, now)
        self.trouble = faults[0].message if faults else ""
        if missing:
            # That what has never spoken is silent is not all there is to say.
            self.trouble = f"nothing yet from: {missing}"
        self._react(faults)

    @property
    def goals_met(self) -> int:
        """In this trial."""
        return 0 if self.goals is None else self.goals.met

    @property
    def outgoing(self) -> Command | None:
        """What the hand is to be told now."""
        return self.command if self.state in COMMANDING else None

    def is_trusted(self, now: float) -> bool:
        """Whether nothing has been wrong with anything for long enough to arm."""
        silent = self.sensing.faults(now, moving=False)
        return not silent and now - self._well_since >= self._limits.check_time

    def obey(self, wish: str, now: float) -> None:
        """Do what a person asks: 'arm', 'start', 'hold' or 'stop'."""
        if wish == "arm":
            self.arm(now)
        elif wish == "start":
            self.start(now)
        elif wish == "hold":
            self._react([Fault("operator", "stopped by the operator")])
        else:
            self.stop()

    def arm(self, now: float) -> None:
        """A person's wish: hold the present pose with little force."""
        if not self.is_trusted(now):
            return
        self._go(Event.ARM)
        if self.state is State.ARMED:
            self.why = ""
            self.command = Command(self.here(), self._limits.armed_force)

    def start(self, now: float) -> None:
        """A person's wish: let the policy run, with an empty memory and a new goal."""
        self._go(Event.START)
        if self.state is not State.RUNNING:
            return
        self.why = ""
        self.trials += 1
        self._begin(now)
        self._late = 0

    def _begin(self, now: float) -> None:
        """Forget the last trial."""
        self._carry = self._policy.initial_carry()
        self._smoothing = self.task.no_actions()
        orientation = self.sensing.reading().object_orientation
        self.goals = Goals(self._rules, self._generator, orientation, now)

    def stop(self) -> None:
        """A person's wish: end for good."""
        self._go(Event.STOP)

    def tick(self, now: float) -> dict[str, Any]:
        """Act, once a control period.

        Args:
            now: by the transport's clock [s].

        Returns:
            What was thought, for the record.
        """
        if self.state is not State.RUNNING:
            return {}
        end, targets, thought = self._think(now)
        if end:
            self._finish(end)
            return {}
        targets = self._hold_back(targets)
        if not np.isfinite(targets).all():
            self._react([Fault("policy", "the policy's output is not a number")])
            return {}
        self.command = Command(targets, self._options.force)
        return thought

    def finish_tick(self, due: float, done: float) -> None:
        """Notice when ticks end after the next was due.

        Args:
            due: when this one should have begun [s].
            done: when the hand had been told [s].
        """
        if self.state is not State.RUNNING:
            return
        is_late = done - due > self.period
        self.counts["late"] += is_late
        self._late = self._late + 1 if is_late else 0
        if self._late >= self._limits.late_ticks:
            message = (
                f"{self._late} ticks in a row were late, the last done "
                f"{1000 * (done - due):.0f} ms after it was due"
            )
            self._react([Fault("late", message)])

    def _think(self, now: float) -> tuple[str, np.ndarray | None, dict[str, Any]]:
        """Why the trial ends ('' if it does not), targets [20], and for the record."""
        reading = self.sensing.reading()
        # As in training: a goal that is met while the object falls is met.
        end = self.goals.judge(reading.object_orientation, now)
        if self.sensing.is_dropped:
            end = "dropped"
        if end:
            return end, None, {}
        self.oldest_pose = max(self.oldest_pose, self.sensing.object.age(now))
        observation = self.task.observe(reading, self.goals.goal)
        self._carry, outputs = self._policy.step(self._carry, observation)
        action = self._choose(outputs)
        smoothed, self._smoothing = self.task.smooth(
            self.task.decode(action), self._smoothing
        )
        targets = self.task.targets(smoothed, reading.joint_angles)
        if not np.isfinite(outputs).all():
            # The largest of logits that are no numbers would be a number.
            targets = np.full_like(targets, np.nan)
        return (
            "",
            targets,
            {
                "observation": observation,
                "outputs": outputs,
                "action": action,
                "goal": self.goals.goal,
                "angle": self.goals.angle,
                "goals_met": self.goals.met,
            },
        )

    def rehearse(self) -> None:
        """Think once, to no effect: the first time is the slowest."""
        inputs = np.zeros(self._policy.num_inputs, np.float32)
        self._policy.step(self._policy.initial_carry(), inputs)

    def ages(self, now: float) -> dict[str, float]:
        """Of what the policy acts on [s]."""
        sensing = self.sensing
        return {
            "joints": sensing.joints.age(now),
            "tips": max(tip.age(now) for tip in sensing.tips),
            "object": sensing.object.age(now),
        }

    def forget(self) -> None:
        """The hand is somebody else's, until watched and armed anew."""
        self.command, self._well_since = None, np.inf
        self._sent.clear()
        self._foreign.clear()

    def sent(self, command: Command) -> None:
        """Remember what the hand was told."""
        if command.targets is None:
            return
        if not self._sent and self._set_points is not None:
            # Until the first command arrives, the hand follows what it followed before.
            self._sent.append(self._set_points.value)
        self._sent.append(command.targets)

    def _choose(self, outputs: np.ndarray) -> np.ndarray:
        """Bins [20], or numbers where the policy's outputs are mean and deviation."""
        drawn = not self._options.most_likely
        if self._bins is None:
            first, least = self._deviations
            learned = (first**2 - least**2) * np.exp(2 * outputs[:, 1])
            noise = self._generator.standard_normal(len(outputs))
            return outputs[:, 0] + drawn * np.sqrt(learned + least**2) * noise
        if drawn:
            # The largest of logits with Gumbel noise is a draw from their softmax.
            outputs = outputs - np.log(-np.log(self._generator.random(outputs.shape)))
        return outputs.argmax(-1)

    def _hold_back(self, targets: np.ndarray) -> np.ndarray:
        """Targets that the hand may be told: no faster, no further."""
        slowed = targets
        if self._options.speed is not None and self._sent:
            step = self._options.speed * self.period
            slowed = np.clip(targets, self._sent[-1] - step, self._sent[-1] + step)
        clipped = np.clip(slowed, *self._allowed.T)
        self.counts["slowed"] += int((slowed != targets).any())
        self.counts["clipped"] += int((clipped != slowed).any())
        return clipped

    def here(self) -> np.ndarray:
        """[20] the measured pose, as targets within the hand's limits."""
        here = self.task.actuator_angles(self.sensing.joints.value)
        return np.clip(here, *self._allowed.T)

    def _controllers(self, sample: Sample | None, now: float) -> list[Fault]:
        """Whether controllers run, and follow what this bridge has sent."""
        if sample is None:
            return [Fault("controllers", "no controller says what it follows")]
        age = now - sample.received
        if age > self._limits.set_points_age:
            return [
                Fault(
                    "controllers",
                    f"controllers have not said what they follow for {age:.1f} s",
                )
            ]
        is_known, self._set_points = sample is self._set_points, sample
        if is_known or not self._sent:
            return []
        near = self._limits.set_point_error
        # Each actuator apart: their messages do not come together.
        off = np.abs(np.array(self._sent) - sample.value).min(0)
        recent = [t for t in self._foreign if sample.received - t < 1.0]
        self._foreign = recent if off.max() < near else [*recent, sample.received]
        if len(self._foreign) < self._limits.foreign_set_points:
            return []
        worst = int(off.argmax())
        return [
            Fault(
                "second commander",
                f"{self._actuators[worst]} follows a target, {sample.value[worst]:.2f} "
                "rad, that this bridge did not send: something else commands the hand",
            )
        ]

    def _react(self, faults: list[Fault]) -> None:
        """Change the state for the worst of faults, and the command with it."""
        if not faults:
            return
        before, force = self.state, self._force
        worst = next((f for f in faults if f.event is Event.DANGER), faults[0])
        self._go(worst.event)
        if self.state is not before:
            self.why = worst.message
            if self.state is State.HOLD:
                self.command = Command(self.here(), force)
            if self.state is State.LIMP:
                self.command = Command(None, 0.0)
        if any(fault.name == "guard" for fault in faults):
            # The guard holds the hand, and lets go of it.
            self.command = None

    @property
    def _force(self) -> float:
        """That the hand is held with now: a fault must not make it stronger."""
        return self._options.force if self.command is None else self.command.force

    def _finish(self, end: str) -> None:
        self._go(Event.FINISHED)
        self.why = end
        self.command = Command(self.here(), self._force)

    def _go(self, event: Event) -> None:
        self.state = next_state(self.state, event)


def actuator_limits(bundle: Bundle, info: HandInfo) -> np.ndarray:
    """[20, 2] the hand's own limits of actuators: of coupled joints, their sums."""
    return np.array(
        [
            np.sum([info.limits[joint] for joint in actuator["joints"]], axis=0)
            for actuator in bundle.manifest["actuators"]
        ]
    )


def check_hand(bundle: Bundle, info: HandInfo, limits: Limits) -> None:
    """Whether a policy may run on a hand.

    Raises:
        RefusedError: if not.
    """
    side = bundle.manifest["hand"]["side"]
    if info.side != side:
        raise RefusedError(
            f"the policy was trained for a {side} hand, and {info.serial} is a "
            f"{info.side} one"
        )
    missing = [name for name in bundle.joints if name not in info.limits]
    if missing:
        raise RefusedError(
            f"the robot's description has no joint {missing[0]}; it has "
            f"{', '.join(sorted(info.limits))}"
        )
    if info.mode != "position":
        raise RefusedError(
            f"the hand is in {info.mode} mode, in which its controllers overwrite "
            "targets; change it to position mode first"
        )
    trained = np.array([[a["low"], a["high"]] for a in bundle.manifest["actuators"]])
    robot = actuator_limits(bundle, info)
    excess = np.maximum(robot[:, 0] - trained[:, 0], trained[:, 1] - robot[:, 1])
    worst = int(excess.argmax())
    if excess[worst] > limits.range_excess:
        low, high = robot[worst]
        raise RefusedError(
            f"{bundle.actuators[worst]}: the policy's targets go from "
            f"{trained[worst, 0]:.3f} to {trained[worst, 1]:.3f} rad, and the robot's "
            f"description allows {low:.3f} to {high:.3f}"
        )
