"""Every command sees before it computes whether it can write what comes of it.

The runs, nets and recordings that are given do not hold what would be computed with:
who looks at them first fails with another error.
"""

import ast
import errno
import itertools
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mjx_dex import (
    ablate,
    bench,
    evaluate,
    grasps,
    probe,
    runs,
    settings,
    solver,
    view,
)
from mjx_dex.calibrate import __main__ as calibrate
from mjx_dex.calibrate import hidden
from mjx_dex.config import Config
from mjx_dex.physics import precompile
from mjx_dex.randomization import __main__ as randomization
from mjx_dex.vision import bench as vision_bench
from mjx_dex.vision import collect, preview, testset
from mjx_dex.vision import evaluate as vision_evaluate
from mjx_dex.vision import train as vision_train
from robot_bridge import export, report, run, sensors, sim_hand

ROOT = Path(__file__).parents[1]

FILES = [
    (evaluate, ["RUN"], "--json"),
    (evaluate, ["RUN"], "--plot"),
    (grasps, ["RUN"], "--json"),
    (grasps, ["RUN"], "--plot"),
    (probe, ["RUN"], "--json"),
    (probe, ["RUN"], "--plot"),
    (view, ["RUN"], "--video"),
    (bench, [], "--json"),
    (bench, [], "--plot"),
    (solver, [], "--json"),
    (randomization, [], "--plot"),
    (hidden, [], "--out"),
    (calibrate, ["RECORDING"], "--out"),
    (collect, ["RUN"], "--out"),
    (preview, [], "--out"),
    (vision_bench, [], "--json"),
    (vision_evaluate, ["RUN"], "--json"),
    (run, ["BUNDLE"], "--json"),
    (run, ["BUNDLE"], "--record"),
    (sim_hand, ["BUNDLE", "--socket", "SOCKET"], "--log"),
    (report, ["RECORDING"], "--out"),
    (sensors, ["RECORDING"], ""),
]
"""Commands, what they are given beside, and the options that name files."""

FOLDERS = [
    (ablate, ["memory", "--config", "quickstart"], "--folder"),
    (bench, [], "--profile"),
    (testset, [], "--out"),
    (precompile, [], "--out"),
    (vision_train, ["--config", "smoke"], "--run-dir"),
    (export, ["RUN"], ""),
]

PICTURES = [case for case in FILES if case[2] == "--plot" or case[0] is report]


@pytest.fixture
def error_of(tmp_path, monkeypatch, capsys):
    """The line that a command ends with, before it has computed anything."""
    monkeypatch.chdir(tmp_path)
    settings.save(Config(), tmp_path / "run" / "config.yaml")
    (tmp_path / "recording.mcap").write_bytes(b"no recording")
    (tmp_path / "file").write_text("before")
    given = {
        "RUN": "run",
        "RECORDING": "recording.mcap",
        "BUNDLE": "bundle",
        "SOCKET": "socket",
    }

    def call(command, before, *flags):
        arguments = [given.get(word, word) for word in before]
        arguments += [str(word) for word in flags if word]
        begun = time.monotonic()
        assert command.main(arguments) == 1
        assert time.monotonic() - begun < 20
        shown = capsys.readouterr()
        lines = shown.err.splitlines()
        assert lines[-1].startswith("error: ") and "Traceback" not in shown.err
        assert not shown.out
        return lines[-1].removeprefix("error: ")

    return call


@pytest.mark.parametrize(("command", "before", "flag"), FILES)
def test_files_that_cannot_be_written_are_reported_at_once(
    command, before, flag, error_of, tmp_path
):
    # A suffix that all writers know, but the one of videos.
    name = "x.mp4" if flag == "--video" else "x.png"
    for path, reason in (
        (f"file/{name}", "/file is not a folder"),
        (f"/proc/{name}", ""),
    ):
        error = error_of(command, before, flag, path)
        assert error.startswith(f"{flag or 'OUT'} {path}: cannot be written: ")
        assert error.endswith(reason)
    (tmp_path / name).mkdir()
    error = error_of(command, before, flag, name)
    assert "is there" in error and name in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("command", "before", "flag"), FOLDERS)
def test_folders_that_cannot_be_written_are_reported_at_once(
    command, before, flag, error_of
):
    for path in ("file/x", "/proc/x"):
        error = error_of(command, before, flag, path)
        assert error.startswith(f"{flag or 'OUT'} {path}")
        assert "cannot be written" in error


@pytest.mark.parametrize(
    ("command", "before", "flag"),
    [*PICTURES, (view, ["RUN"], "--video"), (preview, [], "--out")],
)
@pytest.mark.parametrize("name", ["x.foo", "x"])
def test_formats_that_cannot_be_written_are_reported_at_once(
    command, before, flag, name, error_of
):
    error = error_of(command, before, flag, name)
    assert error.startswith(f"{flag} {name}: its name must end in one of .")


