import numpy as np
import pytest

from mjx_dex.config import RandomizationConfig
from mjx_dex.randomization import Randomization, inspection
from mjx_dex.randomization.__main__ import main
from mjx_dex.randomization.menu import EFFECTS, PRESETS


def test_the_inspector_shows_every_effect_that_is_on(tmp_path, capsys):
    page = tmp_path / "page.png"
    arguments = ["--episodes", "50", "--plot", str(page)]
    assert main([*arguments, "--randomization.off", "gravity"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split()[0] for line in lines if line.split()[0] in EFFECTS}
    assert shown == set(PRESETS["all"]) - {"gravity"}
    (off,) = (line for line in lines if line.startswith("off:"))
    assert off == "off: gravity, tendon_range, object_tracking_loss, object_shape"
    (mass,) = (line for line in lines if line.startswith("object_mass"))
    *_, least, most = mass.split()
    assert "U[0.5, 1.5]" in mass
    assert 0.5 <= float(least) < 0.7
    assert 1.3 < float(most) <= 1.5
    assert page.stat().st_size > 10_000


def test_an_unknown_effect_is_one_line(capsys):
    assert main(["--randomization.off", "backlach"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "did you mean backlash" in error


@pytest.fixture(scope="module")
def traces(hand):
    import jax

    menu = Randomization(hand, RandomizationConfig(), 0.08)
    return inspection.trace(menu, jax.random.key(0), 0.008)


def test_the_backlash_loop_holds_actions_back_and_never_adds(traces):
    late, sent = traces["delayed"], traces["sent"]
    assert (np.abs(sent) <= np.abs(late) + 1e-6).all()
    assert (sent * late >= 0).all()
    assert (np.abs(sent) < 0.5 * np.abs(late)).sum() > 10


def test_the_trace_shows_dropouts_as_constant_readings(traces):
    frozen = np.flatnonzero(traces["frozen"])
    assert len(frozen) >= 12
    readings = traces["read"]
    np.testing.assert_array_equal(readings[frozen], readings[frozen - 1])


def test_physics_steps_are_only_ever_lengthened(traces):
    assert (traces["timestep"] >= np.float32(0.008)).all()
    assert np.ptp(traces["timestep"]) > 1e-5
