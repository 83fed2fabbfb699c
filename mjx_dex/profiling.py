"""Where the time of a training iteration goes, by phase and kind of operation.

``python -m mjx_dex.bench --profile FOLDER`` records a trace of one iteration, which
TensorBoard and Perfetto open, and prints a table of it.
"""

import collections
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
from jax.profiler import ProfileData

from mjx_dex.learning import Learner, Trainer
from mjx_dex.learning.trainer import PHASES

WARM_UP = 2
"""Iterations before the one that is traced."""
INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?(?P<name>[\w.\-]+) = .*?"
    r"(?: (?P<opcode>[a-z][a-z\-]*)\(.*?)op_name=\"(?P<path>[^\"]*)\"",
    re.MULTILINE,
)
"""A line of a compiled program: an operation and the JAX function it comes from."""


class Event(NamedTuple):
    """One execution of an operation, or of whatever else a thread or stream ran."""

    thread: str
    name: str
    """Of the operation in the compiled program."""
    start: float
    """[s]."""
    duration: float
    """[s], with the operations that it called."""


class Origin(NamedTuple):
    """Where an operation of the compiled program comes from."""

    opcode: str
    path: str
    """Names of JAX's functions and scopes, outer ones first, separated by slashes."""


@dataclass(frozen=True)
class Share:
    """Operations of one phase and kind."""

    phase: str
    kind: str
    seconds: float
    """Summed over threads or streams, without the operations that these called."""
    executions: int


def profile(trainer: Trainer, learner: Learner, folder: Path) -> list[Share]:
    """Trace one iteration into ``folder``.

    Args:
        trainer: of the iteration; it is compiled anew.
        learner: is given up, as in ``Trainer.iterate``.
        folder: the trace is added to those that are there.

    Returns:
        Most expensive first.
    """
    program = trainer.lower(learner).compile()
    for _ in range(WARM_UP):
        learner, _ = program(learner)
    jax.block_until_ready(learner)
    with jax.profiler.trace(str(folder)):
        jax.block_until_ready(program(learner))
    traces = folder.glob("plugins/profile/*/*.xplane.pb")
    latest = max(traces, key=lambda path: path.stat().st_mtime)
    return shares(_events(latest), origins(program.as_text()))


def origins(program: str) -> dict[str, Origin]:
    """Operations of a compiled program by name, from its text."""
    return {
        match["name"]: Origin(match["opcode"], match["path"])
        for match in INSTRUCTION.finditer(program)
    }


def shares(events: Iterable[Event], known: dict[str, Origin]) -> list[Share]:
    """Sum the events by phase and kind, most expensive first."""
    seconds, executions = collections.Counter(), collections.Counter()
    for event, own in _own_durations(events):
        origin = known.get(event.name, Origin("", ""))
        group = _phase(origin.path), _kind(event.name, origin)
        seconds[group] += own
        executions[group] += 1
    return [
        Share(*group, total, executions[group])
        for group, total in seconds.most_common()
    ]


def table(rows: list[Share]) -> str:
    """Text of at most 20 lines."""
    total = sum(row.seconds for row in rows)
    lines = [f"{'phase':22} {'kind':12} {'share':>6} {'ms':>9} {'executions':>10}"]
    for row in rows[:19]:
        lines.append(
            f"{row.phase:22} {row.kind:12} {row.seconds / total:6.1%} "
            f"{1000 * row.seconds:9.1f} {row.executions:10,}"
        )
    return "\n".join(lines)


def _events(path: Path) -> list[Event]:
    """Operations in a trace: of the device's streams, or of a CPU's threads."""
    planes = list(ProfileData.from_file(str(path)).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    events = []
    for plane in devices or planes:
        for line in plane.lines:
            for event in line.events:
                operation = dict(event.stats).get("hlo_op")
                if operation is None and not devices:
                    continue  # the CPU's threads tell a lot about themselves
                events.append(
                    Event(
                        f"{plane.name} {line.name}",
                        operation or event.name,
                        1e-9 * event.start_ns,
                        1e-9 * event.duration_ns,
                    )
                )
    return events


def _own_durations(events: Iterable[Event]) -> Iterable[tuple[Event, float]]:
    """Each event, and its duration less that of events inside it on its thread."""
    ordered = sorted(events, key=lambda e: (e.thread, e.start, -e.duration))
    own = [event.duration for event in ordered]
    open_events: list[int] = []
    for index, event in enumerate(ordered):
        while open_events and not _contains(ordered[open_events[-1]], event):
            open_events.pop()
        if open_events:
            own[open_events[-1]] -= event.duration
        open_events.append(index)
    return zip(ordered, own, strict=True)


def _contains(outer: Event, inner: Event) -> bool:
    same_thread = outer.thread == inner.thread
    return same_thread and inner.start < outer.start + outer.duration


def _phase(path: str) -> str:
    scopes = [scope for scope in path.split("/") if scope in PHASES]
    return scopes[-1] if scopes else "else"


def _kind(name: str, origin: Origin) -> str:
    called = origin.path.rpartition("/")[2]
    if origin.opcode == "dot" or called == "dot_general":
        return "product"
    if origin.opcode == "custom-call" or not origin.opcode:
        return "call"
    if name.startswith(("copy", "transpose", "concatenate", "bitcast")):
        return "copy"
    if origin.opcode in ("while", "conditional", "call"):
        return "loop"
    return "elementwise"
