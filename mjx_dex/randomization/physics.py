"""Physics effects (Table 1): each sets model fields to nominal times or plus a draw.

Every function takes the fields as other effects left them and its own draw, and writes
from nominal: applying one twice, or after another episode's, changes nothing.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from mjx_dex.hand import Hand
from mjx_dex.hand.model import NUM_JOINTS
from mjx_dex.hand.objects import contact_friction
from mjx_dex.physics import nominal_parameters
from mjx_dex.types import PhysicsDraw, PhysicsParameters

NARROWEST_RANGE = 0.05
"""Limits that a draw brings closer together than this [rad], or past each other, are
set this far apart: 4.1 % of draws do that to the narrowest joint, THJ2, 0.1 % to WRJ1,
the next one; to one joint or another in 4.3 % of episodes."""

INSIDE = 0.5
"""Size of what is hidden inside a block, as a share of the block's."""


@dataclass(frozen=True)
class Nominal:
    """The model that draws are relative to."""

    parameters: PhysicsParameters
    object_body: int
    is_object_geom: np.ndarray
    """[ngeom] bool."""
    friction_rule: str
    """See ``PhysicsConfig``."""
    is_prism: bool
    """The object is one, and can be made a block (``object_shape``)."""
    block_size: np.ndarray
    """[ngeom, 3] half sizes where that was done [m]."""
    block_inertia: np.ndarray
    """[3] the object's, then [kg m^2]."""


def nominal(hand: Hand) -> Nominal:
    """Nominal physics of a scene with an object."""
    model, object_body = hand.model, hand.model.body("object").id
    is_object = model.geom_bodyid == object_body
    first, *others = np.flatnonzero(is_object)
    half = model.geom_size[first, 0]
    block_size = model.geom_size.copy()
    block_size[first] = half
    block_size[others] = INSIDE * half
    mass = model.body_mass[object_body]
    return Nominal(
        parameters=nominal_parameters(model),
        object_body=object_body,
        is_object_geom=is_object,
        friction_rule=hand.friction_rule,
        is_prism=bool(others),
        block_size=block_size,
        block_inertia=np.full(3, mass * (2 * half) ** 2 / 6),
    )


def object_shape(
    parameters: PhysicsParameters, draw: jax.Array, nominal: Nominal
) -> PhysicsParameters:
    """Make a block of a prism where ``draw`` [] is 1, as wide, its inertia with it.

    Of the prism's four boxes the first becomes the block, and the others are hidden
    inside it. Ours: the paper leaves one policy for several objects to future work.
    """
    if not nominal.is_prism:
        return parameters
    factor = _factor(parameters, nominal)
    parameters = _resize_object(parameters, draw == 1, factor, nominal)
    return _match_object_inertia(parameters, nominal)


def object_size(
    parameters: PhysicsParameters, draw: jax.Array, nominal: Nominal
) -> PhysicsParameters:
    """Scale the object in all dimensions by ``draw`` [], its inertia with it."""
    is_block = _is_block(parameters, nominal)
    parameters = _resize_object(parameters, is_block, draw, nominal)
    return _match_object_inertia(parameters, nominal)


def object_mass(
    parameters: PhysicsParameters, draw: jax.Array, nominal: Nominal
) -> PhysicsParameters:
    """Scale the object's mass and inertia by ``draw`` []."""
    body = nominal.object_body
    mass = nominal.parameters.body_mass[body] * draw
    parameters = parameters.replace(body_mass=parameters.body_mass.at[body].set(mass))
    return _match_object_inertia(parameters, nominal)


def link_mass(
    parameters: PhysicsParameters, draw: jax.Array, nominal: Nominal
) -> PhysicsParameters:
    """Scale mass and inertia of each of the hand's bodies by ``draw`` [nbody - 2]."""
    links = slice(1, nominal.object_body)
    mass, inertia = nominal.parameters.body_mass, nominal.parameters.body_inertia
    return parameters.replace(
        body_mass=parameters.body_mass.at[links].set(mass[links] * draw),
        body_inertia=parameters.body_inertia.at[links].set(
            inertia[links] * draw[:, None]
        ),
    )


def surface_friction(
    parameters: PhysicsParameters, draw: jax.Array, nominal: Nominal
) -> PhysicsParameters:
    """Scale all friction coefficients of hand and object by ``draw`` [2].

    One factor for the whole hand and one for the object, as in robogym. The friction of
    a contact follows from both by ``physics.friction_rule``.
    """
    of_hand, of_object = draw
    if nominal.friction_rule != "maximum":
        # The hand's geoms hold the contact's friction: see ``objects.share_friction``.
        of_hand = contact_friction(of_hand, of_object, nominal.friction_rule)
    factor = jnp.where(nominal.is_object_geom[:, None], of_object, of_hand)
    friction = nominal.parameters.geom_friction * factor
    return parameters.replace(geom_friction=friction)


def joint_damping(
    parameters: PhysicsParameters, draw: jax.Array, nominal: Nominal
) -> PhysicsParameters:
    """Scale each hand joint's damping by ``draw`` [24]."""
    damping = nominal.parameters.dof_damping
    return parameters.replace(
        dof_damping=damping.at[:NUM_JOINTS].set(damping[:NUM_JOINTS] * draw)
    )


def actuator_gain(
    parameters: PhysicsParameters, draw: jax.Array, nominal: Nominal
) -> PhysicsParameters:
    """Scale each actuator's P term by ``draw`` [20]: gain and bias together."""
    gain = nominal.parameters.actuator_gainprm
    bias = nominal.parameters.actuator_biasprm
    return parameters.replace(
        actuator_gainprm=gain.at[:, 0].set(gain[:, 0] * draw),
        actuator_biasprm=bias.at[:, 1].set(bias[:, 1] * draw),
    )


