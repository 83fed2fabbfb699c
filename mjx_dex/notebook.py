"""The commands of mjx_dex in a notebook's cell."""

import shlex
import subprocess
import sys


def command(line: str) -> None:
    """Run a command as in a terminal, with this notebook's Python.

    What it prints appears below the cell as it comes.

    Args:
        line: ``python -m mjx_dex.train ...``.

    Raises:
        ValueError: if it does not begin with ``python``.
        RuntimeError: if the command fails.
    """
    program, *arguments = shlex.split(line)
    if program != "python":
        raise ValueError(f"a command begins with python -m mjx_dex., not {program}")
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        for said in process.stdout:
            print(said, end="", flush=True)
    if process.returncode:
        raise RuntimeError(f"this failed: {line}")
