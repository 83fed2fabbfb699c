"""``python -m mjx_dex.calibrate RECORDING ... --out FILE``: fit the simulated hand.

Record with ``python -m robot_bridge.run BUNDLE --excite --record RECORDING``; use what
comes out with ``--hand.calibration FILE``.
"""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mjx_dex import runs, settings
from mjx_dex.calibrate import factors, fit, recordings, replay, report
from mjx_dex.calibrate.config import CalibrateConfig
from mjx_dex.hand import calibration
from robot_bridge import terminal
from robot_bridge.files import Output, check_outputs, write_at_once

log = logging.getLogger("mjx_dex")


@dataclass(frozen=True)
class CalibrateCommand(CalibrateConfig):
    """Options of the command itself, beside the fit's."""

    out: Path = Path("my_hand.json")
    """The calibration file; the report goes beside it."""
    truth: Path | None = None
    """The calibration of a simulated hand, to compare with."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return runs.command_line(_main, arguments)


def _main(arguments: list[str]) -> None:
    files = []
    while arguments and not arguments[0].startswith("-"):
        files.append(Path(arguments[0]))
        arguments = arguments[1:]
    command = settings.from_command_line(
        CalibrateCommand, CalibrateConfig(), arguments, __doc__
    )
    if not files:
        raise ValueError("give a recording: python -m mjx_dex.calibrate RECORDING ...")
    config = settings.config_of(command, CalibrateConfig)
    picture = command.out.with_suffix(".png")
    read = [*files, Path(config.hand.calibration), *filter(None, [command.truth])]
    check_outputs(
        Output("--out", command.out),
        Output("--out, of which the picture is", picture),
        inputs=read,
    )
    base = starting_point(config)
    recorded = [recordings.read(path) for path in files]
    fits = calibrate(recorded, config)
    draw = fit.whole(fits)
    source = f"fitted to {', '.join(map(str, files))}, beginning with {base['source']}"
    fitted = factors.apply(draw, base) | {"source": source, "fit": report.table(fits)}
    write_at_once(command.out, report.as_json(fitted))
    report.draw(fits, recorded, picture)
    print(report.text(fits))
    if command.truth:
        truth = calibration.load_calibration(command.truth)
        print("\n" + report.against(fits, factors.draw_between(base, truth)))
    print(f"saved {command.out} and {picture}")
    train = terminal.shell_command("mjx_dex.train", "--hand.calibration", command.out)
    print(f"  train with it: {train}")


def starting_point(config: CalibrateConfig) -> dict:
    """The calibration file that a fit begins with.

    Raises:
        ValueError: if it has no couplings, or cannot be read.
    """
    if config.hand.calibration == "gymnasium":
        raise ValueError(
            "--hand.calibration gymnasium has no couplings to fit; begin with "
            "'calibrated' or a calibration file"
        )
    shipped = config.hand.calibration == "calibrated"
    path = calibration.CALIBRATED if shipped else Path(config.hand.calibration)
    return {"source": str(path)} | calibration.load_calibration(path)


def calibrate(
    recorded: list[recordings.Recording], config: CalibrateConfig
) -> list[fit.PartFit]:
    """Fit every part of the hand that moves in some recordings.

    Raises:
        ValueError: if they are too short, or nothing moves.
    """
    track = replay.make_track(recorded, config.timestep, config.windows)
    problems = fit.make_problems(track, config)
    log.info(
        "%d windows of %.1f s to fit to, %d to test with",
        np.sum(~track.is_test),
        config.windows.seconds,
        np.sum(track.is_test),
    )
    return [fit.fit(problem, log.info) for problem in problems]


if __name__ == "__main__":
    sys.exit(main())
