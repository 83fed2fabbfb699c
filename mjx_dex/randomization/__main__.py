"""``python -m mjx_dex.randomization``: what the menu asks for, and what was drawn."""

import sys
from dataclasses import dataclass
from pathlib import Path

import jax

from mjx_dex import settings, startup
from mjx_dex.config import Config
from mjx_dex.hand import build_hand
from mjx_dex.randomization import Randomization, inspection
from mjx_dex.randomization.menu import EFFECTS
from mjx_dex.ranges import Count
from robot_bridge.files import Output, check_outputs, picture_formats


@dataclass(frozen=True)
class InspectCommand(Config):
    """Options of the command itself, beside the configuration's."""

    config: str = "paper"
    """Configuration whose menu is drawn from."""
    episodes: Count = 10_000
    """Episodes to draw."""
    plot: Path = Path("randomization.png")
    """One page of histograms and time traces."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    startup.set_up()
    try:
        startup.check_jax()
        base = settings.load(settings.early_option(arguments, "--config") or "paper")
        command = settings.from_command_line(
            InspectCommand, base, arguments, description=__doc__
        )
        inspect(command)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def inspect(command: InspectCommand) -> None:
    """Draw, save the page and print the table."""
    check_outputs(Output("--plot", command.plot, picture_formats()))
    config = settings.config_of(command)
    hand = build_hand(config.hand, config.object, config.physics)
    period = config.physics.control_period
    menu = Randomization(hand, config.randomization, period)
    key = jax.random.key(config.seed)
    rows = inspection.draw_rows(menu, config.randomization, command.episodes, key)
    traces = inspection.trace(menu, key, config.physics.timestep)
    inspection.plot(rows, traces, command.plot)
    print(f"{command.episodes:,} episodes; {period:g} s per control step")
    print(inspection.HEADER)
    for row in rows:
        print(row)
    off = [name for name in EFFECTS if name not in menu.enabled]
    print(f"off: {', '.join(off) or 'nothing'}")
    print(f"saved {command.plot}")


if __name__ == "__main__":
    sys.exit(main())
