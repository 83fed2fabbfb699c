"""``python -m robot_bridge.replay FILE``: think a recording through once more.

The same sensors, wishes and times go into the same controller. With the bundle that was
recorded, every command must come out the same, bit for bit on the same machine.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robot_bridge import bundle as bundles
from robot_bridge import policies, terminal
from robot_bridge.arguments import Number
from robot_bridge.controller import Controller, Options
from robot_bridge.goals import GoalRules
from robot_bridge.messages import HandInfo, Snapshot
from robot_bridge.programs import make_program
from robot_bridge.recording import RecordingError, numbers, read, sample_of
from robot_bridge.safety import Fault, Limits


@dataclass
class Comparison:
    """Of commands that were recorded with those that come out now."""

    ticks: int = 0
    """While the policy ran."""
    different: int = 0
    """Ticks whose state or command is not the same, bit for bit."""
    largest: float = 0.0
    """Largest difference of a target [rad]; infinite where states or forces differ."""
    first: str = ""
    """The first that differs."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    terminal.make_printable()
    parser = argparse.ArgumentParser(
        prog="python -m robot_bridge.replay", description=__doc__.split("\n")[0]
    )
    parser.add_argument("recording", type=Path)
    parser.add_argument(
        "--bundle", type=policies.find, help="another policy than was recorded"
    )
    tolerance = "of targets [rad]: %(type)s (default: 0)"
    parser.add_argument("--tolerance", type=Number(0), default=0.0, help=tolerance)
    options = parser.parse_args(arguments)
    try:
        found = replay(options.recording, options.bundle)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    same = found.largest <= options.tolerance and (
        not found.different or options.tolerance > 0
    )
    print(
        f"{found.ticks} ticks of the policy: {found.different} differ, by at most "
        f"{found.largest:.1e} rad" + (f"; first {found.first}" if found.first else "")
    )
    return 0 if same else 1


def replay(path: Path, other: Path | None = None) -> Comparison:
    """Compare a recording with what its policy, or another's, does now.

    Raises:
        RecordingError: if the file is no recording, or its bundle has changed.
        BundleError: if its bundle cannot be read.
    """
    entries = read(path)
    topic, start = next(entries)
    if topic != "start":
        raise RecordingError(f"{path} does not begin with what was run")
    loaded = bundles.load(other or Path(start["bundle"]))
    if other is None and loaded.digest != start["digest"]:
        raise RecordingError(
            f"{path} was made with another export of {start['bundle']}; give its "
            "bundle with --bundle"
        )
    controller = _controller(loaded, start)
    samples, found = {}, Comparison()
    for topic, entry in entries:
        if topic == "look":
            samples.update(
                {name: sample_of(value) for name, value in entry["samples"].items()}
            )
            snapshot = Snapshot(
                **samples,
                **{name: entry[name] for name in ("object_frame", "fault", "danger")},
            )
            others = tuple(Fault(*other[:2]) for other in entry["others"])
            before = controller.state
            controller.look(snapshot, entry["now"], others)
            if controller.state is not before and start["armed"]:
                _sent(controller)
        elif topic == "wish" and entry["wish"] == "new trial":
            controller.forget()
        elif topic == "wish":
            controller.obey(entry["wish"], entry["now"])
        elif topic == "tick":
            controller.tick(entry["now"])
            if entry["sent"]:
                _sent(controller)
            controller.finish_tick(entry["due"], entry["done"])
            _compare(controller, entry, found)
    return found


def _controller(loaded: bundles.Bundle, start: dict) -> Controller:
    info = start["info"]
    limits = {name: tuple(ends) for name, ends in info["limits"].items()}
    options = start["options"]
    options = Options(**{**options, "limits": Limits(**options["limits"])})
    hand = HandInfo(**{**info, "limits": limits})
    if start["program"]:
        return make_program(loaded, hand, options, start["program"])
    return Controller(loaded, hand, GoalRules(**start["rules"]), options)


def _sent(controller: Controller) -> None:
    if controller.outgoing is not None:
        controller.sent(controller.outgoing)


def _compare(controller: Controller, entry: dict, found: Comparison) -> None:
    was, now = entry["command"], controller.command
    found.ticks += entry["state"] == "running"
    difference, same = 0.0, entry["state"] == controller.state.value
    if not same or (was is None) != (now is None):
        same, difference = False, np.inf
    elif was is not None:
        targets = [was["targets"], None if now.targets is None else now.targets]
        if (targets[0] is None) != (targets[1] is None) or was["force"] != now.force:
            same, difference = False, np.inf
        elif targets[0] is not None:
            difference = float(np.abs(numbers(targets[0]) - targets[1]).max())
    same = same and difference == 0.0
    found.different += not same
    found.largest = max(found.largest, difference)
    if not same and not found.first:
        found.first = (
            f"at {entry['now']:.3f} s: {entry['state']} was recorded, and now it is "
            f"{controller.state.value} ({controller.why})"
        )


if __name__ == "__main__":
    sys.exit(main())
