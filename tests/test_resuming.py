"""A run continues on another engine, device, number of environments or horizon."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from test_train import TINY, error_of, rows

from mjx_dex import config as configs
from mjx_dex import lineage, sources, train
from mjx_dex.learning.checkpoints import Checkpoints
from mjx_dex.runs import load_config
from mjx_dex.train import make_trainer
from robot_bridge import export
from robot_bridge.bundle import load as load_bundle
from robot_bridge.bundle import sums_of

MANY = [
    *(*TINY, "--num-envs", "64", "--bank.size", "8", "--bank.starting", "4"),
    *("--ppo.minibatch-size", "128", "--ppo.kl-target", "0.02"),
    # Goals so near, and episodes so short, that the curriculum moves all the time.
    *("--task.goal.distribution", "near", "--task.goal.widening", "0.05"),
    *("--task.goal.narrowing", "0.01", "--task.goal.seconds", "0.24"),
    *("--randomization.adaptive.enabled", "--randomization.adaptive.episodes", "2"),
    *("--randomization.adaptive.widen-at", "0", "--randomization.adaptive.narrow-at"),
    "0",
]
FEW = ["--num-envs", "16", "--ppo.minibatch-size", "32", "--ppo.horizon", "8"]
ON_WARP = ["--engine", "warp", *FEW]
"""Another engine, number of environments, horizon and minibatch: 128 steps, not 256."""


def learned(run):
    """What a run's latest checkpoint has learned, by dotted name."""
    checkpoints = Checkpoints(run / "checkpoints")
    arrays = checkpoints.learned()
    checkpoints.close()
    return arrays


def continued(arguments, capsys):
    """What the command says of what it continues."""
    capsys.readouterr()
    assert train.main(arguments) == 0
    said = capsys.readouterr().err.splitlines()
    (line,) = [line for line in said if line.startswith("continues ")]
    return line


def assert_carried(before, after, without=()):
    """All that is learned but the curriculum's limits, which are dealt, is the same."""
    for name, array in before.items():
        if name.startswith(("progress.goal_angle_limits", *without)):
            continue
        np.testing.assert_array_equal(after[name], array, err_msg=name)


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """Four iterations of 256 steps on the C engine."""
    folder = tmp_path_factory.mktemp("runs") / "native"
    arguments = [*MANY, "--run-dir", str(folder), "--max-env-steps", "1024"]
    assert train.main(arguments) == 0
    limits = learned(folder)["progress.goal_angle_limits"]
    assert len(np.unique(limits)) > 3
    return folder


