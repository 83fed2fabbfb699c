"""The bundle: what is in it, and that nothing else is run."""

import json
import shlex
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from mjx_dex import settings, train
from mjx_dex.config import replace
from robot_bridge import bundle as bundles
from robot_bridge import export, policies
from robot_bridge.bundle import BundleError

STEPS = 500


@pytest.fixture
def copy(bundle_path, tmp_path):
    """A bundle to be spoilt."""
    return shutil.copytree(bundle_path, tmp_path / "my copy.dex")


def edit(path, **changes):
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, **changes}))
    (path / bundles.SUMS).write_text(bundles.sums_of(path))


def recurrent(bundle, agent, path):
    """Outputs of 500 steps, memory cleared now and then: Flax, NumPy and ONNX."""
    generator = np.random.default_rng(3)
    size = bundle.policy.num_inputs
    observations = generator.standard_normal((STEPS, size)).astype(np.float32)
    first = generator.random(STEPS) < 0.02
    first[0] = True
    act = jax.jit(agent.act)
    session = onnxruntime.InferenceSession(path / "policy.onnx")
    theirs = agent.networks.policy.initial_carry()
    outputs = {"flax": [], "numpy": [], "onnx": []}
    for observation, is_first in zip(observations, first, strict=True):
        theirs, out = act(theirs, jnp.asarray(observation), jnp.asarray(is_first))
        outputs["flax"].append(np.asarray(out))
        if is_first:
            ours = bundle.policy.initial_carry()
            fed = {"cell": ours[0][None], "output": ours[1][None]}
        ours, out = bundle.policy.step(ours, observation)
        outputs["numpy"].append(out)
        inputs = {"observation": observation[None], **fed}
        out, fed["cell"], fed["output"] = session.run(None, inputs)
        outputs["onnx"].append(out[0])
    return {name: np.array(values) for name, values in outputs.items()}


def test_flax_numpy_and_onnx_agree_over_500_recurrent_steps(bundle, agent, bundle_path):
    outputs = recurrent(bundle, agent, bundle_path)
    assert outputs["flax"].shape == (STEPS, 20, 11)
    assert np.ptp(outputs["flax"], axis=0).max() > 1e-3
    for other in ("numpy", "onnx"):
        np.testing.assert_allclose(outputs[other], outputs["flax"], rtol=0, atol=1e-5)
        same = outputs[other].argmax(-1) == outputs["flax"].argmax(-1)
        assert same.all()


def test_a_policy_without_memory_and_bins_is_exported_too(
    run_config, tmp_path, tmp_path_factory
):
    changes = {"network.policy_memory": "none", "task.action_bins": None}
    settings.save(replace(run_config, **changes), tmp_path / "c.yaml")
    run, out = tmp_path / "run", tmp_path / "out.dex"
    arguments = ["--config", str(tmp_path / "c.yaml"), "--run-dir", str(run)]
    assert train.main([*arguments, "--max-env-steps", "32"]) == 0
    assert export.main([str(run), str(out)]) == 0
    loaded = bundles.load(out)
    assert loaded.policy.initial_carry() == ()
    observation = loaded.golden["observations"][0]
    session = onnxruntime.InferenceSession(out / "policy.onnx")
    (outputs,) = session.run(None, {"observation": observation[None]})
    np.testing.assert_allclose(outputs[0], loaded.golden["outputs"][0], atol=1e-5)


def test_the_manifest_says_what_numbers_mean(bundle, run_config):
    manifest = bundle.manifest
    assert manifest["control"]["period"] == pytest.approx(0.08)
    assert bundle.joints[:3] == ["rh_WRJ2", "rh_WRJ1", "rh_FFJ4"]
    assert bundle.actuators[4] == "rh_FFJ0"
    assert manifest["actuators"][4]["joints"] == ["rh_FFJ2", "rh_FFJ1"]
    # The thumb's end bends to negative angles in the policy's model, and to positive
    # ones on the hand.
    thumb = manifest["actuators"][-1]
    assert (thumb["name"], thumb["sign"]) == ("rh_THJ1", -1)
    assert (thumb["low"], thumb["high"]) == pytest.approx((0.0, 1.5708))
    # Limits of a trial, not of a training episode (section 6.2).
    assert manifest["goal"]["seconds"] == 80.0
    assert manifest["goal"]["count"] == 50
    assert manifest["versions"]["jax"] == jax.__version__
    config = settings.parse(manifest["training"]["config"], "manifest")
    assert config.network == run_config.network


