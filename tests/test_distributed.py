"""Two real processes, joined by ``jax.distributed``, that train as one."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_train import TINY

from mjx_dex import train

WAIT = 300
"""Seconds after which a process hangs."""


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def start(run_dir, *options):
    """Two processes that train in ``run_dir``."""
    port = free_port()
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "mjx_dex.train", *options),
                *("--run-dir", run_dir, "--distributed", "--processes", "2"),
                *("--coordinator", f"localhost:{port}", "--process-id", str(i)),
            ],
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]


def finish(processes):
    """What each process said on its two channels."""
    try:
        said = [process.communicate(timeout=WAIT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, said, strict=True):
        assert process.returncode == 0, errors
    return said


def rows(run_dir):
    """Logged metrics, but for those that a clock decides."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    clocked = ("time", "seconds", "env_steps_per_second")
    return [
        {name: x for name, x in json.loads(line).items() if name not in clocked}
        for line in lines
    ]


SRUN = """#!/bin/bash
for i in 0 1; do
    SLURM_PROCID=$i SLURM_LOCALID=$i "$@" &
done
wait -n && wait -n
"""
"""As in a job of two tasks on this machine."""


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Four iterations of 16 steps on two processes, begun by the README's script.

    Returns:
        The run's folder and what both processes said.
    """
    folder = tmp_path_factory.mktemp("distributed")
    (folder / ".venv").symlink_to(sys.prefix)
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    script = re.search(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", readme, re.S)[1]
    (folder / "slurm.sh").write_text(script)
    (folder / "srun").write_text(SRUN)
    (folder / "srun").chmod(0o755)
    options = (*TINY, "--checkpoint-minutes", "0", "--max-env-steps", "64")
    done = subprocess.run(
        ["bash", "slurm.sh", *options],
        cwd=folder,
        env=os.environ
        | {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "1",
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": "2",
            "JAX_COORDINATOR_PORT": str(free_port()),
        },
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert done.returncode == 0, done.stderr
    return folder / "runs/slurm", done.stdout + done.stderr


@pytest.fixture
def stopped(straight, tmp_path):
    """The same run as it was after two iterations."""
    folder = tmp_path / "run"
    shutil.copytree(straight[0], folder)
    for iteration in ("3", "4"):
        shutil.rmtree(folder / "checkpoints" / iteration)
    return folder


def test_two_processes_train_and_one_of_them_speaks(straight):
    folder, said = straight
    for line in ("2 processes, 2 devices", "at 64 env steps", "evaluate: python"):
        assert said.count(line) == 1
    assert "error" not in said
    assert [row["iteration"] for row in rows(folder)] == [1, 2, 3, 4]
    assert (folder / "checkpoints" / "4" / "checksums.json").exists()
    assert len(list((folder / "tensorboard").glob("events.*"))) == 1


def test_two_processes_resume_bit_for_bit(straight, stopped):
    finish(start(stopped, "--resume"))
    assert rows(stopped) == rows(straight[0])


def test_one_process_continues_what_two_have_learned(stopped, capsys):
    assert train.main(["--resume", "--run-dir", str(stopped)]) == 0
    said = capsys.readouterr().err
    assert "after 32 env steps (iteration 2). Carried: policy, value network" in said
    assert "Started anew: environments (4 on native before, 4 on native now)" in said
    assert [row["iteration"] for row in rows(stopped)] == [1, 2, 3, 4]


def test_a_lost_process_ends_training_in_one_line(stopped):
    options = ("--max-env-steps", "1000000", "--checkpoint-minutes", "60")
    first, second = start(stopped, "--resume", *options)
    deadline = time.monotonic() + WAIT
    while rows(stopped)[-1]["iteration"] < 6:
        assert first.poll() is None and time.monotonic() < deadline, "no progress"
        time.sleep(0.2)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    _, errors = first.communicate(timeout=WAIT)
    assert first.returncode == 1
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "another process was lost" in lines[0]
    assert "--resume continues from the checkpoint of iteration" in lines[0]
    assert "Traceback" not in errors
    options = ["--resume", "--run-dir", str(stopped), "--max-env-steps", "16"]
    assert train.main(options) == 0


def test_options_that_name_no_job_are_one_line(tmp_path):
    command = [sys.executable, "-m", "mjx_dex.train", "--distributed"]
    done = subprocess.run(
        [*command, "--run-dir", tmp_path / "run"],
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: --distributed: cannot join a job")
    assert "--coordinator HOST:PORT" in done.stderr


def test_options_of_a_job_need_the_job(capsys):
    assert train.main(["--processes", "2"]) == 1
    assert "--process-id need --distributed" in capsys.readouterr().err


def test_a_job_needs_to_be_told_its_folder(capsys):
    assert train.main(["--distributed"]) == 1
    assert "give a --run-dir, the same to all" in capsys.readouterr().err
