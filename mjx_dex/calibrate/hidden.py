"""``python -m mjx_dex.calibrate.hidden``: a hand that is not quite the known one.

For a simulated hand (``robot_bridge.sim_hand --calibration``) that a fit has to find.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mjx_dex import runs, settings
from mjx_dex.calibrate import factors, report
from mjx_dex.calibrate.factors import FACTORS, MULTIPLY
from mjx_dex.hand import calibration
from mjx_dex.ranges import Checked, Seed, real
from mjx_dex.types import HandDraw
from robot_bridge.files import Output, check_outputs, write_at_once

ADDED = {
    "joint_equilibrium": 0.1,
    "joint_stiffness": 0.01,
    "joint_lower_limit": 0.1,
    "joint_upper_limit": 0.1,
    "coupling_rest": 0.1,
}
"""At most, either way: rad, and N m/rad."""

SLACK = 3.0
"""Paces of backlash differ by at most this factor, either way: nobody knows them."""


@dataclass(frozen=True)
class HiddenCommand(Checked):
    """Options."""

    out: Path = Path("hidden.json")
    """The calibration file."""
    spread: real(0, 10) = 0.3
    """Factors are drawn from 1 minus to 1 plus this."""
    seed: Seed = 0
    """Of the hand."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return runs.command_line(_main, arguments)


def _main(arguments: list[str]) -> None:
    command = settings.from_command_line(
        HiddenCommand, HiddenCommand(), arguments, __doc__
    )
    check_outputs(Output("--out", command.out))
    base = calibration.load_calibration(calibration.CALIBRATED)
    hidden = factors.apply(hidden_draw(command), base)
    source = f"calibrated.json, drawn by {command}"
    write_at_once(command.out, report.as_json(hidden | {"source": source}))
    print(f"saved {command.out}")


def hidden_draw(command: HiddenCommand) -> HandDraw:
    """A hand of its own."""
    generator = np.random.default_rng(command.seed)
    draw = {}
    for name, entries in FACTORS.items():
        noise = generator.uniform(-1, 1, len(entries))
        if name.startswith("backlash"):
            draw[name] = SLACK**noise
        elif name in MULTIPLY:
            draw[name] = 1 + command.spread * noise
        else:
            draw[name] = ADDED[name] * noise
    # Springs only pull.
    draw["joint_stiffness"] = np.abs(draw["joint_stiffness"])
    return HandDraw(**draw)


if __name__ == "__main__":
    sys.exit(main())
