"""Effects between the true state and what the policy is told (Table 7, C.2).

Each is ``(key, sensors, draw, memory, ...) -> (sensors, memory)``. The value network
never sees any of them.
"""

import jax
import jax.numpy as jnp

from mjx_dex import rotations
from mjx_dex.hand.model import frame_from_markers
from mjx_dex.types import EffectMemory, LossDraw, MarkerShifts, SensorErrors, Sensors


def marker_placement(
    key: jax.Array,
    sensors: Sensors,
    draw: MarkerShifts,
    memory: EffectMemory,
    fingertip_rotations: jax.Array,
    base_markers: jax.Array,
) -> tuple[Sensors, EffectMemory]:
    """Measure with markers that sit a little beside their places.

    A fingertip's marker turns with its finger. The three markers of the base define the
    frame in which all positions are measured.

    Args:
        key: not used.
        sensors: measured with markers in their places.
        draw: how far each marker is off.
        memory: unchanged.
        fingertip_rotations: [5, 3, 3] from each fingertip's body to the base's frame.
        base_markers: [3, 3] their places in the base's frame [m].
    """
    shift = jnp.einsum("fij,fj->fi", fingertip_rotations, draw.fingertips)
    origin, axes = frame_from_markers(base_markers + draw.base, jnp)
    return sensors.replace(
        fingertips=(sensors.fingertips + shift - origin) @ axes.T,
        object_position=axes @ (sensors.object_position - origin),
    ), memory


def correlated_noise(
    key: jax.Array, sensors: Sensors, draw: SensorErrors, memory: EffectMemory
) -> tuple[Sensors, EffectMemory]:
    """Add an episode's constant errors."""
    return _add_errors(sensors, draw), memory


def uncorrelated_noise(
    key: jax.Array, sensors: Sensors, draw: SensorErrors, memory: EffectMemory
) -> tuple[Sensors, EffectMemory]:
    """Add fresh errors of standard deviations ``draw``, scalars."""
    return _add_errors(sensors, draw_errors(key, draw)), memory


def marker_occlusion(
    key: jax.Array,
    sensors: Sensors,
    draw: jax.Array,
    memory: EffectMemory,
    depths: jax.Array,
) -> tuple[Sensors, EffectMemory]:
    """Repeat the last reading of fingertips that something hides.

    Args:
        key: not used.
        sensors: as they would be read.
        draw: [] depth from which a marker is hidden [m].
        memory: holds the readings.
        depths: [5] how far anything reaches into the box on each nail [m].
    """
    return _freeze_fingertips(sensors, depths > draw, memory)


def marker_dropout(
    key: jax.Array,
    sensors: Sensors,
    draw: LossDraw,
    memory: EffectMemory,
) -> tuple[Sensors, EffectMemory]:
    """Repeat the last reading of fingertips whose marker is lost for a while.

    Each marker is lost on its own, and not again before it is found.

    Args:
        key: random key.
        sensors: as they would be read.
        draw: how often and for how long.
        memory: holds readings and times.
    """
    left = memory.dropout_left - 1
    lost = jax.random.bernoulli(key, draw.probability, left.shape) & (left <= 0)
    left = jnp.where(lost, draw.steps, jnp.maximum(left, 0.0))
    memory = memory.replace(dropout_left=left)
    return _freeze_fingertips(sensors, left > 0, memory)


def object_tracking_loss(
    key: jax.Array,
    sensors: Sensors,
    draw: LossDraw,
    memory: EffectMemory,
) -> tuple[Sensors, EffectMemory]:
    """Repeat the object's last pose while its tracking is lost.

    Not in the paper. As in robogym, the length of a loss is exponentially distributed.
    """
    lost_key, length_key = jax.random.split(key)
    left = memory.tracking_loss_left - 1
    lost = jax.random.bernoulli(lost_key, draw.probability) & (left <= 0)
    length = draw.steps * jax.random.exponential(length_key)
    left = jnp.where(lost, length, jnp.maximum(left, 0.0))
    frozen = (left > 0) & (memory.readings > 0)
    now = jnp.concatenate([sensors.object_position, sensors.object_orientation])
    pose = jnp.where(frozen, memory.object_reading, now)
    sensors = sensors.replace(object_position=pose[:3], object_orientation=pose[3:])
    return sensors, memory.replace(tracking_loss_left=left)


def remember(sensors: Sensors, memory: EffectMemory) -> EffectMemory:
    """Keep what was read, for when a later reading is lost."""
    pose = jnp.concatenate([sensors.object_position, sensors.object_orientation])
    return memory.replace(
        fingertip_reading=sensors.fingertips,
        object_reading=pose,
        readings=memory.readings + 1,
    )


def draw_errors(key: jax.Array, deviations: SensorErrors) -> SensorErrors:
    """Gaussian errors of standard deviations that are scalars.

    The orientation's is a Gaussian angle about an axis drawn evenly from the sphere.
    """
    tips_key, position_key, angle_key, axis_key = jax.random.split(key, 4)
    angle = deviations.object_orientation * jax.random.normal(angle_key)
    return SensorErrors(
        fingertips=deviations.fingertips * jax.random.normal(tips_key, (5, 3)),
        object_position=deviations.object_position
        * jax.random.normal(position_key, (3,)),
        object_orientation=angle * rotations.random_axis(axis_key),
    )


def _add_errors(sensors: Sensors, errors: SensorErrors) -> Sensors:
    turn = rotations.from_rotation_vector(errors.object_orientation)
    return sensors.replace(
        fingertips=sensors.fingertips + errors.fingertips,
        object_position=sensors.object_position + errors.object_position,
        object_orientation=rotations.multiply(turn, sensors.object_orientation),
    )


def _freeze_fingertips(
    sensors: Sensors, frozen: jax.Array, memory: EffectMemory
) -> tuple[Sensors, EffectMemory]:
    # An episode's first reading has none before it to be repeated.
    frozen = frozen & (memory.readings > 0)
    fingertips = jnp.where(
        frozen[:, None], memory.fingertip_reading, sensors.fingertips
    )
    return sensors.replace(fingertips=fingertips), memory
