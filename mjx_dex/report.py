"""What a run tells people: metrics.jsonl, TensorBoard, a progress bar, a curve."""

import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

from mjx_dex import mujoco_warnings, settings
from mjx_dex.board import Board
from robot_bridge.files import save_figure


def summarize(
    metrics: dict[str, Any], env_steps: int, total_env_steps: int, seconds: float
) -> dict[str, float]:
    """One iteration's metrics as people read them.

    Args:
        metrics: as ``Trainer.iterate`` returns them: sums over worlds and steps from
            the environment, means from the optimizer.
        env_steps: of this iteration.
        total_env_steps: so far, those of runs that this one continues included.
        seconds: this iteration took.
    """
    values = {name: float(value) for name, value in metrics.items()}
    episodes = max(values["episodes"], 1.0)
    means = [name for name in MEANS if name in values]
    return {
        "env_steps": total_env_steps,
        "seconds": seconds,
        "env_steps_per_second": env_steps / seconds,
        "episodes": values["episodes"],
        "goals_per_episode": values["episode_goals"] / episodes,
        "goals_per_1000_steps": 1000 * values["goals"] / env_steps,
        "episode_steps": values["episode_steps"] / episodes,
        "drops_per_episode": values["drops"] / episodes,
        "timeouts_per_episode": values["timeouts"] / episodes,
        "completions": values["completions"],
        "broken_worlds": values["broken_worlds"],
        "lost_contacts": values["lost_contacts"],
        "nonfinite": values.get("nonfinite", 0.0),
        **{name: values[name] / env_steps for name in means},
        **{name: values[name] for name in LEARNING_METRICS},
    }


MEANS = ("goal_angle_limit", "randomization")
"""Over worlds; the second one, the mean bound of adaptive randomization, only if on."""
LEARNING_METRICS = (
    "kl",
    "entropy",
    "surrogate",
    "value_error",
    "value_explained",
    "mean_return",
    "clip_fraction",
    "learning_rate",
    "policy_gradient_norm",
    "value_gradient_norm",
)


PROBLEMS = {
    "broken_worlds": (
        "a world's state became infinite or NaN; its episode was ended and another "
        "begun. All such are counted in metrics.jsonl"
    ),
    "lost_contacts": (
        "a contact or constraint buffer was full, and contacts were left out; raise "
        "--physics.max-contacts or --physics.max-constraints. World steps with losses "
        "are counted in metrics.jsonl"
    ),
    "nonfinite": (
        "rewards or observations were infinite or NaN, and were skipped, as "
        "--ppo.nonfinite says. All such transitions are counted in metrics.jsonl"
    ),
}
"""What an iteration may count that should be rare."""


SECONDS_PER_LINE = 60.0
"""Between two lines of progress where there is no terminal to draw a bar in."""


class RunLog:
    """Writes metrics of one run as they come, and shows progress."""

    def __init__(self, folder: Path, iteration: int, env_steps: int, end: int):
        """Open the logs.

        Args:
            folder: of the run.
            iteration: number of iterations before. Lines of later ones, written before
                the run was cut off, are removed: they are about to be written again.
            env_steps: before; the progress bar begins there.
            end: number of env steps at which the bar ends.
        """
        self._said, self._folder = set(), folder
        self._file = append_rows(folder, lambda row: row["iteration"] <= iteration)
        self._board = Board(folder / "tensorboard", iteration + 1)
        self._bar = tqdm(
            total=end,
            initial=env_steps,
            unit=" steps",
            unit_scale=True,
            dynamic_ncols=True,
            disable=None,  # where there is no terminal
        )
        self._last_line = time.monotonic()

    def write(self, iteration: int, row: dict[str, float], minutes_left: float | None):
        """Log one iteration's summary."""
        mujoco_warnings.save(self._folder)
        row = {"iteration": iteration, "time": time.time()} | row
        write_row(self._file, row)
        clock = ("iteration", "time")
        drawn = {name: value for name, value in row.items() if name not in clock}
        self._board.scalars(drawn, iteration)
        shown = {
            "goals/episode": f"{row['goals_per_episode']:.2f}",
            "kl": f"{row['kl']:.3f}",
        }
        for problem in PROBLEMS:
            if row.get(problem):
                shown[problem] = f"{row[problem]:.0f}"
                self._say_once(problem)
        if minutes_left is not None:
            shown["minutes left"] = f"{minutes_left:.0f}"
        if self._bar.disable:
            self._print_line(row, shown)
        else:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(int(row["env_steps"]) - self._bar.n)

    def _print_line(self, row: dict[str, float], shown: dict[str, str]) -> None:
        if time.monotonic() - self._last_line < SECONDS_PER_LINE:
            return
        self._last_line = time.monotonic()
        said = ", ".join(f"{name}={value}" for name, value in shown.items())
        pace = row["env_steps_per_second"]
        print(
            f"{row['env_steps']:,.0f} env steps, {pace:,.0f} per second, {said}",
            file=sys.stderr,
            flush=True,
        )

    def _say_once(self, problem: str) -> None:
        if problem not in self._said:
            self._said.add(problem)
            self._bar.write(f"{problem}: {PROBLEMS[problem]}", file=sys.stderr)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Close what was written, row by row."""
        with contextlib.suppress(OSError):  # a full disk was an error before
            mujoco_warnings.save(self._folder)
        self._bar.close()
        close_quietly(self._file, self._board)


def close_quietly(*logs) -> None:
    """Close files whose rows are written: a full disk was an error already, or costs
    a few steps of TensorBoard's curves."""
    for log in logs:
        with contextlib.suppress(OSError):
            log.close()


