"""A fit on one page: errors, trajectories, values, and what is not told."""

import json
import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from mjx_dex.calibrate import factors
from mjx_dex.calibrate.fit import TOLD, PartFit
from mjx_dex.calibrate.recordings import JOINTS, Recording
from mjx_dex.types import HandDraw
from robot_bridge.files import save_figure

matplotlib.use("agg")
import matplotlib.pyplot as plt

SHOWN = 6
"""Values of a part that the page has room for."""
WIDTH = 140
"""Letters in a line of its text."""


def as_json(calibration: dict[str, Any]) -> str:
    """A calibration file's text: an entry of a table in a line."""
    lines = []
    for name, table in calibration.items():
        if isinstance(table, dict):
            rows = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in table.items()]
            lines.append(f" {json.dumps(name)}: {{\n" + ",\n".join(rows) + "\n }")
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(table)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def text(fits: list[PartFit]) -> str:
    """All that there is to say to people."""
    lines = [*_summary(fits), "", *_not_told(fits)]
    if confused := [pair for each in fits for pair in each.confused()]:
        lines.append("\nmove the joints alike, and cannot be told apart:")
        lines += [f"  {a} and {b} ({alike:+.2f})" for a, b, alike in confused]
    return "\n".join(lines)


def _summary(fits: list[PartFit]) -> list[str]:
    lines = [
        "| part | windows | error before | after | latency | values told | seconds | "
        "simulated |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in fits:
        before, after = (1000 * _size(x) for x in (each.before, each.after))
        lines.append(
            f"| {each.problem.part} | {len(each.problem.train)} + "
            f"{len(each.problem.test)} | {before:.1f} mrad | {after:.1f} mrad | "
            f"{1000 * each.latency:.0f} ms | {each.is_told.sum()} of "
            f"{len(each.is_told)} | {each.seconds:.0f} | {each.simulated:.0f} s |"
        )
    before, after = overall(fits)
    lines.append(
        f"\nheld out, after one window: {1000 * before:.1f} mrad before, "
        f"{1000 * after:.1f} after ({before / after:.1f} times less)"
    )
    for each in fits:
        if each.stuck:
            lines.append(f"{each.problem.part}: {each.stuck}; its best is kept")
    return lines


def _not_told(fits: list[PartFit]) -> list[str]:
    lines = ["not told by these recordings (they stay near where they were):"]
    for factor in factors.FACTORS:
        unknown = [
            factors.FACTORS[factor][entry.index].removeprefix("rh_")
            for each in fits
            for entry, told in zip(each.problem.entries, each.is_told, strict=True)
            if entry.factor == factor and not told
        ]
        if unknown:
            lines.append(f"  {factor}: {', '.join(unknown)}")
    return lines


def against(fits: list[PartFit], truth: HandDraw) -> str:
    """How far from a known hand the values are that the recordings tell."""
    rows = [
        (abs(off), str(entry))
        for each in fits
        for off, entry, told in zip(
            each.off(truth), each.problem.entries, each.is_told, strict=True
        )
        if told
    ]
    rows.sort(reverse=True)
    near = sum(off < TOLD for off, _ in rows)
    lines = [
        f"of {len(rows)} values that are told {near} are within {TOLD:.0%}; "
        "the farthest:"
    ]
    return "\n".join(
        [*lines, *(f"  {100 * off:.0f}%  {name}" for off, name in rows[:8])]
    )


def table(fits: list[PartFit]) -> dict[str, dict[str, Any]]:
    """Every value that was fitted, in standard deviations of its prior."""
    return {
        str(entry): {"z": round(z, 4), "deviation": round(deviation, 4), "told": told}
        for each in fits
        for entry, z, deviation, told in zip(
            each.problem.entries,
            each.z.tolist(),
            np.sqrt(np.diag(each.covariance)).tolist(),
            each.is_told.tolist(),
            strict=False,  # the last is the latency
        )
    }


def overall(fits: list[PartFit]) -> tuple[float, float]:
    """Root mean square errors of all joints, before and after [rad]."""
    before, after = (
        _size(np.concatenate([getattr(each, name) for each in fits]))
        for name in ("before", "after")
    )
    return before, after


def _size(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def draw(fits: list[PartFit], recorded: list[Recording], path: Path) -> None:
    """Draw the page."""
    ratios = [1.6, *[1.5] * len(fits), 5.0]
    figure = plt.figure(figsize=(11, sum(ratios)), layout="constrained")
    grid = figure.add_gridspec(len(ratios), 2, height_ratios=ratios)
    _draw_errors(figure.add_subplot(grid[0, :]), fits)
    for row, each in enumerate(fits, start=1):
        _draw_trajectories(figure.add_subplot(grid[row, 0]), each)
        _draw_values(figure.add_subplot(grid[row, 1]), each)
    _write(figure.add_subplot(grid[-1, :]), fits)
    figure.suptitle(", ".join(str(recording.path) for recording in recorded))
    save_figure(figure, path, dpi=100)
    plt.close(figure)


def _draw_errors(axes, fits: list[PartFit]) -> None:
    labels = [JOINTS[k].removeprefix("rh_") for f in fits for k in f.problem.joints]
    places = np.arange(len(labels))
    for shift, name in ((-0.2, "before"), (0.2, "after")):
        errors = np.concatenate([getattr(each, name) for each in fits])
        axes.bar(places + shift, 1000 * errors, 0.4, label=name)
    axes.set_xticks(places, labels, rotation=60, fontsize=8)
    axes.set(yscale="log", ylabel="[mrad]")
    axes.set_title("error after a window, of windows that were held out", fontsize=9)
    axes.legend(fontsize=8)


def _draw_trajectories(axes, each: PartFit) -> None:
    """The joint that the fit changed most, in its windows that were held out."""
    problem = each.problem
    joint = int((each.before - each.after).argmax())
    unfitted = np.append(problem.start[:-1], each.z[-1])
    both = problem.errors(np.stack([unfitted, each.z]), problem.test)[..., joint]
    column = problem.replay.joints.index(problem.joints[joint])
    true = problem.replay.recorded(problem.test)[..., column]
    times = np.array(problem.config.windows.times)
    times = 1.3 * problem.config.windows.seconds * np.arange(len(true))[:, None] + times
    lines = (
        ("-", "0.7", 4, "recorded", 0),
        (".-", "C0", 1, "before", both[0]),
        (".-", "C1", 1, "after", both[1]),
    )
    for style, color, width, label, errors in lines:
        # A window's line ends before the next one's begins.
        x, y = (_with_gaps(series) for series in (times, true + errors))
        axes.plot(x, y, style, color=color, label=label, lw=width, ms=3)
    axes.set_title(JOINTS[problem.joints[joint]], fontsize=9)
    axes.set_ylabel("[rad]")
    axes.set_xlabel("windows, one after another [s]", fontsize=7)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _draw_values(axes, each: PartFit) -> None:
    """Those that are told and differ most from what they were, in deviations."""
    problem = each.problem
    deviations = np.sqrt(np.diag(each.covariance))[:-1]
    told = np.flatnonzero(each.is_told)
    order = told[np.argsort(-np.abs(each.z[told]))][:SHOWN]
    places = np.arange(len(order))[::-1]
    axes.errorbar(each.z[order], places, xerr=2 * deviations[order], fmt="o", ms=4)
    axes.axvline(0, color="grey", lw=0.8)
    axes.set_yticks(places, [str(problem.entries[k]) for k in order], fontsize=7)
    axes.set_ylim(-0.6, SHOWN - 0.4)
    axes.set_xlabel("deviations of the prior from the file", fontsize=7)
    axes.tick_params(axis="x", labelsize=7)


def _write(axes, fits: list[PartFit]) -> None:
    axes.axis("off")
    lines = "\n".join([*_summary(fits), "", *_not_told(fits)]).splitlines()
    lines = [line for line in lines if not line.startswith("|---")]
    alike = sum(len(each.confused()) for each in fits)
    lines.append(
        f"\n{alike} pairs of values move the joints alike: see what is printed"
    )
    page = "\n".join(textwrap.fill(line, WIDTH) for line in lines)
    axes.text(0, 1, page, va="top", family="monospace", fontsize=7, in_layout=False)


def _with_gaps(rows: np.ndarray) -> np.ndarray:
    """[rows * (n + 1)] of rows of n, a NaN after each."""
    return np.pad(rows, ((0, 0), (0, 1)), constant_values=np.nan).ravel()
