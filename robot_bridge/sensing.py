"""From what a hand sends to what the policy sees, and what is wrong with it."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np

from robot_bridge import rotations
from robot_bridge.kinematics import FINGERS, Chain, fit_frame
from robot_bridge.messages import HandInfo, Sample, Snapshot
from robot_bridge.safety import Event, Fault, Limits
from robot_bridge.task import Reading

CLOCK_STEP = 1.0
"""A sensor's clock that goes back by more was set; by less, messages came in another
order than they were sent [s]."""


DRIFT = 1e-6
"""Of a sensor's clock against ours, for each message [s]: 100 ppm at 100 Hz."""


class Channel:
    """One sensor's values: the last that could be true, and how old it is."""

    def __init__(self, name: str, limits: Limits):
        self.name, self._limits = name, limits
        self.value: np.ndarray | None = None
        self._last: Sample | None = None
        self.taken = self.changed = -np.inf
        self._offset = self._least_offset = np.inf
        self._rejections: list[float] = []
        self.message = ""

    def is_news(self, sample: Sample | None) -> bool:
        """Whether this is a value that was not looked at before, in its order."""
        if sample is None or (self._last and sample.received == self._last.received):
            return False
        if self._last and 0 <= self._last.stamp - sample.stamp < CLOCK_STEP:
            return False
        self._last = sample
        offset = sample.received - sample.stamp
        if abs(offset - self._offset) > CLOCK_STEP:
            self._least_offset = offset
        self._offset = offset
        # Two clocks drift apart: what was the least once need not be for ever.
        self._least_offset = min(offset, self._least_offset + DRIFT)
        return True

    def take(self, value: np.ndarray, sample: Sample) -> None:
        """Believe a value."""
        # Later than the quickest messages of this sensor: as much older.
        late = self._offset - self._least_offset
        self.taken = sample.received - sample.age - late
        if self.value is None or not np.array_equal(value, self.value):
            self.changed = self.taken
        self.value = value

    def reject(self, why: str, sample: Sample) -> None:
        """Do not."""
        self.message = why
        recent = [t for t in self._rejections if sample.received - t < 1.0]
        self._rejections = [*recent, sample.received]

    def age(self, now: float) -> float:
        """Of the value [s]; infinite before the first."""
        return now - self.taken

    def faults(self, now: float, age: float, moving: bool) -> list[Fault]:
        """What is wrong with it, given how old it may be."""
        name, limits, found = self.name, self._limits, []
        if not self.age(now) <= age:
            found.append(
                Fault(
                    f"{name} stale",
                    f"{name}: nothing for {1000 * self.age(now):.0f} ms "
                    f"(limit {1000 * age:.0f})"
                    + (self.message and f"; {self.message}"),
                )
            )
        elif moving and now - self.changed > max(limits.frozen, age):
            seconds = now - self.changed
            found.append(
                Fault(
                    f"{name} frozen",
                    f"{name}: the very same numbers for {1000 * seconds:.0f} ms",
                )
            )
        recent = [t for t in self._rejections if now - t < 1.0]
        if len(recent) >= limits.rejected:
            found.append(
                Fault(
                    f"{name} absurd",
                    f"{name}: {len(recent)} absurd values in a second; {self.message}",
                )
            )
        return found


