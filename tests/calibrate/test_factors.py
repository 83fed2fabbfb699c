"""264 values, as a calibration file and as a model's fields."""

import json

import numpy as np
import pytest

from mjx_dex.calibrate import factors, report
from mjx_dex.calibrate.config import CalibrateConfig
from mjx_dex.calibrate.hidden import HiddenCommand, hidden_draw
from mjx_dex.config import HandConfig, PhysicsConfig
from mjx_dex.hand import build_hand, calibration

CONFIG = CalibrateConfig()


@pytest.fixture(scope="module")
def nominal():
    return calibration.load_calibration(calibration.CALIBRATED)


@pytest.fixture(scope="module")
def draw():
    return hidden_draw(HiddenCommand(seed=3))


def test_there_are_as_many_as_in_the_paper():
    assert sum(len(entries) for entries in factors.FACTORS.values()) == 264
    parts = ("WR", "FF", "MF", "RF", "LF", "TH")
    assert sum(len(factors.entries_of(part, CONFIG)) for part in parts) == 264


def test_the_nominal_draw_changes_nothing(nominal):
    assert factors.apply(factors.nominal_draw(), nominal) == nominal


def test_a_files_hand_is_the_models_fields(nominal, draw, tmp_path):
    """Compiled from the file by MuJoCo, and set in a compiled model."""
    path = tmp_path / "hand.json"
    path.write_text(report.as_json(factors.apply(draw, nominal)))
    built, original = (
        build_hand(HandConfig(calibration=name), None, PhysicsConfig())
        for name in (str(path), "calibrated")
    )
    fields = factors.model_fields(draw, original.model)
    springs = original.model.tendon_stiffness > 0
    for name, value in fields.items():
        # Where a tendon has no spring, MuJoCo writes down a length that nobody reads.
        rows = springs if name == "tendon_lengthspring" else slice(None)
        np.testing.assert_allclose(
            value[rows],
            getattr(built.model, name)[rows],
            rtol=1e-9,
            atol=1e-12,
            err_msg=name,
        )
    changed = [
        name for name, x in fields.items() if (x != getattr(original.model, name)).any()
    ]
    assert sorted(changed) == sorted(fields)
    slack = np.stack([draw.backlash_closing, draw.backlash_opening], 1)
    np.testing.assert_allclose(
        built.log_backlash, original.log_backlash + np.log(slack)
    )


def test_a_draw_comes_back_from_its_file(nominal, draw):
    again = factors.draw_between(nominal, factors.apply(draw, nominal))
    for name, value in vars(draw).items():
        np.testing.assert_allclose(getattr(again, name), value, err_msg=name)


def test_a_calibration_file_is_text_that_is_read_again(nominal, tmp_path):
    path = tmp_path / "hand.json"
    path.write_text(report.as_json(nominal))
    assert json.loads(path.read_text()) == nominal
    assert calibration.load_calibration(path) == nominal


def test_values_are_in_deviations_of_their_priors():
    entries = factors.entries_of("FF", CONFIG)
    z = np.zeros((2, len(entries)))
    damping = next(
        k for k, entry in enumerate(entries) if str(entry) == "joint_damping rh_FFJ4"
    )
    limit = next(
        k
        for k, entry in enumerate(entries)
        if str(entry) == "joint_upper_limit rh_FFJ3"
    )
    z[1, damping], z[1, limit] = 2.0, -1.0
    draws = factors.with_values(factors.nominal_draw(), entries, z, CONFIG)
    assert draws.joint_damping[0] == pytest.approx(1.0)
    assert draws.joint_damping[1, 2] == pytest.approx(np.exp(2 * 0.3))
    assert draws.joint_upper_limit[1, 3] == pytest.approx(-0.1)
    for row in (0, 1):
        one = type(draws)(**{name: x[row] for name, x in vars(draws).items()})
        np.testing.assert_allclose(
            factors.z_of(one, entries, CONFIG), z[row], atol=1e-12
        )


def test_bounds_are_where_the_configuration_has_them():
    entries = factors.entries_of("TH", CONFIG)
    low, high = factors.bounds(entries, CONFIG).T
    for ends, name in ((low, "low"), (high, "high")):
        draw = factors.with_values(factors.nominal_draw(), entries, ends, CONFIG)
        for factor, index in entries:
            wanted = getattr(getattr(CONFIG.factors, factor), name)
            assert getattr(draw, factor)[index] == pytest.approx(wanted)
