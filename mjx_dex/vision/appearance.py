"""Table 9: how each row is drawn, and how an appearance looks to MuJoCo.

An ``Appearance`` is drawn once and drives every renderer: ``model_fields`` says what it
makes of the model's fields, which OpenGL, Warp and Filament read each in their way.
Rows draw with keys into which their name is folded, so that switching one off leaves
all others as they were.
"""

import zlib

import jax
import jax.numpy as jnp
from flax import struct

from mjx_dex import rotations
from mjx_dex.vision.config import MAX_LIGHTS, AppearanceConfig, Interval
from mjx_dex.vision.scene import GAZE, VisionScene

NOMINAL_INTENSITY = 7.5
"""Of all lights together, the middle of Table 9's range."""

CLASSIC_GAIN = 0.12
"""Diffuse and specular light of MuJoCo's own shading for one unit of intensity: images
are neither black nor saturated over Table 9's range (measured)."""

CANDELA = 60_000.0
"""Filament's intensity for one unit: its images are as bright as MuJoCo's own, or next
to it, from 4 units on. Its tone mapping has dimmer ones darker (docs/vision.md)."""


@struct.dataclass
class Appearance:
    """How one scene looks; fields are rows of Table 9."""

    camera_position: jax.Array
    """[3, 3] offset of each camera, world axes [m]."""
    camera_rotation: jax.Array
    """[3, 4] quaternion by which each camera is turned."""
    field_of_view: jax.Array
    """[3] offset [deg]."""
    robot_color: jax.Array
    """[robot, 3] RGB of each part of the hand."""
    robot_metallic: jax.Array
    """[robot]."""
    robot_glossiness: jax.Array
    """[robot]."""
    object_hue: jax.Array
    """[faces] offset from the calibrated colour, in turns."""
    object_saturation: jax.Array
    """[faces] offset."""
    object_value: jax.Array
    """[faces] offset."""
    object_metallic: jax.Array
    """[]."""
    object_glossiness: jax.Array
    """[]."""
    num_lights: jax.Array
    """[] int."""
    light_position: jax.Array
    """[6, 3] from the middle of the palm, world axes [m]."""
    light_relative_intensity: jax.Array
    """[6]."""
    light_total_intensity: jax.Array
    """[]."""


def nominal(scene: VisionScene) -> Appearance:
    """Nothing randomized: grey hand, calibrated colours, six equal lights."""
    robot, faces = len(scene.robot_materials), len(scene.face_materials)
    return Appearance(
        camera_position=jnp.zeros((3, 3)),
        camera_rotation=jnp.tile(jnp.array([1.0, 0, 0, 0]), (3, 1)),
        field_of_view=jnp.zeros(3),
        robot_color=jnp.full((robot, 3), 0.6),
        robot_metallic=jnp.full(robot, 0.15),
        robot_glossiness=jnp.full(robot, 0.5),
        object_hue=jnp.zeros(faces),
        object_saturation=jnp.zeros(faces),
        object_value=jnp.zeros(faces),
        object_metallic=jnp.full((), 0.1),
        object_glossiness=jnp.full((), 0.1),
        num_lights=jnp.full((), MAX_LIGHTS),
        light_position=jnp.asarray(scene.model.light_pos) - jnp.array(GAZE),
        light_relative_intensity=jnp.ones(MAX_LIGHTS),
        light_total_intensity=jnp.full((), NOMINAL_INTENSITY),
    )


def sample(key: jax.Array, config: AppearanceConfig, nominal: Appearance) -> Appearance:
    """Draw all rows that are not off."""
    drawn = {
        name: row(
            jax.random.fold_in(key, zlib.crc32(name.encode())),
            getattr(config, name),
            getattr(nominal, name).shape,
        )
        for name, row in ROWS.items()
        if name not in config.off
    }
    return nominal.replace(**drawn)


def evenly(key: jax.Array, interval: Interval, shape: tuple) -> jax.Array:
    """Every value by itself, evenly over the interval."""
    return jax.random.uniform(key, shape, minval=interval.low, maxval=interval.high)


def about_any_axis(key: jax.Array, interval: Interval, shape: tuple) -> jax.Array:
    """Quaternions that turn by an angle [deg] about a random axis."""
    axes, angles = jax.random.split(key)
    axis = jax.vmap(rotations.random_axis)(jax.random.split(axes, shape[0]))
    turn = jnp.deg2rad(evenly(angles, interval, shape[:1]))
    return jax.vmap(rotations.from_axis_angle)(axis, turn)


def over_half_sphere(key: jax.Array, interval: Interval, shape: tuple) -> jax.Array:
    """Directions evenly over the upper half sphere, distances over the interval."""
    directions, distances = jax.random.split(key)
    axis = jax.vmap(rotations.random_axis)(jax.random.split(directions, shape[0]))
    axis = axis.at[:, 2].set(jnp.abs(axis[:, 2]))
    return axis * evenly(distances, interval, (shape[0], 1))


def any_number(key: jax.Array, bounds: tuple[int, int], shape: tuple) -> jax.Array:
    """Whole numbers, from the first bound to the second."""
    return jax.random.randint(key, shape, bounds[0], bounds[1] + 1)