class Sensing:
    """Keeps the latest believable value of every sensor.

    Args:
        manifest: of the bundle: how the hand base's markers lie, where the world is.
        info: of the hand: its limits.
        limits: of what can be true.
        with_object: whether there is one in the hand.
    """

    def __init__(
        self,
        manifest: dict[str, Any],
        info: HandInfo,
        limits: Limits,
        with_object: bool = True,
    ):
        self._with_object = with_object
        hand = manifest["hand"]
        names = [joint["name"] for joint in manifest["joints"]]
        self._limits = limits
        self._known = np.array(hand["base_markers"])
        self._world_rotation = np.array(hand["world_rotation"])
        self._world_position = np.array(hand["world_position"])
        self._start = np.array(manifest["training"]["object"]["start_position"])
        self._drop_height = manifest["goal"]["drop_height"]
        self._chain = Chain(hand["chain"], hand["tips"], names)
        self._joint_range = np.array([info.limits[name] for name in names])
        self.joints = Channel("joint angles", limits)
        self.base = Channel("base markers", limits)
        self.tips = [Channel(f"marker {f}", limits) for f in FINGERS]
        self.object = Channel("object pose", limits)
        self._seen_markers: Sample | None = None
        self._tips_off_since = np.full(len(FINGERS), np.inf)
        self._tips_off_until = np.full(len(FINGERS), -np.inf)
        self._tip_errors = np.zeros(len(FINGERS))

    def update(self, snapshot: Snapshot) -> None:
        """Look at what has come since the last time."""
        self._update_joints(snapshot.joints)
        self._update_markers(snapshot.markers)
        self._update_object(snapshot.object, snapshot.object_frame)

    @property
    def missing(self) -> str:
        """Names of sensors that have not spoken yet; '' if all have."""
        channels = [self.joints, self.base, *self.tips]
        channels += [self.object] * self._with_object
        return ", ".join(c.name for c in channels if c.value is None)

    @property
    def height(self) -> float:
        """Of the object's centre in the training's world [m]."""
        return float(self._in_world(self.object.value[:3])[2])

    @property
    def is_dropped(self) -> bool:
        """Whether there is an object, and it is below the hand."""
        seen = self._with_object and self.object.value is not None
        return seen and self.height < self._drop_height

    def reading(self) -> Reading:
        """What the policy may know now."""
        return Reading(
            joint_angles=self.joints.value,
            fingertips=np.array([tip.value for tip in self.tips]),
            object_position=self.object.value[:3],
            object_orientation=self.object.value[3:],
        )

    def faults(self, now: float, moving: bool) -> list[Fault]:
        """All that is wrong at this moment.

        Args:
            now: by the transport's clock [s].
            moving: the policy moves the hand, so that numbers must change.
        """
        limits = self._limits
        found = self.joints.faults(now, limits.joints_age, moving)
        if self.joints.age(now) > limits.joints_lost:
            age = self.joints.age(now)
            found.append(
                Fault(
                    "joint angles lost",
                    f"no joint angles for {age:.2f} s",
                    Event.DANGER,
                )
            )
        newest = min(channel.age(now) for channel in [self.base, *self.tips])
        if newest > limits.markers_age:
            found.append(
                Fault("markers stale", f"no marker for {1000 * newest:.0f} ms")
            )
        found += self.base.faults(now, limits.tip_age, False)
        for tip in self.tips:
            found += tip.faults(now, limits.tip_age, moving)
        if self._with_object:
            found += self.object.faults(now, limits.object_age, moving)
        # As long as it was seen to be off: a hidden marker is no evidence.
        off = np.flatnonzero(
            self._tips_off_until - self._tips_off_since > limits.tip_error_time
        )
        if len(off):
            found.append(Fault("fingertips disagree", self._explain(off)))
        return found

    def _update_joints(self, sample: Sample | None) -> None:
        if not self.joints.is_news(sample):
            return
        low, high = self._joint_range.T
        excess = np.maximum(low - sample.value, sample.value - high)
        if not np.isfinite(sample.value).all():
            self.joints.reject("an angle is not a number", sample)
        elif excess.max() > self._limits.joint_excess:
            self.joints.reject(
                f"an angle is {excess.max():.2f} rad beyond its limit", sample
            )
        else:
            self.joints.take(sample.value, sample)

    def _update_markers(self, sample: Sample | None) -> None:
        if sample is None or sample is self._seen_markers:
            return
        self._seen_markers = sample
        # Some drivers put a marker that they do not see into the origin.
        lost = (sample.value == 0).all(1, keepdims=True)
        value = np.where(lost, np.nan, sample.value)
        base, tips = value[:3], value[3:]
        if self.base.is_news(sample) and np.isfinite(base).all():
            rotation, position, error = fit_frame(base, self._known)
            if error > self._limits.base_error:
                self.base.reject(
                    f"base markers are {1000 * error:.1f} mm off their places", sample
                )
            else:
                self.base.take(np.column_stack([rotation, position]), sample)
        if self.base.value is None:
            return
        for tip, place in zip(self.tips, tips):
            if tip.is_news(sample) and np.isfinite(place).all():
                tip.take(self._in_base(place), sample)
        self._compare_tips(sample.received)

    def _compare_tips(self, now: float) -> None:
        """Where fingertips are seen against where joint angles put them."""
        if self.joints.value is None or self.joints.age(now) > self._limits.joints_age:
            return
        fresh = np.array([tip.age(now) < 0.02 for tip in self.tips])
        seen = np.array(
            [np.zeros(3) if t.value is None else t.value for t in self.tips]
        )
        expected = self._chain.fingertips(self.joints.value)
        errors = np.linalg.norm(seen - expected, axis=1)
        off = errors > self._limits.tip_error
        self._tip_errors = np.where(fresh, errors, self._tip_errors)
        self._last_tips = seen, expected
        since = np.where(off, np.minimum(self._tips_off_since, now), np.inf)
        self._tips_off_since = np.where(fresh, since, self._tips_off_since)
        until = np.where(off, now, -np.inf)
        self._tips_off_until = np.where(fresh, until, self._tips_off_until)

    def _explain(self, off: np.ndarray) -> str:
        """Why fingertips may be elsewhere than joint angles put them."""
        seen, expected = self._last_tips
        limit = 0.7 * self._limits.tip_error
        worst = ", ".join(
            f"{FINGERS[k]} by {1000 * self._tip_errors[k]:.0f} mm" for k in off
        )
        text = f"fingertips are not where joint angles put them: {worst}"
        for order in permutations(range(len(FINGERS))):
            left = np.linalg.norm(seen[list(order)] - expected, axis=1)
            if order != tuple(range(len(FINGERS))) and left.max() < limit:
                swapped = [FINGERS[k] for k in range(len(FINGERS)) if order[k] != k]
                return f"{text}; the markers of {' and '.join(swapped)} are swapped"
        # The base's three markers lie in the plane y = 0 of their frame, so that a
        # mirrored system of coordinates shows in the sign of y alone.
        mirrored = np.linalg.norm(seen * [1, -1, 1] - expected, axis=1)
        if np.median(mirrored) < limit:
            return f"{text}; motion capture's coordinates are mirrored"
        return text

    def _update_object(self, sample: Sample | None, frame: str) -> None:
        if self.base.value is None or not self.object.is_news(sample):
            return
        value, limits = sample.value, self._limits
        length = np.linalg.norm(value[3:])
        if not np.isfinite(value).all():
            self.object.reject("a pose is not a number", sample)
            return
        if abs(length - 1) > limits.norm_error:
            self.object.reject(f"a quaternion has length {length:.2f}", sample)
            return
        in_hand = frame == "hand"
        position = value[:3] if in_hand else self._in_base(value[:3])
        world = self._in_world(position)
        falling = world[2] < self._drop_height
        # What falls goes on falling, for ever in a simulation.
        away = (world - self._start)[: 2 if falling else 3]
        distance = float(np.linalg.norm(away))
        if distance > limits.object_distance:
            self.object.reject(f"the object is {distance:.2f} m away", sample)
            return
        if self.object.value is not None and not falling:
            jump = float(np.linalg.norm(position - self.object.value[:3]))
            gap = self.object.age(sample.received)
            if jump > limits.object_jump + limits.object_speed * gap:
                self.object.reject(f"the object jumped {1000 * jump:.0f} mm", sample)
                return
        orientation = value[3:] / length
        if not in_hand:
            to_world = self._world_rotation.T @ self.base.value[:, :3].T
            turn = rotations.from_matrix(to_world)
            orientation = rotations.multiply(turn, orientation)
        self.object.take(np.concatenate([position, orientation]), sample)

    def _in_base(self, point: np.ndarray) -> np.ndarray:
        """From motion capture's frame to that of the base markers."""
        return (point - self.base.value[:, 3]) @ self.base.value[:, :3]

    def _in_world(self, point: np.ndarray) -> np.ndarray:
        """From the frame of the base markers to the training's world."""
        return point @ self._world_rotation + self._world_position
