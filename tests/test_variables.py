"""Variables of the environment that commands cannot run with, and missing folders."""

import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import pytest

import mjx_dex
from mjx_dex import variables

ROOT = Path(mjx_dex.__file__).parents[1]

COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "mjx_dex").rglob("*.py")
    if 'if __name__ == "__main__"' in path.read_text() and path.name != "worker.py"
)
WITH_MUJOCO = [*COMMANDS, "robot_bridge.export", "robot_bridge.sim_hand"]


def run(*arguments, **changes):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment | {"PYTHONPATH": str(ROOT)} | changes,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def check_is_one_line(done, *words):
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


@pytest.mark.parametrize("command", WITH_MUJOCO)
def test_an_unknown_renderer_is_one_line(command):
    done = run("-m", command.removesuffix(".__main__"), MUJOCO_GL="glass")
    check_is_one_line(done, "MUJOCO_GL=glass", "egl", "osmesa")


def test_a_renderer_that_does_not_work_is_one_line():
    done = run("-m", "mjx_dex.view", MUJOCO_GL="osmesa", PYOPENGL_PLATFORM="egl")
    check_is_one_line(done, "MUJOCO_GL=osmesa does not work", "PYOPENGL_PLATFORM")


def test_the_bridge_does_not_wait_for_a_hand_that_ended():
    done = run("-m", "robot_bridge.run", "near.dex", "--no-record", MUJOCO_GL="glass")
    hand, bridge = done.stderr.splitlines()
    assert "MUJOCO_GL=glass" in hand
    assert bridge == "error: the simulated hand ended; its own error is above"
    assert done.returncode == 1


def test_the_library_raises_import_error():
    code = "try:\n import mjx_dex\nexcept ImportError as error:\n print(error)"
    done = run("-c", code, MUJOCO_GL="glass")
    assert done.stdout.startswith("MUJOCO_GL=glass does not work")
    assert done.stderr == ""


def test_a_switch_of_jax_that_is_neither_on_nor_off_is_one_line():
    done = run("-m", "mjx_dex.train", JAX_DEBUG_NANS="maybe")
    check_is_one_line(done, "JAX_DEBUG_NANS", "maybe")


@pytest.mark.parametrize("command", ["mjx_dex.train", "mjx_dex.ablate"])
def test_a_platform_that_jax_lacks_is_one_line(command):
    arguments = ["memory"] if command.endswith("ablate") else []
    done = run("-m", command, *arguments, JAX_PLATFORMS="abacus")
    check_is_one_line(done, "JAX_PLATFORMS=abacus", "set it to cpu or cuda")


@pytest.mark.parametrize("command", COMMANDS)
def test_64_bits_are_refused(command, capsys, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "1")  # ablate asks another process
    arguments = ["memory"] if command.endswith("ablate") else []
    jax.config.update("jax_enable_x64", True)
    try:
        assert importlib.import_module(command).main(arguments) == 1
    finally:
        jax.config.update("jax_enable_x64", False)
    assert "error: JAX_ENABLE_X64=1: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "module"),
    [
        (["python", "-m", "mjx_dex.train", "--resume"], "mjx_dex.train"),
        (["python", "-u", "-m", "robot_bridge.export"], "robot_bridge.export"),
        (["python", "-m", "pytest", "-m", "mjx_dex.train"], ""),
        (["python", "-c", "import mjx_dex"], ""),
        (["python", "mine.py", "-m"], ""),
    ],
)
def test_commands_are_told_from_other_programs(words, module):
    assert variables.command_of(words) == module


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Variables of a user with a home directory, and nothing else."""
    environment = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(tempfile, "tempdir", None)  # it is looked for once
    return environment


def test_caches_are_in_the_home_directory(environment, capsys):
    variables.find_caches()
    expected = f"{environment['HOME']}/.cache/mjx_dex/jax"
    assert environment["JAX_COMPILATION_CACHE_DIR"] == expected
    assert "WARP_CACHE_PATH" not in environment  # its own place is as good
    assert capsys.readouterr().err == ""


def check_caches_are_temporary(environment, *names):
    for name in names:
        folder = Path(environment[name])
        assert Path(environment["TMPDIR"]) in folder.parents
        assert Path(environment["HOME"]) not in folder.parents


def test_without_a_home_directory_caches_are_temporary(
    environment, capsys, monkeypatch
):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    variables.find_caches()
    check_caches_are_temporary(environment, *variables.CACHES)
    (line,) = capsys.readouterr().err.splitlines()
    assert "no home directory" in line and "XDG_CACHE_HOME" in line


def test_a_home_directory_that_is_a_file_is_none(environment, capsys, tmp_path):
    (tmp_path / "file").touch()
    environment["HOME"] = str(tmp_path / "file")
    variables.find_caches()
    check_caches_are_temporary(environment, *variables.CACHES)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_cache_that_cannot_be_written_is_named_by_its_variable(
    environment, capsys, tmp_path
):
    (tmp_path / "file").touch()
    environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "file" / "jax")
    variables.find_caches()
    check_caches_are_temporary(environment, "JAX_COMPILATION_CACHE_DIR")
    assert "MPLCONFIGDIR" not in environment
    (line,) = capsys.readouterr().err.splitlines()
    assert "file/jax cannot be written" in line
    assert "set JAX_COMPILATION_CACHE_DIR" in line


def test_a_cache_that_is_switched_off_stays_off(environment, capsys):
    environment["JAX_COMPILATION_CACHE_DIR"] = ""
    variables.find_caches()
    assert environment["JAX_COMPILATION_CACHE_DIR"] == ""
    assert capsys.readouterr().err == ""