@pytest.mark.parametrize(
    ("command", "before", "flags"),
    [
        (evaluate, ["RUN"], ["--json", "x.png", "--plot", "x.png"]),
        (grasps, ["RUN"], ["--json", "x.png", "--plot", "./x.png"]),
        (probe, ["RUN"], ["--json", "x.png", "--plot", "x.png"]),
        (bench, [], ["--json", "x.png", "--plot", "x.png"]),
        (run, ["BUNDLE"], ["--json", "x", "--record", "x"]),
        (calibrate, ["RECORDING"], ["--out", "x.png"]),
        (calibrate, ["RECORDING"], ["--out", "recording.mcap"]),
        (calibrate, ["a.png"], ["--out", "a.json"]),
        (calibrate, ["a"], ["--out", "t", "--truth", "t"]),
        (calibrate, ["a"], ["--out", "c", "--hand.calibration", "c"]),
        (report, ["a.png"], ["--out", "a.png"]),
        (report, ["a.png"], []),
        (sensors, ["RECORDING"], ["recording.mcap"]),
        (export, ["RUN"], ["run"]),
    ],
)
def test_one_file_is_not_two_things(command, before, flags, error_of, tmp_path):
    (tmp_path / "c").write_text("{}")
    assert "is the same file as " in error_of(command, before, *flags)


def test_a_recording_and_a_calibration_stay_what_they_were(error_of, tmp_path):
    error_of(calibrate, ["RECORDING"], "--out", "recording.mcap")
    error_of(sensors, ["RECORDING"], "recording.mcap")
    assert (tmp_path / "recording.mcap").read_bytes() == b"no recording"


def test_a_recording_that_is_there_is_reported_before_the_hand_is_reached(error_of):
    error = error_of(run, ["BUNDLE"], "--record", "file")
    assert error == "--record file: is there already; give a new file"


def test_a_file_is_not_taken_for_an_old_socket(bundle_path, tmp_path, capsys):
    path = tmp_path / "precious"
    path.write_text("before")
    assert sim_hand.main([str(bundle_path), "--socket", str(path)]) == 1
    error = capsys.readouterr().err
    assert error == f"error: --socket {path}: Address already in use\n"
    assert path.read_text() == "before"


class CannotBePrintedError(Exception):
    """As a terminal or a pipe may raise."""


class Unprintable:
    """A row of a table, or a report."""

    def __str__(self):
        raise CannotBePrintedError

    __format__ = __str__


@dataclass
class UnprintableRow(Unprintable):
    engine: str = "native"


TRIALS = evaluate.Trials("native", [1, 2], ["drops", "timeouts"], [0.5], 0)


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """Of a run whose policy is not needed."""
    settings.save(Config(), tmp_path / "run" / "config.yaml")
    monkeypatch.chdir(tmp_path)
    policy = runs.Policy(None, 100)
    monkeypatch.setattr(runs, "load_policy", lambda *_: policy)
    return tmp_path / "run"


def computed(command, monkeypatch, **results) -> None:
    """Replace what takes long."""
    for name, value in results.items():
        monkeypatch.setattr(command, name, lambda *_, value=value, **__: value)


def stand_in(case: str, monkeypatch):
    """A command, its arguments, and the files that it writes in place of what it would
    compute for long; what it prints cannot be printed."""
    files = ["x.json", "x.png"]
    options = ["run", "--json", "x.json", "--plot", "x.png"]
    unprintable = {"report": Unprintable()}
    if case == "evaluate":
        computed(evaluate, monkeypatch, evaluate=TRIALS, **unprintable)
        return evaluate, options, files
    if case == "grasps":
        nothing = grasps.Touch(np.zeros((5, 3), bool), np.zeros(5, bool), False, False)
        observer = SimpleNamespace(touch=lambda _: nothing)
        renderer = SimpleNamespace(close=lambda: None)
        computed(grasps.mujoco, monkeypatch, Renderer=renderer)
        drawn = {"Play": None, "sample": np.zeros((2, 1)), "Observer": observer}
        computed(grasps, monkeypatch, **drawn, **unprintable)
        monkeypatch.setattr(grasps, "draw", lambda *given: given[-1].touch())
        return grasps, options, files
    if case == "probe":
        answer = probe.Answer("x", 1, 1.0, 100, 0.6, 0.5)
        answers = {"Play": None, "snapshots": [None], "ask": [answer]}
        computed(probe, monkeypatch, **answers, **unprintable)
        return probe, [*options, "--randomization.preset", "all"], files
    if case == "vision.evaluate":
        result = vision_evaluate.Result("gl", np.ones(2), np.ones(2), (1.0, 1.0))
        monkeypatch.setattr(vision_evaluate.nets, "load", lambda _: None)
        monkeypatch.setattr(vision_evaluate.dataset, "load", lambda _: None)
        computed(vision_evaluate, monkeypatch, measure=result, **unprintable)
        return vision_evaluate, [*options[:3], "--testsets", "x"], files[:1]
    if case == "randomization":
        computed(randomization.inspection, monkeypatch, draw_rows=[Unprintable()])
        computed(randomization.inspection, monkeypatch, trace=None)
        monkeypatch.setattr(
            randomization.inspection, "plot", lambda *given: given[-1].touch()
        )
        return randomization, options[3:], files[1:]
    if case == "bench":
        monkeypatch.setattr(bench.costs, "measure", lambda *_: [UnprintableRow()])
        return bench, [*options[1:], "--engines", "native", "--envs", "4"], files[:1]
    assert case == "solver"
    row = UnprintableRow()
    stage = SimpleNamespace(measure=lambda _: row)
    computed(solver, monkeypatch, _sized=None, Stage=stage)
    return solver, [*options[1:3], "--engine", "warp", "--envs", "4"], files[:1]