@pytest.fixture(scope="module")
def bundle(native, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "native.dex"
    assert export.main([str(native), str(out)]) == 0
    return out


def copy_of(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def test_from_native_to_warp_and_back(native, tmp_path, capsys):
    run = copy_of(native, tmp_path)
    start = learned(run)
    # Nothing is trained: the checkpoint of the start is what was carried.
    to_warp = ["--resume", "--run-dir", str(run), *ON_WARP]
    line = continued([*to_warp, "--max-env-steps", "1024"], capsys)
    assert line == (
        f"continues {run} after 1,024 env steps (iteration 4). Carried: policy, value "
        "network, optimizer, learning rate, iteration, curriculum and adaptive bounds. "
        "Started anew: environments (64 on native before, 16 on warp now)"
    )
    assert train.main([*to_warp, "--max-env-steps", "1280"]) == 0
    assert [row["env_steps"] for row in rows(run)] == [256, 512, 768, 1024, 1152, 1280]
    assert [row["iteration"] for row in rows(run)] == [1, 2, 3, 4, 5, 6]
    before = learned(run)
    assert len(before["progress.goal_angle_limits"]) == 16
    back = [*("--resume", "--run-dir", str(run), "--engine", "native"), *MANY[2:]]
    line = continued([*back, "--max-env-steps", "1536"], capsys)
    assert "(16 on warp before, 64 on native now)" in line
    assert rows(run)[-1]["env_steps"] == 1536
    sessions = lineage.read(run).here
    assert [s.engine for s in sessions] == ["native", "warp", "native"]
    assert [s.env_steps for s in sessions] == [0, 1024, 1280]
    assert start.keys() == before.keys()


@pytest.mark.parametrize("kind", ["whole", "portable", "bundle"])
def test_what_is_carried_is_equal_bit_for_bit(native, bundle, kind, tmp_path, capsys):
    """Onto another number of environments, before anything is learned there."""
    before = learned(native)
    source = {"whole": native, "bundle": bundle}.get(kind)
    if kind == "portable":
        source = copy_of(native, tmp_path)
        shutil.rmtree(source / "checkpoints" / "4" / "environments")
    run = tmp_path / "new"
    arguments = ["--from-run", str(source), "--run-dir", str(run), *FEW]
    line = continued([*arguments, "--max-env-steps", "0"], capsys)
    anew = "optimizer, environments" if kind == "bundle" else "environments"
    assert f"Started anew: {anew} (64 on native before, 16 on native now)" in line
    without = ("optimizer_state",) if kind == "bundle" else ()
    assert_carried(before, learned(run), without)
    # Every fourth of the sorted limits.
    old = np.sort(before["progress.goal_angle_limits"])
    new = learned(run)["progress.goal_angle_limits"]
    np.testing.assert_array_equal(np.sort(new), old[2::4])
    assert lineage.read(run).env_steps(4) == 1024
    assert [s.run for s in lineage.read(run).before] == ["native"]


def test_a_portable_checkpoint_continues_in_place(native, tmp_path, capsys):
    run = copy_of(native, tmp_path)
    shutil.rmtree(run / "checkpoints" / "4" / "environments")
    arguments = ["--resume", "--run-dir", str(run), "--max-env-steps", "1280"]
    line = continued(arguments, capsys)
    assert "Started anew: environments (64 on native before, 64 on native now)" in line
    assert rows(run)[-1]["env_steps"] == 1280


def test_a_run_may_save_portable_checkpoints_alone(native, tmp_path):
    run = tmp_path / "run"
    arguments = ["--from-run", str(native), "--run-dir", str(run)]
    arguments += ["--checkpoint", "portable", "--max-env-steps", "0"]
    assert train.main(arguments) == 0
    assert (run / "checkpoints/4/learned").is_dir()
    assert not (run / "checkpoints/4/environments").exists()


def test_other_minibatches_keep_the_environments(native, tmp_path, capsys):
    run = copy_of(native, tmp_path)
    arguments = ["--resume", "--run-dir", str(run), "--ppo.minibatches", "2"]
    line = continued([*arguments, "--max-env-steps", "1280"], capsys)
    assert line.endswith("Everything is carried, environments included")


def test_a_horizon_may_change_where_it_stands(native, tmp_path, capsys):
    run = copy_of(native, tmp_path)
    arguments = ["--resume", "--run-dir", str(run), "--ppo.horizon", "8"]
    continued([*arguments, "--max-env-steps", "1536"], capsys)
    assert [row["env_steps"] for row in rows(run)][-2:] == [1024, 1536]


def test_a_bundle_of_format_1_gives_its_policy():
    source = sources.read(Path("near.dex"))
    assert source.env_steps == 37_027_840
    # Of training, not of the trials that the bundle is meant for.
    assert source.config.task.goal.seconds == 8.0
    parts = {name.split(".")[1] for name in source.arrays}
    assert parts == {"policy"}


def test_a_portable_checkpoint_of_512_256_is_below_30_mb():
    config = configs.replace(
        configs.Config(), **{"network.hidden": 512, "network.memory": 256}
    )
    like = make_trainer(config).learned_like()
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(like))
    print(f"{size / 1e6:.1f} MB")
    assert size < 30e6


def test_a_bundle_that_was_changed_is_one_line(bundle, tmp_path, capsys):
    copy = shutil.copytree(bundle, tmp_path / "copy.dex")
    with (copy / "training.npz").open("ab") as file:
        file.write(b"x")
    arguments = ["--from-run", str(copy), "--run-dir", str(tmp_path / "run")]
    error = error_of(arguments, capsys)
    assert f"{copy}/training.npz is not what was exported" in error


def test_a_bundle_does_not_need_it_to_run(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy.dex")
    (copy / "training.npz").unlink()
    assert load_bundle(copy).manifest["training"]["env_steps"] == 1024
    assert load_config(copy).task.goal.seconds == 0.24


def test_environments_of_another_configuration_are_started_anew(
    native, tmp_path, capsys
):
    run = copy_of(native, tmp_path)
    arguments = ["--resume", "--run-dir", str(run), "--object.mass", "0.1"]
    line = continued([*arguments, "--max-env-steps", "1280"], capsys)
    assert "Started anew: environments (64 on native before, 64 on native now)" in line


def test_an_engine_that_saved_nothing_leaves_no_environments(native, tmp_path, capsys):
    """Killed before its first checkpoint: those that were saved are the C engine's."""
    run = copy_of(native, tmp_path)
    line = lineage.read(run)
    session = replace(line.here[0], engine="warp", iteration=4, env_steps=1024)
    lineage.write(run, line.joined_by(session))
    arguments = ["--resume", "--run-dir", str(run), "--engine", "warp"]
    line = continued([*arguments, "--max-env-steps", "1024"], capsys)
    assert "Started anew: environments (64 on native before, 64 on warp now)" in line


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("checkpoints", "config.yaml to begin anew there"),
        ("lineage.json", "an earlier version of mjx_dex made this run"),
    ],
)
def test_a_run_that_lost_a_part_is_one_line(native, tmp_path, lost, message, capsys):
    run = copy_of(native, tmp_path)
    if lost == "checkpoints":
        shutil.rmtree(run / lost)
    else:
        (run / lost).unlink()
    capsys.readouterr()
    assert message in error_of(["--resume", "--run-dir", str(run)], capsys)


