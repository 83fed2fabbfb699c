"""How a simulated hand differs from the one that policies are trained with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Imperfections:
    """All are drawn once for a hand, from its seed; what is noise, at every reading."""

    backlash: float = 0.0
    """Free play between motor and joint, at most [rad]."""
    command_delay: float = 0.0
    """From a command's arrival to its effect [s]."""
    sensor_delay: float = 0.0
    """From a joint angle or a marker's place to its message [s]."""
    object_delay: float = 0.0
    """From the object's pose to its message [s]."""
    motor_lag: float = 0.0
    """Time constant with which motors follow targets [s]."""
    derivative: float = 0.0
    """D gain of the low-level controller, as a share of its P gain [s]."""
    strength: float = 0.0
    """Standard deviation of the logarithm of gains and force limits."""
    damping: float = 0.0
    """Standard deviation of the logarithm of joints' damping."""
    friction: float = 0.0
    """Standard deviation of the logarithm of sliding friction."""
    object_mass: float = 0.0
    """Standard deviation of the logarithm of the object's mass."""
    joint_nonlinearity: float = 0.0
    """Standard deviation of the joint sensors' errors at the points between which
    they are linear [rad]."""
    joint_noise: float = 0.0
    """Standard deviation [rad]."""
    marker_shift: float = 0.0
    """Standard deviation of where fingertip markers sit, each coordinate [m]."""
    marker_noise: float = 0.0
    """Standard deviation, each coordinate [m]."""
    marker_losses: float = 0.0
    """Of each fingertip's marker, in a second."""
    marker_loss_time: float = 0.3
    """Mean length of each [s]."""
    object_noise: float = 0.0
    """Standard deviation of the object's position, each coordinate [m]."""
    turn_noise: float = 0.0
    """Standard deviation of the object's orientation, about each axis [rad]."""


CLEAN = Imperfections()
"""The hand as the policy knows it, but for its controller and its physics step."""

UNSEEN = Imperfections(
    backlash=0.06,
    command_delay=0.008,
    sensor_delay=0.008,
    object_delay=0.02,
    motor_lag=0.015,
    derivative=0.01,
    strength=0.15,
    damping=0.25,
    friction=0.1,
    object_mass=0.15,
    joint_nonlinearity=0.03,
    joint_noise=0.002,
    marker_shift=0.002,
    marker_noise=0.0005,
    marker_losses=0.2,
    marker_loss_time=0.15,
    object_noise=0.001,
    turn_noise=0.02,
)
"""A hand that no policy was trained on: kinds of error that training randomizes, of
other shapes (play, lag, bent sensors), all at once."""

NOISY = Imperfections(
    command_delay=0.008, sensor_delay=0.008, joint_noise=0.002, marker_noise=0.0005
)
"""As the policy knows it, but what is read is late and not exact."""

PRESETS = {"clean": CLEAN, "noisy": NOISY, "unseen": UNSEEN}