ROWS = dict.fromkeys(Appearance.__dataclass_fields__, evenly) | {
    "camera_rotation": about_any_axis,
    "num_lights": any_number,
    "light_position": over_half_sphere,
}
"""How each row is drawn. ``contrast`` and ``pixel_noise``, which change the images that
come out of a renderer, are not among them."""


def contrast(key: jax.Array, images: jax.Array, interval: Interval) -> jax.Array:
    """Stretch images [n, ..., 3] about their mean, each by its own factor.

    Args:
        key: random key.
        images: normalized, so that the mean of each is 0.
        interval: of factors.
    """
    shape = (len(images),) + (1,) * (images.ndim - 1)
    return images * evenly(key, interval, shape)


def pixel_noise(key: jax.Array, images: jax.Array, deviation: float) -> jax.Array:
    """Add noise of its own to every value; images have unit variance."""
    return images + deviation * jax.random.normal(key, images.shape, images.dtype)


def intensities(look: Appearance) -> jax.Array:
    """[6] of each light: relative ones scaled to the total; 0 for those that are off.

    As OpenAI's renderer does.
    """
    on = jnp.arange(MAX_LIGHTS) < look.num_lights
    shares = jnp.where(on, look.light_relative_intensity, 0.0)
    return look.light_total_intensity * shares / shares.sum()


def face_colors(look: Appearance, calibrated: jax.Array) -> jax.Array:
    """[faces, 3] RGB."""
    hue, saturation, value = jnp.moveaxis(rgb_to_hsv(calibrated), -1, 0)
    return hsv_to_rgb(
        jnp.stack(
            [
                (hue + look.object_hue) % 1.0,
                jnp.clip(saturation + look.object_saturation, 0.0, 1.0),
                jnp.clip(value + look.object_value, 0.0, 1.0),
            ],
            axis=-1,
        )
    )


def model_fields(look: Appearance, scene: VisionScene) -> dict[str, jax.Array]:
    """What an appearance makes of MuJoCo's model, field by field.

    MuJoCo's own shading and Warp's read specular and shininess, Filament metallic and
    roughness; diffuse light counts for the former, intensity for the latter.
    """
    model = scene.model
    rgba = jnp.asarray(model.mat_rgba, jnp.float32)
    rgba = rgba.at[scene.robot_materials, :3].set(look.robot_color)
    colors = face_colors(look, jnp.asarray(scene.face_colors, jnp.float32))
    rgba = rgba.at[scene.face_materials, :3].set(colors)
    metallic = _materials(scene, look.robot_metallic, look.object_metallic)
    gloss = _materials(scene, look.robot_glossiness, look.object_glossiness)
    specular = jnp.clip(0.1 + metallic + 0.5 * gloss, 0.0, 1.0)
    light = intensities(look)
    color = jnp.broadcast_to(CLASSIC_GAIN * light[:, None], (MAX_LIGHTS, 3))
    away = look.light_position
    return {
        "cam_pos": jnp.asarray(model.cam_pos, jnp.float32) + look.camera_position,
        "cam_quat": jax.vmap(rotations.multiply)(
            look.camera_rotation, jnp.asarray(model.cam_quat, jnp.float32)
        ),
        "cam_fovy": jnp.asarray(model.cam_fovy, jnp.float32) + look.field_of_view,
        "mat_rgba": rgba,
        "mat_specular": specular.at[model.material("table").id].set(0.0),
        "mat_shininess": gloss,
        "mat_metallic": metallic,
        "mat_roughness": 1.0 - 0.9 * gloss,
        "light_pos": jnp.array(GAZE) + away,
        "light_dir": -away / jnp.linalg.norm(away, axis=-1, keepdims=True),
        "light_active": light > 0.0,
        "light_diffuse": color,
        "light_specular": color,
        "light_intensity": CANDELA * light,
    }


def _materials(scene: VisionScene, robot: jax.Array, obj: jax.Array) -> jax.Array:
    """[nmat] one value for each part of the hand, one for all of the object."""
    values = jnp.broadcast_to(obj, scene.model.nmat)
    return values.at[scene.robot_materials].set(robot)


def rgb_to_hsv(rgb: jax.Array) -> jax.Array:
    """[..., 3] to hue [turns], saturation and value."""
    red, green, blue = jnp.moveaxis(rgb, -1, 0)
    value, spread = rgb.max(-1), rgb.max(-1) - rgb.min(-1)
    safe = jnp.where(spread == 0, 1.0, spread)
    sixth = jnp.select(
        [value == red, value == green],
        [(green - blue) / safe % 6, (blue - red) / safe + 2],
        (red - green) / safe + 4,
    )
    hue = jnp.where(spread == 0, 0.0, sixth / 6)
    saturation = jnp.where(value == 0, 0.0, spread / jnp.where(value == 0, 1.0, value))
    return jnp.stack([hue, saturation, value], axis=-1)


def hsv_to_rgb(hsv: jax.Array) -> jax.Array:
    """[..., 3] from hue [turns], saturation and value."""
    hue, saturation, value = jnp.moveaxis(hsv, -1, 0)
    sixth = (6 * hue[..., None] + jnp.array([5.0, 3.0, 1.0])) % 6
    depth = jnp.clip(jnp.minimum(sixth, 4 - sixth), 0.0, 1.0)
    return value[..., None] * (1 - saturation[..., None] * depth)
