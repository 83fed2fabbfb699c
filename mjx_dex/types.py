"""The containers that flow through the system, each for ONE environment.

Shapes are in the field docstrings, once; ``vmap`` adds the batch axis at the edge.
"""

from typing import Any

import jax
from flax import struct


@struct.dataclass
class Sensors:
    """What can be sensed. Made by the simulator, the pose net or the robot."""

    fingertips: jax.Array
    """[5, 3] fingertip markers in the frame of the hand base's markers [m]."""
    object_position: jax.Array
    """[3] centre of the object in the same frame [m]."""
    object_orientation: jax.Array
    """[4] unit quaternion (w, x, y, z), object to world."""
    joint_angles: jax.Array
    """[24] [rad]."""
    joint_velocities: jax.Array
    """[24] [rad/s]."""
    object_velocity: jax.Array
    """[3] world frame [m/s]."""
    object_angular_velocity: jax.Array
    """[3] object's own frame [rad/s]."""


@struct.dataclass
class PhysicsState:
    """All that physics carries from one control step to the next."""

    qpos: jax.Array
    """[nq] hand joints [rad], then object position [m] and quaternion."""
    qvel: jax.Array
    """[nv] hand joints [rad/s], then object velocity [m/s] and rotation [rad/s]."""
    warmstart: jax.Array
    """[nv] accelerations with which the constraint solver starts."""


@struct.dataclass
class PhysicsParameters:
    """MuJoCo model fields that may differ between environments, under MuJoCo's names.

    Every field can be varied on all three engines.
    """

    body_mass: jax.Array
    """[nbody] [kg]."""
    body_inertia: jax.Array
    """[nbody, 3] [kg m^2]."""
    geom_size: jax.Array
    """[ngeom, 3] [m]."""
    geom_friction: jax.Array
    """[ngeom, 3] sliding [-], torsional and rolling [m]."""
    dof_damping: jax.Array
    """[nv] [N m s/rad]."""
    actuator_gainprm: jax.Array
    """[nu, 10] first entry: P gain [N m/rad]."""
    actuator_biasprm: jax.Array
    """[nu, 10] second entry: minus the P gain."""
    jnt_range: jax.Array
    """[njnt, 2] [rad]."""
    gravity: jax.Array
    """[3] [m/s^2]."""


@struct.dataclass
class EpisodeDraw:
    """Everything random that is fixed for an episode."""

    parameters: PhysicsParameters
    """The world this episode runs in."""


@struct.dataclass
class EffectMemory:
    """What per-step effects remember from one control step to the next."""

    smoothed_action: jax.Array
    """[20] moving average of actions, before bias correction."""
    smoothing_weight: jax.Array
    """[] total weight of the actions in that average; 0 when there are none."""
    push: jax.Array
    """[3] force on the object's centre, world frame [N]."""


@struct.dataclass
class EnvState:
    """One environment between two control steps."""

    physics: PhysicsState
    draw: EpisodeDraw
    memory: EffectMemory
    goal: jax.Array
    """[4] desired orientation of the object, a unit quaternion."""
    goal_angle_limit: jax.Array
    """[] largest turn to a 'near' goal in this environment [rad]; the curriculum."""
    angle_to_goal: jax.Array
    """[] true remaining turn to the goal [rad]."""
    goals_met: jax.Array
    """[] int32, in this episode."""
    steps_on_goal: jax.Array
    """[] int32, control steps since the goal was set."""
    episode_steps: jax.Array
    """[] int32, control steps since the episode began."""
    key: jax.Array
    """Random key of this environment."""


@struct.dataclass
class Observation:
    """What the two networks see (Table 2)."""

    policy: jax.Array
    """[policy inputs]."""
    value: jax.Array
    """[value inputs], complete and noiseless."""


@struct.dataclass
class TimeStep:
    """Outcome of one control step. Times are in the names: there is no ``done``."""

    observation: Any
    """What the networks see next; after a reset, of the new episode."""
    last_observation: Any
    """What they would have seen had there been no reset: a truncated episode's value
    is bootstrapped from it."""
    reward: jax.Array
    """[] for the action just taken."""
    terminated: jax.Array
    """[] bool: the episode ended and nothing follows (the object was dropped)."""
    truncated: jax.Array
    """[] bool: the episode was cut, though it could have gone on."""
    metrics: dict[str, jax.Array]
    """Scalars to be summed over environments and steps, by name."""


@struct.dataclass
class Transition:
    """One step of experience, as PPO stores it."""

    observation: Any
    action: jax.Array
    """[action coordinates] int32, bin of each."""
    log_prob: jax.Array
    """[] of that action when it was taken."""
    value: jax.Array
    """[] estimate for ``observation``, in units of reward."""
    next_value: jax.Array
    """[] estimate for the observation that followed, before any reset."""
    reward: jax.Array
    """[] that followed."""
    first: jax.Array
    """[] bool: ``observation`` begins an episode; memory is cleared before it."""
    terminated: jax.Array
    """[] bool: after this action."""
    truncated: jax.Array
    """[] bool: after this action."""
