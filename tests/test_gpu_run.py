"""``scripts/gpu_run.sh`` from end to end, on a CPU and with tiny sizes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_train import TINY

from mjx_dex import bench, settings
from mjx_dex.solver import SolverCommand

ROOT = Path(__file__).parents[1]
TINY_BENCH = "--config quickstart --engines native --envs 4 --layers physics stepping"


def run_script(checkout, env_steps, **environment):
    """What it said; the time is ample."""
    return subprocess.run(
        ["scripts/gpu_run.sh", "20", "runs/tiny", *TINY[2:]],
        cwd=checkout,
        env=os.environ
        | environment
        | {
            "PYTHON": sys.executable,
            "BENCH_OPTIONS": f"{TINY_BENCH} --repeats 1",
            "TRAIN_OPTIONS": f"--engine native --max-env-steps {env_steps}",
            "EVALUATE_OPTIONS": "--trials 4 --task.goal.seconds 0.4",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what the script reads and writes."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("mjx_dex", "robot_bridge", "scripts"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "docs").mkdir()
    page = "# Results\n<!-- gpu_run: begin -->\nold\n<!-- gpu_run: end -->\nmore\n"
    (folder / "docs/results.md").write_text(page)
    return folder


def test_one_command_measures_trains_and_writes_it_down(checkout):
    done = run_script(checkout, env_steps=48)
    assert done.returncode == 0, done.stderr
    page = (checkout / "docs/results.md").read_text()
    assert page.startswith("# Results\n") and page.endswith("\nmore\n")
    assert "old" not in page
    assert "`scripts/gpu_run.sh 20 runs/tiny" in page
    rows = json.loads((checkout / "runs/tiny/bench.json").read_text())
    assert [row["layer"] for row in rows] == ["physics", "stepping"]
    for row in rows:
        assert f"| {row['env_steps_per_second']:,.0f} |" in page
        assert row["physics_steps_per_second"] == 10 * row["env_steps_per_second"]
    assert "48 env steps" in page
    result = json.loads((checkout / "runs/tiny/evaluation.json").read_text())
    (native,) = result["engines"]
    assert f"**{native['mean']:.2f} ±" in page and "goals uniform" in page
    for picture in ("gpu_bench.png", "gpu_curve.png"):
        assert (checkout / "docs" / picture).stat().st_size > 5_000


def test_again_it_goes_on_from_the_checkpoint(checkout):
    run = checkout / "runs/tiny"
    before = (run / "metrics.jsonl").read_text()
    done = run_script(checkout, env_steps=64)
    assert done.returncode == 0, done.stderr
    after = (run / "metrics.jsonl").read_text()
    assert after.startswith(before)
    assert len(after.splitlines()) == len(before.splitlines()) + 1
    page = (checkout / "docs/results.md").read_text()
    assert "64 env steps" in page and "48 env steps" not in page


def test_steps_are_chosen_and_another_commit_is_measured_beside(checkout):
    """All that needs no training, on MuJoCo Warp; the other commit is this one."""
    done = run_script(
        checkout,
        env_steps=64,
        STEPS="bench solver sizes",
        OLD=str(ROOT),
        OLD_BENCH_OPTIONS=f"{TINY_BENCH} --repeats 1",
        SOLVER_OPTIONS="--engine warp --envs 4 --repeats 1 --variants separating_axes",
        SIZES_OPTIONS="--budget 16 --variants 1_x_environments_horizon_20",
    )
    assert done.returncode == 0, done.stderr
    run = checkout / "runs/tiny"
    page = (checkout / "docs/results.md").read_text()
    for name in ("bench", "bench_old", "solver"):
        rows = json.loads((run / f"{name}.json").read_text())
        assert f"{rows[0]['env_steps_per_second']:,.0f} |" in page
    assert "On the same GPU, the other commit (OLD)," in page
    assert "![sizes](gpu_sizes.png)" in page
    assert "| 1 x environments, horizon 20 | 1 | 0.00 | " in page
    trained = run / "studies/sizes/1_x_environments_horizon_20/seed_0/metrics.jsonl"
    assert json.loads(trained.read_text().splitlines()[-1])["env_steps"] >= 16


def test_a_step_that_fails_does_not_keep_others_from_being_written_down(checkout):
    done = run_script(
        checkout, env_steps=64, STEPS="solver bench", SOLVER_OPTIONS="--engine native"
    )
    assert done.returncode == 1
    assert "error: failed: solver" in done.stderr
    rows = json.loads((checkout / "runs/tiny/bench.json").read_text())
    page = (checkout / "docs/results.md").read_text()
    assert f"| {rows[0]['env_steps_per_second']:,.0f} |" in page
    assert "| solver |" not in page


def test_a_step_that_hangs_is_ended_in_time_to_write_results(checkout, tmp_path):
    """Of 0.8 minutes 45 seconds are kept for what comes after the steps."""
    python = tmp_path / "python"
    hang = 'case "$*" in "-m mjx_dex.bench"*) exec sleep 300 ;; esac'
    python.write_text(f'#!/bin/bash\n{hang}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    page = checkout / "docs/results.md"
    page.write_text("<!-- gpu_run: begin -->\nold\n<!-- gpu_run: end -->\n")
    done = subprocess.run(
        ["scripts/gpu_run.sh", "0.8", "runs/hangs"],
        cwd=checkout,
        env=os.environ | {"PYTHON": str(python), "STEPS": "bench"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1
    assert "error: failed: bench" in done.stderr
    assert "scripts/gpu_run.sh 0.8 runs/hangs" in page.read_text()


def test_what_is_run_without_options_can_be_parsed():
    """On a GPU the script's own options are taken, which no other test does."""
    script = (ROOT / "scripts/gpu_run.sh").read_text()
    table = re.search(r'table="(.*?)"', script, re.S)[1].split()
    precisions = re.search(r"\$table (--precisions[^}]*)", script)[1].split()
    solver = re.search(r"SOLVER_OPTIONS:-([^}]*)", script)[1].split()
    base = settings.load("single_gpu")
    command = settings.from_command_line(
        bench.BenchCommand, base, [*table, *precisions], None
    )
    assert command.envs == (8192, 32768, 16384)
    assert command.precisions == ("tensorfloat32", "float32")
    command = settings.from_command_line(SolverCommand, base, solver, None)
    assert command.envs == (8448, 16896, 33792)


@pytest.mark.parametrize("minutes", ["abc", "-1", "nan", "1e3"])
def test_minutes_that_are_no_number_are_one_line(checkout, minutes):
    done = subprocess.run(
        ["scripts/gpu_run.sh", minutes], cwd=checkout, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == f"error: MINUTES: {minutes} is not a number above 0\n"


def test_a_page_that_cannot_be_written_is_reported_before_anything_is_measured(
    tmp_path,
):
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    done = subprocess.run(
        ["scripts/gpu_run.sh", "20"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: docs/results.md cannot be written")


def test_an_unknown_step_is_one_line(checkout):
    done = run_script(checkout, env_steps=64, STEPS="benhc")
    assert done.returncode == 2
    assert "STEPS: benhc is none of bench, solver, sizes, train" in done.stderr
