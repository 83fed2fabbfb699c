"""Printing succeeds on any terminal, and commands to copy are quoted."""

import importlib
import io
import os
import select
import shlex
import subprocess
import sys

import pytest

from mjx_dex import ablate
from robot_bridge.terminal import READABLE, make_printable, shell_command
from robot_bridge.transports import TransportError
from robot_bridge.transports.socket import SocketHand

COMMANDS = [
    *(f"mjx_dex.{name}" for name in ("train", "evaluate", "view", "bench", "ablate")),
    *(f"mjx_dex.{name}" for name in ("grasps", "probe", "solver")),
    *("mjx_dex.physics.precompile", "mjx_dex.randomization.__main__"),
    *("mjx_dex.calibrate.__main__", "mjx_dex.calibrate.hidden"),
    *(f"mjx_dex.vision.{name}" for name in ("train", "evaluate", "bench", "preview")),
    *(f"mjx_dex.vision.{name}" for name in ("collect", "testset", "probe")),
    *(f"robot_bridge.{name}" for name in ("run", "export", "replay", "report")),
    *(f"robot_bridge.{name}" for name in ("sensors", "guard", "sim_hand", "drill")),
]

ASCII = {
    "PYTHONIOENCODING": "ascii",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}


def ascii_terminal(monkeypatch) -> io.BytesIO:
    """What such a terminal shows from now on. Not a fixture, whose streams pytest
    replaces before the test begins."""
    shown = io.BytesIO()
    for name in ("stdout", "stderr"):
        stream = io.TextIOWrapper(shown, encoding="ascii", write_through=True)
        monkeypatch.setattr(sys, name, stream)
    return shown


def test_characters_become_readable(monkeypatch):
    shown = ascii_terminal(monkeypatch)
    make_printable()
    print("1 ± 2°, 3 µs → σ²… 数")
    print("─", file=sys.stderr)
    assert shown.getvalue() == b"1 +- 2deg, 3 us -> sigma^2... ?\n-\n"


def test_what_stands_for_characters_is_ascii():
    assert all(text.isascii() and text for text in READABLE.values())
    assert not any(character.isascii() for character in READABLE)


def test_other_streams_are_left_alone(monkeypatch):
    """Such as a notebook's, which has no encoding, or none at all."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", None)
    make_printable()
    print("±")
    assert sys.stdout.getvalue() == "±\n" and sys.stderr is None


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_its_help_to_any_terminal(name, monkeypatch):
    command = importlib.import_module(name)
    shown = ascii_terminal(monkeypatch)
    with pytest.raises(SystemExit) as found:
        command.main(["--help"])
    assert found.value.code == 0
    assert sys.stdout.errors == sys.stderr.errors == "readable"
    assert b"usage" in shown.getvalue().lower()


@pytest.mark.parametrize("name", ["mjx_dex.evaluate", "robot_bridge.replay"])
def test_errors_are_printed_to_any_terminal(name, monkeypatch):
    command = importlib.import_module(name)
    shown = ascii_terminal(monkeypatch)
    assert command.main(["fünf"]) == 1
    assert shown.getvalue().startswith(b"error: ") and b"f?nf" in shown.getvalue()


def python(code: str, shell: str = "", **environment) -> subprocess.CompletedProcess:
    """What came of a process that has begun as commands do."""
    code = f"from robot_bridge.terminal import make_printable; make_printable(); {code}"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {shell}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        env=os.environ | environment,
        timeout=60,
    )


def test_a_process_in_another_locale_prints():
    done = python(r"print('\xb1')", **ASCII)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"+-\n", b"")
    done = python(r"print('\xb1')", PYTHONIOENCODING="latin-1")
    assert done.stdout == b"\xb1\n"
    done = python(r"print('\xb1')", PYTHONIOENCODING="utf-8")
    assert done.stdout.decode() == "±\n"


@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize("redirection", ["", "2>&1"])
def test_a_reader_that_leaves_ends_nothing(flush, redirection, tmp_path):
    """What is saved afterwards is saved, and nothing is said of a broken pipe."""
    saved = tmp_path / "saved"
    code = (
        "import sys\n"
        f"for k in range(30000): print(k, flush={flush}); print(file=sys.stderr)\n"
        f"open({str(saved)!r}, 'w').close()"
    )
    silent = "import sys\nfor k in range(30000): print(k)\n"
    done = python(code, f"{redirection} | head -1")
    assert done.returncode == 0 and done.stdout in (b"0\n", b"\n")
    assert not done.stderr.strip() and saved.exists()
    done = python(silent, f"{redirection} | head -c 0")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_line_arrives_as_soon_as_it_is_printed():
    code = "from robot_bridge.terminal import make_printable; make_printable(); "
    code += "import sys; print('open me'); sys.stdin.readline()"  # input() flushes
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert select.select([process.stdout], [], [], 60)[0], "nothing after a minute"
        assert process.stdout.readline() == "open me\n"


def test_other_errors_of_printing_are_errors():
    done = python("print('x')", "> /dev/full")
    assert done.returncode and b"No space left on device" in done.stderr


def test_closed_streams_do_not_matter():
    assert python("print('x')", ">&- 2>&-").returncode == 0


def test_words_of_a_command_stay_words():
    words = ("--resume", "--run-dir", "runs/my run", "$HOME", "it's")
    text = shell_command("mjx_dex.train", *words)
    assert shlex.split(text) == ["python", "-m", "mjx_dex.train", *words]
    assert shell_command("mjx_dex.evaluate", "runs/x") == (
        "python -m mjx_dex.evaluate runs/x"
    )


def test_commands_of_studies_can_be_copied():
    command = [sys.executable, "-m", "mjx_dex.train", "--run-dir", "my run/seed_0"]
    assert shlex.split(ablate._shown(command)) == ["python", *command[1:]]


def test_the_command_that_starts_a_hand_can_be_copied(tmp_path):
    path = tmp_path / "my hand"
    hand = SocketHand(path)
    with pytest.raises(TransportError) as found:
        hand.connect(0.1)
    hand.close()
    words = shlex.split(str(found.value).split("start one: ")[1])
    assert words[-2:] == ["--socket", str(path)]
