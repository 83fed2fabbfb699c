"""``python -m mjx_dex.solver`` on a CPU, with tiny sizes."""

import json

from mjx_dex import solver

TINY = ["--config", "quickstart", "--ppo.horizon", "10", "--repeats", "1"]


def test_variants_are_set_beside_the_c_engine(tmp_path, capsys):
    path = tmp_path / "solver.json"
    arguments = [*TINY, "--engine", "warp", "--envs", "4", "--json", str(path)]
    arguments += ["--variants", "configured", "small_buffers"]
    buffers = ["--physics.max-contacts", "24", "--physics.max-constraints", "300"]
    assert solver.main([*arguments, *buffers]) == 0
    configured, small = json.loads(path.read_text())
    assert (configured["variant"], small["variant"]) == ("configured", "small_buffers")
    # float32 against float64 over one control step.
    assert 0 < configured["joints"] < 1e-3
    assert configured["overflowed"] == 0
    assert 0 < configured["penetration"] < configured["deepest_1_percent"] < 0.01
    assert "small_buffers" in capsys.readouterr().out


def test_the_c_engine_is_refused(capsys):
    assert solver.main([*TINY, "--engine", "native"]) == 1
    assert "solver settings of its own" in capsys.readouterr().err


def test_an_unknown_variant_is_named(capsys):
    assert solver.main([*TINY, "--engine", "warp", "--variants", "elliptic"]) == 1
    assert "--variants: elliptic is none of configured" in capsys.readouterr().err