@pytest.mark.parametrize(
    "case",
    [
        *("evaluate", "grasps", "probe", "vision.evaluate"),
        *("randomization", "bench", "solver"),
    ],
)
def test_results_are_saved_before_they_are_printed(case, run_folder, monkeypatch):
    command, arguments, files = stand_in(case, monkeypatch)
    with pytest.raises(CannotBePrintedError):
        command.main(arguments)
    for name in files:
        assert (run_folder.parent / name).exists(), name


@pytest.mark.parametrize("case", ["evaluate", "grasps", "probe", "vision.evaluate"])
def test_results_are_printed_where_they_cannot_be_saved(
    case, run_folder, monkeypatch, capsys
):
    """The disk has become full since the command began."""
    command, arguments, _ = stand_in(case, monkeypatch)
    monkeypatch.setattr(command, "report", lambda *_: "the table")

    def fail(path, *_):
        raise OSError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(command, "write_at_once", fail)
    assert command.main(arguments) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("the table\n")
    assert shown.err == "error: cannot write x.json: No space left on device\n"


def test_a_disk_without_room_for_states_is_reported_before_they_are_collected(
    run_folder, monkeypatch, capsys
):
    def fail(file, begin, size):
        assert size > 4 * 31 * 1000
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def play(*_):
        return SimpleNamespace(steps=lambda _: pytest.fail("it plays"))

    monkeypatch.setattr(collect, "Play", play)
    monkeypatch.setattr(os, "posix_fallocate", fail)
    assert collect.main(["run", "--states", "1000", "--out", "x.npy"]) == 1
    error = "error: cannot write x.npy: No space left on device\n"
    assert capsys.readouterr().err == error
    assert not list(run_folder.parent.glob("*.npy"))


def test_where_nothing_can_be_drawn_is_reported_before_playing(
    run_folder, monkeypatch, capsys
):
    def fail(_):
        raise grasps.mujoco.FatalError("no OpenGL")

    monkeypatch.setattr(grasps.mujoco, "Renderer", fail)
    monkeypatch.setattr(grasps, "Play", lambda *_: pytest.fail("it plays"))
    assert grasps.main(["run", "--plot", "x.png"]) == 1
    assert "error: nothing can be drawn: no OpenGL" in capsys.readouterr().err


def test_figures_of_a_hand_are_saved_before_they_are_printed(
    bundle_path, tmp_path, monkeypatch
):
    def fail(*_):
        raise CannotBePrintedError

    monkeypatch.setattr(run, "_summarize", fail)
    path = tmp_path / "x.json"
    arguments = ["--transport", "lockstep", "--trials", "1", "--seconds", "0.3"]
    with pytest.raises(CannotBePrintedError):
        run.main([str(bundle_path), *arguments, "--no-record", "--json", str(path)])
    assert json.loads(path.read_text())["transport"] == "lockstep"


def test_what_a_bench_of_images_has_measured_is_saved_on_the_way(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    computed(vision_bench, monkeypatch, probe=("", 12.0))
    monkeypatch.setattr(vision_bench, "time_training", stop)
    with pytest.raises(KeyboardInterrupt):
        vision_bench.main(["--sizes", "64", "--renderers", "gl"])
    (row,) = json.loads((tmp_path / "vision_bench.json").read_text())
    assert row["images_per_second"] == 12.0


def sources() -> list[Path]:
    folders = ("mjx_dex", "robot_bridge", "scripts")
    return [
        path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))
    ]


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.name)
def test_files_are_read_and_written_in_utf_8_wherever_it_runs(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        is_text = name in ("read_text", "write_text")
        if name == "open" and ast.unparse(node.func) != "os.open":
            mode = [ast.unparse(argument) for argument in node.args]
            is_text = not any("b" in m for m in mode if m[0] in "'\"")
        if is_text:
            said = {keyword.arg for keyword in node.keywords}
            assert "encoding" in said or "'utf-8'" in map(ast.unparse, node.args), (
                f"line {node.lineno}: {ast.unparse(node)}"
            )


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.name)
def test_commands_to_copy_are_quoted(path):
    """A path put into a command by hand has no quotes: see ``shell_command``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts = node.values if isinstance(node, ast.JoinedStr) else []
        for text, value in itertools.pairwise(parts):
            if isinstance(text, ast.Constant) and isinstance(value, ast.FormattedValue):
                found = re.search(r"python -m [^,;]*$", text.value)
                assert not found, f"line {node.lineno}: {ast.unparse(value)}"
