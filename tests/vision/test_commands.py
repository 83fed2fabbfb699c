"""Vision's commands, from a tiny training to Table 6 and a policy that sees."""

import importlib.util
import itertools
import json
import shlex
import shutil
import time
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from PIL import Image
from test_train import TINY as TINY_POLICY

import mjx_dex.train
from mjx_dex import evaluate as evaluate_policy
from mjx_dex.vision import (
    appearance,
    bench,
    collect,
    dataset,
    evaluate,
    nets,
    preview,
    probe,
    testset,
    train,
)
from mjx_dex.vision.losses import Pose
from mjx_dex.vision.stream import Batch

SMALL = ["--rig.size", "32"]
SMOKE = ["--config", "smoke", *SMALL]
LEARN = ["--learning.batches", "60", "--learning.pool", "200"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """The smoke preset on smaller images, as CI can afford it."""
    folder = tmp_path_factory.mktemp("vision") / "run"
    assert train.main([*SMOKE, *LEARN, "--run-dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def policy_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy") / "run"
    arguments = [*TINY_POLICY, "--run-dir", str(folder), "--max-env-steps", "16"]
    assert mjx_dex.train.main(arguments) == 0
    return folder


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def error_of(command, arguments, capsys):
    capsys.readouterr()
    assert command.main(arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert not any("Traceback" in line for line in lines)
    assert lines[-1].startswith("error: ")
    return lines[-1]


def test_the_smoke_preset_learns(run_dir):
    losses = [row["loss"] for row in rows(run_dir)]
    assert len(losses) == 60 and np.isfinite(losses).all()
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    assert (run_dir / "learning_curve.png").stat().st_size > 10_000
    assert list((run_dir / "tensorboard").glob("events.*"))
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["renderer"] == "gl"


def test_what_the_net_says_depends_on_what_it_sees(run_dir):
    net = nets.load(run_dir)
    images = np.random.default_rng(0).integers(0, 255, (4, 3, 32, 32, 3), np.uint8)
    poses = net.predict(images)
    assert np.ptp(poses.position, axis=0).max() > 1e-4
    assert np.ptp(poses.quaternion, axis=0).max() > 1e-3
    np.testing.assert_allclose(jnp.linalg.norm(poses.quaternion, axis=1), 1, rtol=1e-5)


def test_a_resumed_run_goes_on_as_if_nothing_had_been(run_dir, tmp_path, capsys):
    """Six batches and six more are twelve; the pool is rendered anew."""
    short = [*SMOKE, "--learning.pool", "60", "--run-dir"]
    whole, parts = tmp_path / "whole", tmp_path / "my parts"
    assert train.main([*short, str(whole), "--learning.batches", "12"]) == 0
    assert train.main([*short, str(parts), "--learning.batches", "6"]) == 0
    again, evaluation = capsys.readouterr().out.splitlines()[-2:]
    program, *again = shlex.split(again.removeprefix("  continue: "))[2:]
    assert (program, again) == (
        "mjx_dex.vision.train",
        ["--resume", "--run-dir", str(parts)],
    )
    assert shlex.split(evaluation)[-2:] == ["mjx_dex.vision.evaluate", str(parts)]
    assert train.main([*again, "--learning.batches", "12"]) == 0
    written = yaml.safe_load((parts / "config.yaml").read_text())
    assert written["learning"]["batches"] == 12
    assert [r["batch"] for r in rows(parts)] == list(range(1, 13))
    assert [r["loss"] for r in rows(parts)] == [r["loss"] for r in rows(whole)]


def test_batches_can_be_rendered_anew(tmp_path):
    """Here of the prism."""
    arguments = [*SMOKE, "--learning.pool", "0", "--learning.batches", "3"]
    arguments += ["--object.shape", "prism"]
    assert train.main([*arguments, "--run-dir", str(tmp_path / "run")]) == 0
    assert len(rows(tmp_path / "run")) == 3


def test_a_start_that_failed_leaves_its_folder_free(tmp_path, capsys):
    arguments = [*SMOKE, "--run-dir", str(tmp_path / "run"), "--learning.pool", "16"]
    wrong = [*arguments, "--states.path", str(tmp_path / "nothing.npy")]
    assert "states.path: cannot read" in error_of(train, wrong, capsys)
    assert train.main([*arguments, "--learning.batches", "1"]) == 0


def test_a_loss_that_is_no_number_ends_the_run(tmp_path, capsys, monkeypatch):
    """No checkpoint has what it came to."""
    step = train.PoseTrainer.step

    def spoiled(*arguments):
        learner, metrics = step(*arguments)
        return learner, metrics | {"loss": np.float32(np.nan)}

    monkeypatch.setattr(train.PoseTrainer, "step", spoiled)
    run = tmp_path / "run"
    arguments = [*SMOKE, "--learning.pool", "16", "--run-dir", str(run)]
    arguments += ["--learning.batches", "9"]
    line = error_of(train, arguments, capsys)
    assert "became" in line and "from the checkpoint of batch 0" in line
    assert len(list((run / "checkpoints").iterdir())) == 1


def test_a_half_written_line_of_metrics_is_left_out(run_dir, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"batch": 61, "lo')
    again = ["--resume", "--run-dir", str(run), "--learning.batches", "61"]
    assert train.main([*again, "--learning.pool", "16"]) == 0
    assert [row["batch"] for row in rows(run)] == list(range(1, 62))


def test_the_next_batch_is_fetched_while_the_device_learns(run_dir):
    """It has been by the time a batch is learned from; a slow one is waited for."""
    net, fetched = nets.load(run_dir), []
    images = np.zeros((2, 3, 32, 32, 3), np.uint8)
    poses = Pose(np.zeros((2, 3), np.float32), np.eye(4, dtype=np.float32)[:2])

    def batches():
        for number in itertools.count():
            time.sleep(0.0 if number < 2 else 1.0)
            fetched.append(number)
            yield Batch(images, poses)

    learning = train.steps(net.trainer, net.learner, batches(), seed=0)
    *_, compiled = next(learning)
    assert fetched == [0, 1] and compiled["waiting"] < 0.2
    *_, slow = next(learning)
    assert fetched == [0, 1, 2]
    # Learning takes some hundredths of a second.
    assert slow["seconds"] > 1.0 and 0.5 < slow["waiting"] <= 1.0


def test_a_net_trained_in_16_bits_is_used_in_32(tmp_path):
    run = tmp_path / "run"
    arguments = [*SMOKE, "--learning.pool", "16", "--learning.batches", "1"]
    arguments += ["--net.precision", "bfloat16", "--run-dir", str(run)]
    assert train.main(arguments) == 0
    net = nets.load(run)
    images = np.random.default_rng(0).integers(0, 255, (4, 3, 32, 32, 3), np.uint8)
    found = net.predict(images)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["net"]["precision"] == net.config.net.precision == "bfloat16"
    config["net"]["precision"] = "float32"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    exact = nets.load(run).predict(images)
    np.testing.assert_array_equal(found.quaternion, exact.quaternion)


def test_a_net_that_a_gpu_trained_is_used_where_there_is_none(run_dir, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    checkpoint = run / "checkpoints" / "60"
    placed = checkpoint / "default" / "_sharding"
    text = placed.read_text()
    assert "cpu:0" in text
    placed.write_text(text.replace("cpu:0", "cuda:0"))
    (checkpoint / "checksums.json").unlink()
    images = np.random.default_rng(0).integers(0, 255, (4, 3, 32, 32, 3), np.uint8)
    expected, found = (nets.load(folder).predict(images) for folder in (run_dir, run))
    np.testing.assert_array_equal(found.quaternion, expected.quaternion)


def test_evaluation_prints_the_layout_of_table_6(
    run_dir, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    arguments = [str(run_dir), "--scenes", "20", "--json", "errors.json"]
    arguments += ["--renderers", "gl", "filament"]
    assert evaluate.main(arguments) == 0
    table = capsys.readouterr().out
    results = json.loads((tmp_path / "errors.json").read_text())
    assert [result["renderer"] for result in results] == ["gl", "filament"]
    for result in results:
        degrees, millimetres = (np.array(result[x]) for x in ("rotation", "position"))
        assert len(degrees) == len(millimetres) == 20
        assert f"| {degrees.mean():.2f} ± {degrees.std():.2f} deg | " in table
        assert f"| {np.median(millimetres):.2f} | 20 |" in table
    # Rendered once, and the same from disk.
    assert evaluate.main([*arguments[:3], "--renderers", "gl"]) == 0
    first = table.split("| gl |")[1].splitlines()[0]
    assert first in capsys.readouterr().out
    assert len(list((tmp_path / "runs/vision/testsets").iterdir())) == 2


def test_errors_are_those_of_the_poses_that_were_rendered(
    run_dir, tmp_path, monkeypatch
):
    """A net that knows the truth has none; one that is off by a known pose has that."""
    monkeypatch.chdir(tmp_path)
    net = nets.load(run_dir)
    scenes = testset.get(net.config, 12)

    class Oracle:
        def __init__(self, shift):
            self.learner, self._next, self._shift = net.learner, 0, shift

        def predict(self, images):
            rows = slice(self._next, self._next + len(images))
            self._next += len(images)
            position = scenes.poses.position[rows] + self._shift
            return scenes.poses.replace(
                position=position, quaternion=-scenes.poses.quaternion[rows]
            )

    result = evaluate.measure(Oracle(0.0), scenes)
    np.testing.assert_allclose(result.position, 0, atol=1e-4)
    np.testing.assert_allclose(result.rotation, 0, atol=0.05)
    result = evaluate.measure(Oracle(np.array([0.003, 0.0, 0.004])), scenes)
    np.testing.assert_allclose(result.position, 5.0, atol=1e-3)


def test_states_of_a_policy_are_collected(policy_run, tmp_path, capsys):
    out = tmp_path / "my states.npy"
    arguments = [str(policy_run), "--states", "30", "--worlds", "4", "--every", "2"]
    assert collect.main([*arguments, "--out", str(out)]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[1:] == [
        *("python", "-m", "mjx_dex.vision.train", "--states.path"),
        str(out),
    ]
    states = np.load(out)
    assert states.shape == (30, 31) and np.isfinite(states).all()
    np.testing.assert_allclose(np.linalg.norm(states[:, 27:], axis=1), 1, atol=1e-3)
    assert len(np.unique(states[:, 24])) == 30
    assert len(list(tmp_path.iterdir())) == 1


def test_a_policy_acts_on_what_a_net_sees(run_dir, policy_run, tmp_path, capsys):
    """What it then observes is tested in test_eyes.py."""
    arguments = [str(policy_run), "--trials", "3", "--task.goal.seconds", "0.4"]
    sees = ["--pose-from", str(run_dir), "--pose-latency", "0.1"]
    for options in ([], sees, [*sees, "--pose-renderer", "filament"]):
        assert evaluate_policy.main([*arguments, *options]) == 0
    out = capsys.readouterr().out
    for pose in ("true", f"of {run_dir}, 100 ms old", "on filament, 100 ms old"):
        assert f"pose {pose}" in out or pose in out


def test_a_contact_sheet_is_drawn(tmp_path):
    out = tmp_path / "sheet.png"
    arguments = ["--config", "smoke", "--rig.size", "40", "--out", str(out)]
    assert preview.main([*arguments, "--renderer", "gl"]) == 0
    # Four columns of three images, four rows, and lines between.
    with Image.open(out) as sheet:
        assert sheet.size == (4 * 3 * 40 + 3 * 2, 4 * 40 + 3 * 2)


def verdicts(capsys):
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    return {w[0]: w[1] for w in words if len(w) > 1 and w[1] in ("yes", "no")}


def test_the_probe_says_what_works(capsys):
    assert probe.main(["--size", "16", "--scenes", "2"]) == 0
    assert verdicts(capsys) == dict.fromkeys(("gl", "warp", "filament"), "yes")


def test_the_probe_says_why_nothing_works(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "warp" else find(name)
    )
    monkeypatch.setenv("MUJOCO_GL", "glass")
    monkeypatch.setenv("VK_DRIVER_FILES", "/nowhere.json")
    assert probe.main([]) == 1
    assert verdicts(capsys) == dict.fromkeys(("gl", "warp", "filament"), "no")


def test_the_bench_measures_rendering_and_waiting(tmp_path, capsys):
    path = tmp_path / "bench.json"
    arguments = ["--sizes", "16", "24", "--scenes", "2", "--steps", "2"]
    arguments += ["--renderers", "gl", "--json", str(path), *SMOKE]
    assert bench.main(arguments) == 0
    small, large, training = json.loads(path.read_text())
    assert (small["size"], large["size"]) == (16, 24)
    assert min(row["images_per_second"] for row in (small, large)) > 0
    assert 0 <= training["waiting"] < 1 and training["seconds"] > 0
    assert f"{training['waiting']:.0%} of it waiting" in capsys.readouterr().out


def test_no_renderer_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MUJOCO_GL", "glass")
    arguments = [*SMOKE, "--renderer", "gl", "--run-dir", str(tmp_path / "run")]
    assert "renderer gl does not work here" in error_of(train, arguments, capsys)
    assert not (tmp_path / "run").exists()


def test_a_test_set_is_another_where_its_scenes_are(run_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = replace(nets.load(run_dir).config, renderer="gl")
    brightness = [testset.get(config, 2).images.mean()]
    brightness.append(testset.get(config, 2).images.mean())
    monkeypatch.setattr(appearance, "CLASSIC_GAIN", 2 * appearance.CLASSIC_GAIN)
    brightness.append(testset.get(config, 2).images.mean())
    assert brightness[0] == brightness[1] < brightness[2]
    assert len(list((tmp_path / testset.FOLDER).iterdir())) == 2


def test_a_truncated_test_set_is_one_line(run_dir, tmp_path, capsys):
    folder = tmp_path / "set"
    arguments = [*SMOKE, "--scenes", "4", "--renderer", "gl", "--out", str(folder)]
    assert testset.main(arguments) == 0
    assert "holds a test set already" in error_of(testset, arguments, capsys)
    images = folder / "images.npy"
    images.write_bytes(images.read_bytes()[:1000])
    line = error_of(evaluate, [str(run_dir), "--testsets", str(folder)], capsys)
    assert str(images) in line and "cut off" in line
    (folder / dataset.ABOUT).unlink()
    line = error_of(evaluate, [str(run_dir), "--testsets", str(folder)], capsys)
    assert f"there is no data set in {folder}" in line


def test_images_of_another_size_are_one_line(run_dir, tmp_path, capsys):
    folder = tmp_path / "set"
    arguments = ["--config", "smoke", "--rig.size", "40", "--scenes", "4"]
    assert testset.main([*arguments, "--renderer", "gl", "--out", str(folder)]) == 0
    line = error_of(evaluate, [str(run_dir), "--testsets", str(folder)], capsys)
    assert "trained on images of 32 x 32 pixels; these have 40 x 40" in line


def test_what_is_not_there_is_one_line(run_dir, tmp_path, capsys):
    nothing = str(tmp_path / "nothing")
    assert f"no run in {nothing}" in error_of(evaluate, [nothing], capsys)
    line = error_of(train, ["--resume", "--run-dir", nothing], capsys)
    assert f"there is no run in --run-dir {nothing}" in line
    line = error_of(train, [*SMOKE, "--run-dir", str(run_dir)], capsys)
    assert f"{run_dir} holds a run already" in line
    line = error_of(train, ["--config", "big"], capsys)
    assert "presets are cpu, gpu, paper, smoke" in line
    line = error_of(evaluate, [str(run_dir), "--renderers", "unity"], capsys)
    assert "--renderers is 'unity'" in line and "gl, warp, filament" in line


def test_a_net_of_another_configuration_is_one_line(run_dir, capsys):
    arguments = ["--resume", "--run-dir", str(run_dir), "--net.hidden", "64"]
    line = error_of(train, arguments, capsys)
    assert "its net is another: net.hidden" in line and "--run-dir" in line