@pytest.mark.parametrize("part", ["format", "training"])
def test_a_bundle_that_lacks_a_part_is_one_line(bundle, tmp_path, part, capsys):
    copy = shutil.copytree(bundle, tmp_path / "copy.dex")
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest[part]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    (copy / "SHA256SUMS").write_text(sums_of(copy))
    error = error_of(
        ["--from-run", str(copy), "--run-dir", str(tmp_path / "x")], capsys
    )
    assert f"{copy}/manifest.json lacks {part}" in error


def test_a_bundle_that_cannot_be_read_is_one_line(bundle, tmp_path, capsys):
    """Of a format to come, without weights, or damaged before it was summed."""

    def error(name, change):
        copy = shutil.copytree(bundle, tmp_path / name)
        change(copy)
        (copy / "SHA256SUMS").write_text(sums_of(copy))
        run = str(tmp_path / "x" / name)
        return error_of(["--from-run", str(copy), "--run-dir", run], capsys)

    def to_come(copy):
        manifest = json.loads((copy / "manifest.json").read_text()) | {"format": 3}
        (copy / "manifest.json").write_text(json.dumps(manifest))

    def without(copy):
        (copy / "weights.npz").unlink()
        (copy / sources.TRAINING).unlink()

    def damage(copy):
        content = (copy / sources.TRAINING).read_bytes()
        (copy / sources.TRAINING).write_bytes(content[: len(content) // 2])

    assert "is of format 3, and this version of mjx_dex reads 1 and 2" in error(
        "3.dex", to_come
    )
    assert "weights.npz is not there: export the run again" in error("w.dex", without)
    assert "training.npz cannot be read: " in error("d.dex", damage)


def test_nobody_trains_into_a_bundle(native, bundle, capsys):
    arguments = ["--from-run", str(native), "--run-dir", str(bundle)]
    assert f"--run-dir: {bundle} is a bundle" in error_of(arguments, capsys)
    assert not (bundle / "checkpoints").exists()


def test_a_resume_that_is_refused_changes_nothing(native, tmp_path, capsys):
    run = copy_of(native, tmp_path)
    kept = [run / "config.yaml", run / lineage.FILE]
    before = [path.read_text() for path in kept]
    capsys.readouterr()
    arguments = ["--resume", "--run-dir", str(run), "--max-env-steps", "1280"]
    assert "must not exceed" in error_of([*arguments, "--num-envs", "8"], capsys)
    assert [path.read_text() for path in kept] == before
    assert train.main(arguments) == 0  # with what it had
    assert rows(run)[-1]["env_steps"] == 1280


def test_a_run_that_has_its_steps_says_so(native, tmp_path, capsys):
    run = copy_of(native, tmp_path)
    before = (run / "config.yaml").read_text()
    capsys.readouterr()
    arguments = ["--resume", "--run-dir", str(run), "--max-env-steps", "512"]
    assert train.main(arguments) == 0
    assert "nothing is left of --max-env-steps 512" in capsys.readouterr().err
    assert (run / "config.yaml").read_text() == before


def test_what_becomes_of_another_learning_rate_is_said(native, tmp_path, capsys):
    before = float(learned(native)["learning_rate"])

    def to(name, *options):
        run = tmp_path / name
        arguments = ["--from-run", str(native), "--run-dir", str(run), *options]
        capsys.readouterr()
        assert train.main([*arguments, "--max-env-steps", "0"]) == 0
        return capsys.readouterr().err, float(learned(run)["learning_rate"])

    said, rate = to("steered", "--ppo.learning-rate", "1e-5")
    assert rate == before
    assert (
        "ppo.learning_rate 1e-05 is the initial one; training continues with "
        f"{before:.3g}, which follows ppo.kl_target"
    ) in said
    said, rate = to("fixed", "--ppo.learning-rate", "1e-5", "--ppo.kl-target", "None")
    assert rate == np.float32(1e-5)
    assert "learning rate" not in said
    run = copy_of(native, tmp_path)
    fixed = ["--ppo.learning-rate", "1e-5", "--ppo.kl-target", "None"]
    arguments = ["--resume", "--run-dir", str(run), *fixed, "--max-env-steps", "1280"]
    assert train.main(arguments) == 0
    said = capsys.readouterr().err
    assert f"learning rate: {before:.3g} before, 1e-05 from now on" in said
    assert learned(run)["learning_rate"] == np.float32(1e-5)