METRICS = "metrics.jsonl"
"""In a run's folder."""


def append_rows(folder: Path, is_kept: Callable[[dict], bool]) -> TextIO:
    """Open a run's metrics to write more; what is there is not written again.

    Args:
        folder: of the run.
        is_kept: whether a row is from before the checkpoint that the run continues
            from; the first that is not, and all after it, are cut off.
    """
    path, size = folder / METRICS, 0
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                row = _complete_row(line)
                if row is None or not is_kept(row):
                    break
                size += len(line)
        os.truncate(path, size)
    return path.open("a", encoding="utf-8")


def write_row(file: TextIO, row: dict) -> None:
    """Write a row of metrics, for others to read at once.

    Raises:
        OSError: if it cannot be written, for example on a full disk; it names the file.
    """
    try:
        file.write(json.dumps(row) + "\n")
        file.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, file.name) from error


def _complete_row(line: bytes) -> dict | None:
    """A line's content, or None if the run was killed while it wrote it."""
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except json.JSONDecodeError:
        return None


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """All complete lines of a run's metrics.jsonl, oldest first."""
    path = folder / METRICS
    if not path.exists():
        return []
    with path.open("rb") as file:
        rows = map(_complete_row, file)
        return list(itertools.takewhile(lambda row: row is not None, rows))


def plot_learning_curve(folder: Path) -> Path | None:
    """Draw goals per episode over experience, and the turn asked for if it grows.

    Returns:
        The picture's path, or None if the run has logged nothing.
    """
    rows = read_metrics(folder)
    if not rows:
        return None
    steps = np.array([row["env_steps"] for row in rows]) / 1e6
    panels = {"goals_per_episode": "goals per episode"}
    if settings.load(folder / "config.yaml").task.goal.distribution == "near":
        panels["goal_angle_limit"] = "largest turn to a goal [rad]"
    figure, axes = plt.subplots(
        *(len(panels), 1),
        figsize=(7, 3 * len(panels)),
        sharex=True,
        layout="constrained",
        squeeze=False,
    )
    axes = axes[:, 0]
    for axis, (name, label) in zip(axes, panels.items(), strict=True):
        values = np.array([row[name] for row in rows])
        axis.plot(steps, values, color="0.8", linewidth=0.8)
        axis.plot(steps, _smooth(values), color="C0")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("million environment steps")
    axes[0].set_title(folder.name)
    path = folder / "learning_curve.png"
    save_figure(figure, path, dpi=120)
    plt.close(figure)
    return path


def _smooth(values: np.ndarray, window: int = 15) -> np.ndarray:
    """Centred moving average, shorter at the ends."""
    sums = np.convolve(values, np.ones(window), mode="same")
    counts = np.convolve(np.ones(len(values)), np.ones(window), mode="same")
    return sums[: len(values)] / counts[: len(values)]
