"""The containers that flow through the system, each for ONE environment.

Shapes are in the field docstrings, once; ``vmap`` adds the batch axis at the edge.
"""

from typing import Any

import jax
import jax.numpy as jnp
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
class Scene:
    """Where everything truly is, in the world."""

    body_position: jax.Array
    """[nbody, 3] the hand's bodies [m]."""
    body_quaternion: jax.Array
    """[nbody, 4] the hand's bodies."""
    geom_size: jax.Array
    """[ngeom, 3] [m], as in this world."""
    physics: PhysicsState


@struct.dataclass
class DerivedConstants:
    """MuJoCo model fields that follow from ``PhysicsParameters``."""

    body_subtreemass: jax.Array
    """[nbody] [kg]."""
    body_invweight0: jax.Array
    """[nbody, 2] mean inverse inertia: translation, rotation."""
    dof_invweight0: jax.Array
    """[nv] inverse inertia."""
    tendon_invweight0: jax.Array
    """[ntendon] inverse inertia."""
    geom_rbound: jax.Array
    """[ngeom] radius of the bounding sphere [m]."""
    geom_aabb: jax.Array
    """[ngeom, 6] bounding box: centre, half sizes [m]."""


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
    tendon_range: jax.Array
    """[ntendon, 2] [rad]."""
    gravity: jax.Array
    """[3] [m/s^2]."""
    derived: DerivedConstants
    """What MuJoCo computes from the fields above. MuJoCo's C engine does so itself."""


@struct.dataclass
class PhysicsDraw:
    """An episode's physics as named factors and offsets around nominal (Table 1).

    Randomization draws it, calibration fits it, an ablation resets it to nominal.
    """

    object_shape: jax.Array
    """[] 1 for a cube in the prism's place, 0 for the configured shape."""
    object_size: jax.Array
    """[] factor."""
    link_mass: jax.Array
    """[nbody - 2] factors, of the hand's bodies."""
    object_mass: jax.Array
    """[] factor."""
    surface_friction: jax.Array
    """[2] factors, of the hand's surface and of the object's."""
    joint_damping: jax.Array
    """[24] factors."""
    actuator_gain: jax.Array
    """[20] factors."""
    joint_limit: jax.Array
    """[24, 2] added to the lower and the upper limit [rad]."""
    gravity: jax.Array
    """[3] added [m/s^2]."""
    tendon_range: jax.Array
    """[ntendon, 2] added to the lower and the upper end, as shares of the width."""


@struct.dataclass
class HandDraw:
    """A hand as named factors and offsets around a calibration file (appendix C.3)."""

    joint_damping: jax.Array
    """[24] factors."""
    joint_equilibrium: jax.Array
    """[24] added to the angles at which joints' springs are at rest [rad]."""
    joint_friction: jax.Array
    """[24] factors of static friction."""
    joint_stiffness: jax.Array
    """[24] added [N m/rad]."""
    joint_margin: jax.Array
    """[24] factors."""
    joint_lower_limit: jax.Array
    """[24] added [rad]."""
    joint_upper_limit: jax.Array
    """[24] added [rad]."""
    actuator_gain: jax.Array
    """[20] factors."""
    actuator_force: jax.Array
    """[20] factors of the largest torque."""
    backlash_closing: jax.Array
    """[20] factors of the pace at which slack is taken up."""
    backlash_opening: jax.Array
    """[20] factors."""
    coupling_stiffness: jax.Array
    """[4] factors, of the spring between a finger's middle and distal joint."""
    coupling_rest: jax.Array
    """[4] added to the angle between them at rest [rad]."""
    coupling_ratio: jax.Array
    """[4] factors of the outer pulley's radius."""
    coupling_damping: jax.Array
    """[4] factors."""


@struct.dataclass
class SensorErrors:
    """Errors of what is measured, or their standard deviations."""

    fingertips: jax.Array
    """[5, 3] [m]."""
    object_position: jax.Array
    """[3] [m]."""
    object_orientation: jax.Array
    """[3] turn vector [rad]."""


@struct.dataclass
class MarkerShifts:
    """How far markers sit from where they should [m]."""

    fingertips: jax.Array
    """[5, 3] in the frame of each fingertip's body."""
    base: jax.Array
    """[3, 3] in the frame of the hand base."""


