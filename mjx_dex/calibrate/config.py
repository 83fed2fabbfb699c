"""What is fitted, within which bounds, and how."""

from dataclasses import dataclass, field
from typing import Literal

from mjx_dex.config import HandConfig
from mjx_dex.ranges import (
    Checked,
    Count,
    Finite,
    Positive,
    SettingError,
    check_order,
    real,
    whole,
)


@dataclass(frozen=True)
class FactorConfig(Checked):
    """One of ``factors.FACTORS``, for all its joints or actuators."""

    free: bool = True
    """Fit it; otherwise it stays as in the calibration file."""
    deviation: Positive = 0.3
    """Standard deviation of the prior: of the logarithm, for what multiplies."""
    low: Finite = 0.2
    """Lowest value."""
    high: Finite = 5.0
    """Highest value."""

    def validate(self):
        """See ``Checked``."""
        check_order(self.low, self.high)


@dataclass(frozen=True)
class FactorsConfig(Checked):
    """Bounds and priors of the 264 values (appendix C.3)."""

    joint_damping: FactorConfig = FactorConfig()
    """Times."""
    joint_equilibrium: FactorConfig = FactorConfig(True, 0.1, -0.5, 0.5)
    """Added to the angle at which a joint's spring is at rest [rad]."""
    joint_friction: FactorConfig = FactorConfig()
    """Times static friction."""
    joint_stiffness: FactorConfig = FactorConfig(True, 0.01, -0.05, 0.1)
    """Added to a joint's spring [N m/rad]; what gets below 0 is 0."""
    joint_margin: FactorConfig = FactorConfig()
    """Times the distance from a limit at which it begins to act."""
    joint_lower_limit: FactorConfig = FactorConfig(True, 0.1, -0.4, 0.4)
    """Added [rad]."""
    joint_upper_limit: FactorConfig = FactorConfig(True, 0.1, -0.4, 0.4)
    """Added [rad]."""
    actuator_gain: FactorConfig = FactorConfig()
    """Times the P gain."""
    actuator_force: FactorConfig = FactorConfig()
    """Times the largest torque."""
    backlash_closing: FactorConfig = FactorConfig(True, 1.0, 0.05, 20.0)
    """Times the pace at which slack is taken up."""
    backlash_opening: FactorConfig = FactorConfig(True, 1.0, 0.05, 20.0)
    """Times the pace at which slack is taken up."""
    coupling_stiffness: FactorConfig = FactorConfig()
    """Times the spring between a finger's last two joints."""
    coupling_rest: FactorConfig = FactorConfig(True, 0.1, -0.4, 0.4)
    """Added to the angle between them at rest [rad]."""
    coupling_ratio: FactorConfig = FactorConfig(True, 0.1, 0.6, 1.6)
    """Times the outer pulley's radius."""
    coupling_damping: FactorConfig = FactorConfig()
    """Times the damping of their sum."""


@dataclass(frozen=True)
class WindowsConfig(Checked):
    """Pieces of a recording, each replayed open loop from a recorded state."""

    seconds: real(0, 3600, above=True) = 1.0
    """Length; the error that counts is at its end (C.3)."""
    stride: real(0, 3600, above=True) = 0.25
    """From the beginning of one to that of the next [s]."""
    times: tuple[Positive, ...] = (0.25, 0.5, 0.75, 1.0)
    """When least squares looks [s]: a joint that has arrived tells nothing of how."""
    held_out: whole(2) = 5
    """Of so many seconds' windows, the last second's are kept from the fit."""
    moving: real(0, 10) = 0.05
    """A part of the hand is fitted to windows in which its targets or angles move more
    than this [rad]."""

    def validate(self):
        """See ``Checked``."""
        if not self.times:
            raise SettingError("times", "is empty; give at least one")
        for k, time in enumerate(self.times):
            if time > self.seconds:
                problem = f"({time:g}) must not exceed seconds ({self.seconds:g})"
                raise SettingError(f"times[{k}]", problem)


@dataclass(frozen=True)
class CalibrateConfig(Checked):
    """Everything about a fit."""

    hand: HandConfig = field(default_factory=HandConfig)
    """Whose calibration the fit begins with."""
    factors: FactorsConfig = field(default_factory=FactorsConfig)
    windows: WindowsConfig = field(default_factory=WindowsConfig)
    method: Literal["least_squares", "coordinate_descent"] = "least_squares"
    """``mujoco.sysid``'s least squares, or the paper's."""
    timestep: real(1e-5, 0.1) = 0.008
    """Of physics [s]; the one that policies are trained with."""
    noise: Positive = 0.005
    """How far angles may be off for reasons that no value explains, as a standard
    deviation [rad]: what the prior is weighed against, and values' uncertainty."""
    iterations: Count = 30
    """At most: of least squares, or sweeps of coordinate descent."""
    first_sweeps: whole(0) = 8
    """Of coordinate descent, before least squares."""
    latency: tuple[real(0, 10), real(0, 10)] = (0.0, 0.1)
    """Least and most from a command to when its effect is read [s]; fitted, too."""
    worlds: Count = 1024
    """Windows that are replayed at once."""
    threads: whole(0, 4096) = 0
    """0 takes one for each CPU core."""

    def validate(self):
        """See ``Checked``."""
        least, most = self.latency
        if least > most:
            raise SettingError("latency", f"({least:g}, {most:g}): the least first")
        for name in ("seconds", "stride"):
            if getattr(self.windows, name) < self.timestep:
                problem = f"must be timestep ({self.timestep:g}) or more"
                raise SettingError(f"windows.{name}", problem)