def joint_limit(
    parameters: PhysicsParameters, draw: jax.Array, nominal: Nominal
) -> PhysicsParameters:
    """Shift both limits of each hand joint by ``draw`` [24, 2].

    The range of the actuators' targets follows: see ``control_range``.
    """
    limits = nominal.parameters.jnt_range
    drawn = _at_least_apart(limits[:NUM_JOINTS] + draw, NARROWEST_RANGE)
    return parameters.replace(jnt_range=limits.at[:NUM_JOINTS].set(drawn))


def gravity(
    parameters: PhysicsParameters, draw: jax.Array, nominal: Nominal
) -> PhysicsParameters:
    """Add ``draw`` [3] to gravity."""
    return parameters.replace(gravity=nominal.parameters.gravity + draw)


def tendon_range(
    parameters: PhysicsParameters, draw: jax.Array, nominal: Nominal
) -> PhysicsParameters:
    """Shift both ends of each tendon's range by ``draw`` [ntendon, 2] of its width.

    Not in the paper; in robogym, which keeps the lower end from becoming negative.
    """
    limits = nominal.parameters.tendon_range
    width = limits[:, 1:] - limits[:, :1]
    lowest = jnp.minimum(limits[:, :1], 0.0)
    drawn = jnp.maximum(limits + draw * width, lowest)
    return parameters.replace(tendon_range=_at_least_apart(drawn, 0.0))


EFFECTS = {
    function.__name__: function
    for function in (
        object_shape,
        object_size,
        link_mass,
        object_mass,
        surface_friction,
        joint_damping,
        actuator_gain,
        joint_limit,
        gravity,
        tendon_range,
    )
}


def apply(draw: PhysicsDraw, nominal: Nominal) -> PhysicsParameters:
    """The world that ``draw`` makes of the nominal one, but for derived constants."""
    parameters = nominal.parameters
    for name, effect in EFFECTS.items():
        parameters = effect(parameters, getattr(draw, name), nominal)
    return parameters


def nominal_draw(hand: Hand) -> PhysicsDraw:
    """The draw that changes nothing."""
    return PhysicsDraw(
        object_shape=jnp.zeros(()),
        object_size=jnp.ones(()),
        link_mass=jnp.ones(hand.model.nbody - 2),
        object_mass=jnp.ones(()),
        surface_friction=jnp.ones(2),
        joint_damping=jnp.ones(NUM_JOINTS),
        actuator_gain=jnp.ones(hand.model.nu),
        joint_limit=jnp.zeros((NUM_JOINTS, 2)),
        gravity=jnp.zeros(3),
        tendon_range=jnp.zeros((hand.model.ntendon, 2)),
    )


def control_range(
    parameters: PhysicsParameters, nominal: Nominal, hand: Hand
) -> jax.Array:
    """[20, 2] range of each actuator's targets [rad], moved as its joints' limits are.

    A coupled actuator's range moves by the sum of its two joints'. Like limits, the
    ends of a range never cross.
    """
    shift = parameters.jnt_range - nominal.parameters.jnt_range
    shift = jnp.asarray(hand.actuator_joints) @ shift[:NUM_JOINTS]
    moved = jnp.asarray(hand.ctrl_range, jnp.float32) + shift
    return _at_least_apart(moved, NARROWEST_RANGE)


def _resize_object(
    parameters: PhysicsParameters, is_block, factor, nominal: Nominal
) -> PhysicsParameters:
    """Set the object's sizes to ``factor`` [] times those of its shape."""
    sizes = jnp.where(is_block, nominal.block_size, nominal.parameters.geom_size)
    factors = jnp.where(nominal.is_object_geom, factor, 1.0)[:, None]
    return parameters.replace(geom_size=sizes * factors)


def _match_object_inertia(
    parameters: PhysicsParameters, nominal: Nominal
) -> PhysicsParameters:
    """The object's inertia from shape, mass and size as they are now: I ~ m s^2."""
    body = nominal.object_body
    own = nominal.parameters.body_inertia[body]
    own = jnp.where(_is_block(parameters, nominal), nominal.block_inertia, own)
    mass = parameters.body_mass[body] / nominal.parameters.body_mass[body]
    inertia = own * (mass * _factor(parameters, nominal) ** 2)
    return parameters.replace(
        body_inertia=parameters.body_inertia.at[body].set(inertia)
    )


def _factor(parameters: PhysicsParameters, nominal: Nominal) -> jax.Array:
    """[] the object's size as it is now: block and prism are equally wide."""
    geom = int(np.argmax(nominal.is_object_geom))
    return parameters.geom_size[geom, 0] / nominal.parameters.geom_size[geom, 0]


def _is_block(parameters: PhysicsParameters, nominal: Nominal) -> jax.Array:
    """[] bool: the prism is a block now."""
    width, height, _ = parameters.geom_size[int(np.argmax(nominal.is_object_geom))]
    return nominal.is_prism & (width == height)


def _at_least_apart(limits: jax.Array, distance: float) -> jax.Array:
    """[n, 2] limits, moved away from their middle where they are too close."""
    middle = limits.mean(1, keepdims=True)
    half = jnp.array([-distance / 2, distance / 2])
    too_close = limits[:, 1:] - limits[:, :1] < distance
    return jnp.where(too_close, middle + half, limits)
