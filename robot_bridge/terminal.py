"""Printing to any terminal, pipe or file, and commands for people to copy."""

from __future__ import annotations

import codecs
import errno
import io
import os
import shlex
import sys

READABLE = {
    **{"±": "+-", "×": "x", "·": "*", "−": "-", "²": "^2", "³": "^3", "√": "sqrt"},
    **{"≤": "<=", "≥": ">=", "≈": "~", "≠": "!=", "∞": "inf", "°": "deg"},
    **{"→": "->", "←": "<-", "↔": "<->", "…": "...", "–": "-", "—": "-", "•": "*"},
    **{"‘": "'", "’": "'", "“": '"', "”": '"', "\xa0": " ", "µ": "u", "μ": "u"},
    **{"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "Δ": "Delta"},
    **{"ε": "epsilon", "θ": "theta", "λ": "lambda", "π": "pi", "ρ": "rho"},
    **{"σ": "sigma", "Σ": "Sigma", "τ": "tau", "φ": "phi", "ω": "omega"},
    # Frames of help texts and errors, and progress bars.
    **dict.fromkeys("─━═", "-"),
    **dict.fromkeys("│┃║", "|"),
    **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼", "+"),
    **dict.fromkeys("▏▎▍▌▋▊▉█", "#"),
}
"""ASCII for characters that commands print."""


def make_printable() -> None:
    """Make printing succeed from here on, whatever is at the other end.

    Characters that a terminal cannot show become ASCII; where nobody reads any more, as
    after ``| head -1``, what is printed is dropped, and the command runs to its end.
    """
    codecs.register_error("readable", _readable)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            continue  # closed by whoever started this process
        if stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _persistent(stream))
        elif hasattr(stream, "reconfigure"):  # not a notebook's
            stream.reconfigure(errors="readable")


def shell_command(module: str, *arguments: object) -> str:
    """Command line for people to copy, quoted where a shell needs it."""
    return shlex.join(["python", "-m", module, *map(str, arguments)])


def _readable(error: UnicodeError) -> tuple[str, int]:
    """Codec error handler: ASCII in place of what cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unknown = error.object[error.start : error.end]
    return "".join(READABLE.get(character, "?") for character in unknown), error.end


def _persistent(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """Stream that prints where ``stream`` does, and never fails for want of a reader.

    A line is there as soon as it is printed, in a pipe or file, too: a server's address
    would otherwise wait until it ends.
    """
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Unread(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="readable",
        line_buffering=True,
        write_through=stream.write_through,
    )


class _Unread(io.FileIO):
    """Standard stream that leads nowhere as soon as its pipe or terminal is closed."""

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
        # The descriptor itself: child processes print to it, too.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        return len(data)
