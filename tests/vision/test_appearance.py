"""Table 9: every row against its range, and what MuJoCo gets of it."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_dex.vision import appearance
from mjx_dex.vision.config import AppearanceConfig, Interval
from mjx_dex.vision.scene import GAZE

NUMBER = 4000


@pytest.fixture(scope="module")
def looks(sample_looks):
    return sample_looks(NUMBER)[0]


EVENLY = {
    "camera_position": (-0.0015, 0.0015),
    "field_of_view": (-1, 1),
    "robot_color": (0, 1),
    "robot_metallic": (0.05, 0.25),
    "robot_glossiness": (0, 1),
    "object_hue": (-0.01, 0.01),
    "object_saturation": (-0.15, 0.15),
    "object_value": (-0.15, 0.15),
    "object_metallic": (0.05, 0.15),
    "object_glossiness": (0.05, 0.15),
    "light_relative_intensity": (1, 5),
    "light_total_intensity": (0, 15),
}


@pytest.mark.parametrize("row", EVENLY)
def test_rows_fill_the_range_of_table_9_evenly(row, looks):
    low, high = EVENLY[row]
    values = (getattr(looks, row).reshape(NUMBER, -1) - low) / (high - low)
    assert values.min() > -1e-6 and values.max() < 1 + 1e-6
    # Mean and deviation of a uniform draw, within five standard errors.
    np.testing.assert_allclose(values.mean(0), 0.5, atol=5 * 0.289 / NUMBER**0.5)
    np.testing.assert_allclose(values.std(0), 12**-0.5, atol=5 * 0.13 / NUMBER**0.5)
    # Parts, faces and cameras are drawn apart.
    if values.shape[1] > 1:
        together = np.corrcoef(values.T) - np.eye(values.shape[1])
        assert np.abs(together).max() < 6 / NUMBER**0.5


def test_cameras_turn_up_to_three_degrees_about_any_axis(looks):
    quaternions = looks.camera_rotation.reshape(-1, 4)
    angles = 2 * np.rad2deg(np.arccos(np.clip(quaternions[:, 0], -1, 1)))
    assert angles.max() < 3.01
    np.testing.assert_allclose(angles.mean(), 1.5, atol=0.05)
    axes = quaternions[:, 1:] / np.linalg.norm(quaternions[:, 1:], axis=1)[:, None]
    np.testing.assert_allclose(axes.mean(0), 0, atol=5 * 3**-0.5 / len(axes) ** 0.5)


def test_four_to_six_lights(looks):
    counts = np.bincount(looks.num_lights, minlength=8)
    assert counts[:4].sum() == 0 and counts[7:].sum() == 0
    np.testing.assert_allclose(counts[4:7] / NUMBER, 1 / 3, atol=0.04)


def test_lights_are_anywhere_on_the_upper_half_sphere(looks):
    away = looks.light_position.reshape(-1, 3)
    distance = np.linalg.norm(away, axis=1)
    assert distance.min() > 0.999 and distance.max() < 1.501
    # Archimedes: evenly over a sphere is evenly in height.
    height = away[:, 2] / distance
    np.testing.assert_allclose(
        np.histogram(height, 5, (0, 1))[0] / len(height), 0.2, atol=0.02
    )
    np.testing.assert_allclose((away[:, :2] / distance[:, None]).mean(0), 0, atol=0.02)


def test_lights_share_the_total_by_their_relative_intensities():
    look = appearance.Appearance(**dict.fromkeys(appearance.ROWS)).replace(
        num_lights=4,
        light_relative_intensity=jnp.array([1.0, 2, 3, 4, 5, 5]),
        light_total_intensity=20.0,
    )
    np.testing.assert_allclose(appearance.intensities(look), [2, 4, 6, 8, 0, 0])


def test_colours_are_those_of_colorsys():
    rgb = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    rgb[0], rgb[1] = 0.0, 0.5
    hsv = np.array([colorsys.rgb_to_hsv(*x) for x in rgb])
    np.testing.assert_allclose(appearance.rgb_to_hsv(rgb), hsv, atol=1e-6)
    np.testing.assert_allclose(appearance.hsv_to_rgb(hsv), rgb, atol=1e-6)


def test_faces_keep_near_their_calibrated_colour(scene, sample_looks):
    fields = sample_looks(200)[1]
    colors = fields["mat_rgba"][:, scene.face_materials, :3]
    hsv = np.array([[colorsys.rgb_to_hsv(*c) for c in face] for face in colors])
    calibrated = np.array([colorsys.rgb_to_hsv(*c) for c in scene.face_colors])
    hue = (hsv[..., 0] - calibrated[:, 0] + 0.5) % 1 - 0.5
    bright = (hsv[..., 1] > 0.02) & (hsv[..., 2] > 0.02)  # else hue is rounding
    assert np.abs(hue[bright]).max() < 0.0101
    assert np.abs(hsv[..., 1:] - calibrated[:, 1:]).max() < 0.1501


def test_switching_a_row_off_leaves_all_others_as_they_were(sample_looks):
    everything, _ = sample_looks(3)
    without, _ = sample_looks(3, AppearanceConfig(off=("robot_color",)))
    for row in appearance.ROWS:
        same = np.array_equal(getattr(everything, row), getattr(without, row))
        assert same == (row != "robot_color")
    assert (without.robot_color == 0.6).all()


def test_an_unknown_row_is_an_error():
    with pytest.raises(ValueError, match="robot_colour"):
        AppearanceConfig(off=("robot_colour",))


def test_bounds_in_the_wrong_order_are_an_error():
    with pytest.raises(ValueError, match=r"low \(2\) must not exceed high \(1\)"):
        Interval(2, 1)


def test_nominal_fields_are_those_of_the_model(scene):
    fields = appearance.model_fields(appearance.nominal(scene), scene)
    for name in ("cam_pos", "cam_quat", "cam_fovy", "light_pos", "light_dir"):
        np.testing.assert_allclose(fields[name], getattr(scene.model, name), atol=1e-6)
    assert all(np.isfinite(value).all() for value in fields.values())
    assert all(
        fields[name].shape == np.shape(getattr(scene.model, name)) for name in fields
    )


def test_lights_look_at_the_palm(sample_looks):
    fields = sample_looks(8)[1]
    distance = np.linalg.norm(GAZE - fields["light_pos"], axis=-1, keepdims=True)
    np.testing.assert_allclose(
        fields["light_pos"] + distance * fields["light_dir"],
        np.broadcast_to(GAZE, (8, 6, 3)),
        atol=1e-5,
    )


def test_contrast_is_half_to_one_and_a_half():
    images = jax.random.normal(jax.random.key(1), (2000, 4, 4, 3))
    changed = appearance.contrast(jax.random.key(0), images, Interval(0.5, 1.5))
    factors = np.asarray(changed / images).reshape(2000, -1)
    np.testing.assert_allclose(factors.std(1), 0, atol=1e-5)
    assert factors.min() > 0.499 and factors.max() < 1.501
    np.testing.assert_allclose(factors[:, 0].mean(), 1.0, atol=5 * 0.289 / 2000**0.5)


def test_pixel_noise_is_a_tenth_of_an_images_deviation():
    zeros = jnp.zeros((4, 50, 50, 3))
    noise = np.asarray(appearance.pixel_noise(jax.random.key(0), zeros, 0.1))
    np.testing.assert_allclose(noise.std(), 0.1, rtol=0.02)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.05