@struct.dataclass
class ActionErrors:
    """An episode's action noise."""

    correlated: jax.Array
    """[20] added to every action."""
    additive: jax.Array
    """[] standard deviation of what is added to each action."""
    multiplicative: jax.Array
    """[] standard deviation of the factor's distance from 1."""


@struct.dataclass
class PushDraw:
    """How an episode's object is pushed."""

    probability: jax.Array
    """[] of a new push in a control step."""
    acceleration: jax.Array
    """[] standard deviation along each axis [m/s^2]."""
    decay: jax.Array
    """[] of the force, per control step."""


@struct.dataclass
class LossDraw:
    """How an episode's readings are lost for a while."""

    probability: jax.Array
    """[] in a control step."""
    steps: jax.Array
    """[] length of each loss, or its mean [control steps]."""


@struct.dataclass
class EpisodeDraw:
    """Everything random that is fixed for an episode; fields have effects' names."""

    physics: PhysicsDraw
    parameters: PhysicsParameters
    """The world that ``physics`` makes of the nominal one."""
    correlated_noise: SensorErrors
    uncorrelated_noise: SensorErrors
    """Standard deviations, scalars all three; the errors are drawn every step."""
    marker_placement: MarkerShifts
    marker_dropout: LossDraw
    """Of each fingertip's reading."""
    marker_occlusion: jax.Array
    """[] depth in a nail's box from which something hides the marker [m]; 1 without
    occlusion."""
    object_tracking_loss: LossDraw
    """Of the object's reading."""
    action_noise: ActionErrors
    action_delay: jax.Array
    """[20] bool: this actuator lags by one control step."""
    backlash: jax.Array
    """[20, 2] control steps in which a full action takes up one unit of slack, closing
    and opening; 0 without backlash."""
    timestep_jitter: jax.Array
    """[] mean time by which physics steps are too long [s]."""
    random_push: PushDraw


@struct.dataclass
class EffectMemory:
    """What per-step effects remember from one control step to the next."""

    smoothed_action: jax.Array
    """[20] moving average of actions, before bias correction."""
    smoothing_weight: jax.Array
    """[] total weight of the actions in that average; 0 when there are none."""
    delayed_action: jax.Array
    """[20] the action before, for actuators that lag."""
    slack: jax.Array
    """[20] in [-1, 1]: where in its backlash each actuator is."""
    push: jax.Array
    """[3] force on the object's centre, world frame [N]."""
    fingertip_reading: jax.Array
    """[5, 3] what each marker last read [m]."""
    dropout_left: jax.Array
    """[5] control steps for which each marker stays frozen."""
    object_reading: jax.Array
    """[7] position [m] and orientation that were read last."""
    tracking_loss_left: jax.Array
    """[] control steps for which the object's reading stays frozen."""
    readings: jax.Array
    """[] int32, readings so far in this episode."""

    @classmethod
    def empty(cls) -> "EffectMemory":
        """As an episode begins."""
        return cls(
            smoothed_action=jnp.zeros(20),
            smoothing_weight=jnp.zeros(()),
            delayed_action=jnp.zeros(20),
            slack=jnp.zeros(20),
            push=jnp.zeros(3),
            fingertip_reading=jnp.zeros((5, 3)),
            dropout_left=jnp.zeros(5),
            object_reading=jnp.zeros(7),
            tracking_loss_left=jnp.zeros(()),
            readings=jnp.zeros((), jnp.int32),
        )


@struct.dataclass
class EnvState:
    """One environment between two control steps."""

    physics: PhysicsState
    draw: EpisodeDraw
    probe: jax.Array
    """[] int32: which bound of adaptive randomization this episode tries, or -1."""
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
    """[action coordinates] bin of each, or any numbers."""
    log_prob: jax.Array
    """[] of that action when it was taken."""
    value: jax.Array
    """[] estimate for ``observation``, in units of reward."""
    next_value: jax.Array
    """[] estimate for the observation that followed, before any reset; 0 where the
    episode was terminated."""
    reward: jax.Array
    """[] that followed."""
    first: jax.Array
    """[] bool: ``observation`` begins an episode; memory is cleared before it."""
    terminated: jax.Array
    """[] bool: after this action."""
    truncated: jax.Array
    """[] bool: after this action."""