def test_a_changed_manifest_is_refused(copy):
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace('"sign": -1', '"sign": 1', 1))
    with pytest.raises(BundleError, match=r"manifest\.json is not what was exported"):
        bundles.load(copy)


def test_the_sums_are_those_that_sha256sum_checks(bundle_path):
    command = ["sha256sum", "--check", "--strict", bundles.SUMS]
    done = subprocess.run(command, cwd=bundle_path, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.count(": OK") == 5


def test_a_changed_byte_of_the_weights_is_refused(copy):
    data = bytearray((copy / "weights.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "weights.npz").write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"weights\.npz is not what was exported"):
        bundles.load(copy)


def test_other_weights_under_their_right_hash_are_refused(copy):
    with np.load(copy / "weights.npz") as file:
        weights = dict(file)
    weights["head/bias"] = weights["head/bias"] + np.float32(1e-3)
    np.savez(copy / "weights.npz", **weights)
    edit(copy)
    with pytest.raises(BundleError, match=r"computes other outputs .*1\.0e-03"):
        bundles.load(copy)


def test_what_is_not_finite_is_refused(copy):
    with np.load(copy / "weights.npz") as file:
        weights = dict(file)
    weights["dense/kernel"][0, 0] = np.nan
    np.savez(copy / "weights.npz", **weights)
    edit(copy)
    with pytest.raises(BundleError, match="dense/kernel is not finite"):
        bundles.load(copy)


def test_another_format_is_refused(copy):
    edit(copy, format=3)
    with pytest.raises(
        BundleError, match="has format 3, and this bridge reads 1 and 2"
    ):
        bundles.load(copy)


def test_a_missing_part_of_the_manifest_is_named(copy):
    control = json.loads((copy / "manifest.json").read_text())["control"]
    del control["smoothing"]
    edit(copy, control=control)
    with pytest.raises(BundleError, match=r"lacks control\.smoothing"):
        bundles.load(copy)


def test_a_missing_file_is_named(copy):
    (copy / "policy.onnx").unlink()
    with pytest.raises(BundleError, match=r"policy\.onnx is missing"):
        bundles.load(copy)


def test_a_folder_that_is_no_bundle_is_named(tmp_path):
    with pytest.raises(BundleError, match="there is no bundle in"):
        bundles.load(tmp_path)


def test_an_existing_folder_is_not_overwritten(run, copy, capsys):
    before = bundles.hash_of(copy / "manifest.json")
    assert export.main([str(run), str(copy)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert bundles.hash_of(copy / "manifest.json") == before
    assert export.main([str(run), str(copy), "--overwrite"]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command == ["rehearse", "it:", "python", "-m", "robot_bridge.run", str(copy)]
    assert bundles.load(copy)
    assert list(copy.parent.iterdir()) == [copy]


def test_a_folder_of_something_else_is_never_overwritten(run, tmp_path, capsys):
    (tmp_path / "precious").write_text("")
    assert export.main([str(run), str(tmp_path), "--overwrite"]) == 1
    assert "no bundle" in capsys.readouterr().err
    assert (tmp_path / "precious").exists()


def test_a_policy_that_sees_what_no_hand_can_sense_is_refused(run, tmp_path, capsys):
    arguments = [str(run), str(tmp_path / "out"), "--task.policy-inputs"]
    assert export.main([*arguments, "object_velocity"]) == 1
    assert "object_velocity, which no hand can sense" in capsys.readouterr().err


def test_folders_are_asked_for(capsys):
    assert export.main(["only_one"]) == 1
    assert "robot_bridge.export RUN OUT" in capsys.readouterr().err


def test_the_policy_that_comes_along_can_be_run():
    """Whole, of a format that is read, and the same numbers on this machine."""
    found = bundles.load(policies.find("near.dex"))
    assert found.manifest["training"]["env_steps"] == 37_027_840
    assert found.manifest["training"]["effects"] == []
    # It was trained before deviations had a least one, and continues without.
    assert found.deviations == (3**-0.5, 0.0)
