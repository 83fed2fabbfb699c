"""``python -m robot_bridge.report RECORDING``: a run on one page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np

from robot_bridge import terminal
from robot_bridge.files import Output, check_outputs, picture_formats, save_figure
from robot_bridge.recording import read

matplotlib.use("agg")
import matplotlib.pyplot as plt

STATES = ("connect", "check", "armed", "running", "hold", "limp", "stopped")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    terminal.make_printable()
    parser = argparse.ArgumentParser(
        prog="python -m robot_bridge.report", description=__doc__.split("\n")[0]
    )
    parser.add_argument("recording", type=Path)
    parser.add_argument("--out", type=Path, help="a picture; beside the recording")
    options = parser.parse_args(arguments)
    out = options.out or options.recording.with_suffix(".png")
    try:
        check_outputs(
            Output("--out", out, picture_formats()), inputs=[options.recording]
        )
        draw(options.recording, out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"drawn to {out}")
    return 0


def draw(recording: Path, out: Path) -> None:
    """Draw angle to the goal, state, latencies, ages and events.

    Raises:
        RecordingError: if the file is no recording.
    """
    start, ticks, events = {}, [], []
    for topic, entry in read(recording):
        if topic == "start":
            start = entry
        elif topic == "tick":
            ticks.append(entry)
        elif topic == "event":
            events.append(entry)
    if not ticks:
        raise ValueError(f"{recording} has no ticks: the bridge never ran")
    began = ticks[0]["now"]
    figure = plt.figure(figsize=(11, 8.5), layout="constrained")
    grid = figure.add_gridspec(4, 2, height_ratios=(2.2, 0.8, 1.6, 2.0))
    _draw_goal(figure.add_subplot(grid[0, :]), start, ticks, began)
    _draw_states(figure.add_subplot(grid[1, :]), ticks, began)
    _draw_latencies(figure.add_subplot(grid[2, 0]), ticks)
    _draw_ages(figure.add_subplot(grid[2, 1]), ticks)
    _write(figure.add_subplot(grid[3, :]), start, ticks, events, began)
    figure.suptitle(f"{Path(start['bundle']).name} on {start['info']['serial']}")
    save_figure(figure, out, dpi=110)
    plt.close(figure)


def _draw_goal(axes, start, ticks, began) -> None:
    running = [tick for tick in ticks if "angle" in tick]
    times = np.array([tick["now"] - began for tick in running])
    angles = np.array([tick["angle"] for tick in running])
    met = np.array([tick["goals_met"] for tick in running])
    gaps = np.flatnonzero(np.diff(times) > 0.5) + 1
    axes.plot(*(np.insert(x, gaps, np.nan) for x in (times, angles)), lw=1)
    new = np.flatnonzero(np.diff(met) > 0) + 1
    axes.plot(times[new], angles[new], "o", ms=3, label="the next goal is set")
    axes.axhline(start["rules"]["tolerance"], color="grey", lw=0.8, ls="--")
    axes.set(ylabel="angle to the goal [rad]", ylim=(0, None))
    if len(new):
        axes.legend(loc="upper right", fontsize=8)


def _draw_states(axes, ticks, began) -> None:
    times = [tick["now"] - began for tick in ticks]
    axes.step(times, [STATES.index(tick["state"]) for tick in ticks], where="post")
    axes.set(xlabel="time [s]", ylim=(-0.5, len(STATES) - 0.5))
    axes.set_yticks(range(len(STATES)), STATES, fontsize=7)


def _draw_latencies(axes, ticks) -> None:
    running = [tick for tick in ticks if tick["state"] == "running"] or ticks
    for name, values in (
        ("late", [tick["now"] - tick["due"] for tick in running]),
        ("wake to command", [tick["took"] for tick in running]),
    ):
        milliseconds = np.maximum(1000 * np.array(values), 0.01)
        axes.hist(milliseconds, np.logspace(-2, 2.5, 60), histtype="step", label=name)
    axes.set(xscale="log", xlabel="[ms]", ylabel="ticks")
    axes.legend(fontsize=8)


def _draw_ages(axes, ticks) -> None:
    for name in ("joints", "tips", "object"):
        ages = [tick["ages"][name] for tick in ticks]
        known = np.array([1000 * age for age in ages if age is not None])
        axes.hist(known, np.linspace(0, 300, 61), histtype="step", label=name)
    axes.set(xlabel="age of what the policy acts on [ms]", yscale="log")
    axes.legend(fontsize=8)


def _write(axes, start, ticks, events, began) -> None:
    """What happened, in words."""
    axes.axis("off")
    armed = "armed" if start["armed"] else "dry run"
    lines = [
        f"transport {start['transport']}, {armed}, seed {start['options']['seed']}, "
        f"bundle {start['digest'][:12]}, {len(ticks)} ticks",
        *(
            f"{event['now'] - began:8.2f} s  {event['from']} -> {event['to']}"
            + (f": {event['why']}" if event["why"] else "")
            for event in events
        ),
    ]
    if len(lines) > 14:
        lines = [*lines[:7], f"... {len(lines) - 13} more ...", *lines[-6:]]
    text = "\n".join(line[:130] for line in lines)
    axes.text(0, 1, text, va="top", family="monospace", fontsize=8)


if __name__ == "__main__":
    sys.exit(main())
