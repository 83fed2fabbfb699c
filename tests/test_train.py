import errno
import io
import json
import math
import os
import shlex
import signal
import struct
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from mjx_dex import evaluate, report, run_folder, train
from mjx_dex.board import Board

TINY = [
    *("--engine", "native", "--num-envs", "4", "--task.start-steps", "3"),
    *("--bank.size", "4", "--bank.starting", "2"),
    *("--network.hidden", "16", "--network.memory", "8"),
    *("--ppo.horizon", "4", "--ppo.chunk", "2", "--ppo.minibatch-size", "8"),
]


def rows(run_dir):
    return [json.loads(x) for x in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run of three iterations."""
    folder = tmp_path_factory.mktemp("runs") / "my run"
    assert train.main([*TINY, "--run-dir", str(folder), "--max-env-steps", "48"]) == 0
    return folder


def test_a_run_leaves_everything_a_person_looks_for(run_dir):
    assert [row["iteration"] for row in rows(run_dir)] == [1, 2, 3]
    assert rows(run_dir)[-1]["env_steps"] == 48
    assert (run_dir / "learning_curve.png").stat().st_size > 10_000
    assert list((run_dir / "tensorboard").glob("events.*"))
    assert (run_dir / "checkpoints" / "3").is_dir()


def test_a_resumed_run_goes_on_with_its_own_configuration(run_dir, capsys):
    arguments = ["--resume", "--run-dir", str(run_dir), "--max-env-steps", "80"]
    assert train.main(arguments) == 0
    *_, again, evaluation = map(shlex.split, capsys.readouterr().out.splitlines())
    resumed = ["--resume", "--run-dir", str(run_dir)]
    assert again == ["continue:", "python", "-m", "mjx_dex.train", *resumed]
    evaluated = ["python", "-m", "mjx_dex.evaluate", str(run_dir)]
    assert evaluation == ["evaluate:", *evaluated]
    assert [row["iteration"] for row in rows(run_dir)] == [1, 2, 3, 4, 5]


def test_a_run_can_be_evaluated(run_dir, tmp_path, capsys):
    result = tmp_path / "result.json"
    arguments = [str(run_dir), "--trials", "4", "--json", str(result)]
    limits = ["--task.goal.seconds", "0.4", "--task.goal.distribution", "uniform"]
    assert evaluate.main([*arguments, *limits]) == 0
    (native,) = json.loads(result.read_text())["engines"]
    assert native["drops"] + native["timeouts"] + native["completions"] == 4
    assert len(native["goals"]) == 4
    assert "goals uniform" in capsys.readouterr().out


def error_of(arguments, capsys, command=train):
    if command is train and "--max-env-steps" not in arguments:
        # Were the error not raised, training would go on for hours.
        arguments = [*arguments, "--max-env-steps", "16"]
    assert command.main(arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert not any("Traceback" in line for line in lines)
    assert [line[:7] == "error: " for line in lines].count(True) == 1
    assert lines[-1].startswith("error: ")
    return lines[-1]


def test_a_run_is_not_overwritten(run_dir, capsys):
    error = error_of([*TINY, "--run-dir", str(run_dir)], capsys)
    assert str(run_dir) in error and "--resume" in error


def test_checkpoints_without_a_configuration_are_not_overwritten(tmp_path, capsys):
    (tmp_path / "checkpoints/7").mkdir(parents=True)
    error = error_of([*TINY, "--run-dir", str(tmp_path)], capsys)
    assert f"{tmp_path / 'checkpoints'} holds checkpoints of a run without" in error


def test_an_unknown_key_is_one_line(tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text("ppo: {gama: 0.9}")
    error = error_of(["--config", str(path)], capsys)
    assert str(path) in error and "ppo.gama" in error


def test_a_truncated_checkpoint_is_one_line(tmp_path, capsys):
    folder = tmp_path / "run"
    assert train.main([*TINY, "--run-dir", str(folder), "--max-env-steps", "16"]) == 0
    latest = folder / "checkpoints" / "1"
    files = [p for p in latest.rglob("*") if p.is_file()]
    biggest = max(files, key=lambda p: p.stat().st_size)
    biggest.write_bytes(biggest.read_bytes()[:100])
    capsys.readouterr()
    error = error_of(["--resume", "--run-dir", str(folder)], capsys)
    assert str(latest) in error


def test_evaluate_without_a_run_is_one_line(tmp_path, capsys):
    assert str(tmp_path) in error_of([str(tmp_path / "none")], capsys, evaluate)


def test_resuming_without_a_run_is_one_line(tmp_path, capsys):
    error = error_of(["--resume", "--run-dir", str(tmp_path / "none")], capsys)
    assert error == f"error: --resume: there is no run in {tmp_path / 'none'}"


def test_bad_values_are_one_line(tmp_path, capsys):
    arguments = [*TINY, "--run-dir", str(tmp_path / "x"), "--object.shape", "teapot"]
    assert "teapot" in error_of(arguments, capsys)


def test_spoiled_networks_end_training_in_one_line(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    arguments = [*TINY, "--run-dir", str(folder)]
    assert train.main([*arguments, "--max-env-steps", "16"]) == 0
    capsys.readouterr()
    iterate = train.Trainer.iterate

    def overflow(trainer, learner):
        infinite = jax.tree.map(lambda x: jnp.inf * x, learner.parameters)
        return iterate(trainer, learner.replace(parameters=infinite))

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "iterate", overflow)
        resumed = ["--resume", "--run-dir", str(folder), "--max-env-steps", "160"]
        error = error_of(resumed, capsys)
    assert "parameters became infinite or NaN in iteration 2" in error
    assert "--resume continues from the checkpoint of iteration 1" in error
    gentle = ["--ppo.learning-rate", "1e-4", "--max-env-steps", "48"]
    gentle += ["--ppo.kl-target", "None"]
    assert train.main(["--resume", "--run-dir", str(folder), *gentle]) == 0
    assert rows(folder)[-1]["learning_rate"] == pytest.approx(1e-4)


def test_rewards_that_are_no_numbers_end_training_in_one_line_or_are_skipped(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        "mjx_dex.task.env.rewards.reward", lambda *_, **__: jnp.float32(np.nan)
    )
    folder = tmp_path / "run"
    arguments = ["--run-dir", str(folder), "--max-env-steps", "16"]
    error = error_of([*TINY, *arguments], capsys)
    assert "16 of the 16 transitions of iteration 1" in error
    assert "--ppo.nonfinite skip" in error
    assert "--resume continues from the checkpoint of iteration 0" in error
    assert train.main(["--resume", *arguments, "--ppo.nonfinite", "skip"]) == 0
    assert rows(folder)[-1]["nonfinite"] == 16
    assert "were skipped" in capsys.readouterr().err


def test_running_out_of_memory_is_one_line(run_dir, capsys, monkeypatch):
    def fail(*_):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory allocating 123456789 bytes.\nmore"
        )

    monkeypatch.setattr(train.Trainer, "iterate", fail)
    arguments = ["--resume", "--run-dir", str(run_dir), "--max-env-steps", "160"]
    error = error_of(arguments, capsys)
    assert "out of memory" in error and "lower --num-envs" in error
    assert "--resume continues from the checkpoint of iteration" in error


def test_full_buffers_are_said_once_and_counted(tmp_path, capsys):
    row = dict.fromkeys(("env_steps", "goals_per_episode", "kl", "broken_worlds"), 0)
    with report.RunLog(tmp_path, iteration=0, env_steps=0, end=100) as run_log:
        for iteration, lost in enumerate((0, 7, 9)):
            run_log.write(iteration, row | {"lost_contacts": lost}, None)
    said = capsys.readouterr().err
    assert said.count("a contact or constraint buffer was full") == 1
    assert "--physics.max-contacts" in said
    assert [row["lost_contacts"] for row in rows(tmp_path)] == [0, 7, 9]


def test_progress_without_a_terminal_is_a_line_now_and_then(
    tmp_path, capsys, monkeypatch
):
    names = ("goals_per_episode", "kl", "broken_worlds", "lost_contacts")
    row = dict.fromkeys(names, 0) | {"env_steps": 5000, "env_steps_per_second": 1200}
    now = [0.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    with report.RunLog(tmp_path, iteration=0, env_steps=0, end=100) as run_log:
        for iteration in range(10):
            now[0] += 20.0
            run_log.write(iteration, row, 3.0)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert said[0].startswith("5,000 env steps, 1,200 per second, goals/episode=0.00")
    assert said[0].endswith("minutes left=3")


def test_metrics_after_the_checkpoint_are_cut_off_and_nothing_is_rewritten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    # Not as json writes them: what is kept stays byte for byte.
    kept = '{"iteration":1}\n{"iteration":2,  "x":NaN}\n'
    path.write_text(kept + '{"iteration": 3}\n{"iteration": 4')
    inode = path.stat().st_ino
    with report.append_rows(tmp_path, lambda row: row["iteration"] <= 2) as file:
        assert path.read_text() == kept
        report.write_row(file, {"iteration": 3, "y": 1})
    assert path.read_text() == kept + '{"iteration": 3, "y": 1}\n'
    assert path.stat().st_ino == inode
    assert [row["iteration"] for row in report.read_metrics(tmp_path)] == [1, 2, 3]


def test_a_full_disk_names_the_file():
    class Full(io.StringIO):
        name = "runs/x/metrics.jsonl"

        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left on device: 'runs/x/metrics"):
        report.write_row(Full(), {"iteration": 1})


def test_curves_for_tensorboard_are_what_was_logged(tmp_path):
    board = Board(tmp_path, 3)
    for step in range(3, 30):
        board.scalars({"a": 2.0 * step, "b": math.nan}, step)
    board.close()
    (path,) = tmp_path.iterdir()
    found = [Event.FromString(record) for record in records(path)]
    (start,) = [x for x in found if x.HasField("session_log")]
    assert start.step == 3 and start.session_log.status == SessionLog.START
    logged = [
        (x.step, value.tag, value.simple_value)
        for x in found
        for value in x.summary.value
    ]
    assert logged == [(step, "a", 2.0 * step) for step in range(3, 30)]


def records(path):
    """Of a TFRecord file: a length of 8 bytes, its checksum of 4, data, checksum."""
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield content[12 : 12 + length]
        content = content[16 + length :]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_that_is_interrupted_is_one_line_and_leaves_nothing(tmp_path, number):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "mjx_dex.train", *TINY, "--run-dir", str(folder)],
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        while "starting 4 environments" not in (line := process.stderr.readline()):
            assert line, "it ended"
        process.send_signal(number)
        # It is noticed when XLA has compiled what it is at.
        _, said = process.communicate(timeout=600)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted" and "Traceback" not in said
    assert not folder.exists()


def test_a_run_that_is_trained_is_not_trained_twice(run_dir, capsys):
    with run_folder.resume(run_dir):
        arguments = ["--resume", "--run-dir", str(run_dir), "--max-env-steps", "480"]
        assert "is in use: process" in error_of(arguments, capsys)


def test_what_resuming_cannot_change_says_what_to_use_instead(run_dir, capsys):
    resume = ["--resume", "--run-dir", str(run_dir)]
    error = error_of([*resume, "--seed", "7"], capsys)
    assert "--seed 7: a run that is resumed keeps its own, 0; --from-run" in error
    error = error_of([*resume, "--network.hidden", "24"], capsys)
    assert "networks are others: network.hidden 16, not 24; give its values" in error
    assert "another --run-dir" in error


def test_a_start_that_fails_leaves_no_folder(tmp_path, capsys):
    folder = tmp_path / "runs/x"
    arguments = [*TINY, "--run-dir", str(folder), "--hand.calibration", "none.json"]
    assert "none.json" in error_of(arguments, capsys)
    assert not folder.parent.exists()
    assert train.main([*TINY, "--run-dir", str(folder), "--max-env-steps", "16"]) == 0


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "mjx_dex.train", *TINY, "--run-dir", str(folder)],
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = folder / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert f"--resume --run-dir {folder}" in said
    last = rows(folder)[-1]["iteration"]
    assert (folder / "checkpoints" / str(last)).is_dir()
