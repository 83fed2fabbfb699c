"""What a run tells people: metrics.jsonl, TensorBoard, a progress bar, a curve."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from mjx_dex import mujoco_warnings, settings


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
        self._path = folder / "metrics.jsonl"
        kept = [row for row in read_metrics(folder) if row["iteration"] <= iteration]
        self._path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        self._file = self._path.open("a")
        self._board = SummaryWriter(
            str(folder / "tensorboard"), purge_step=iteration + 1
        )
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
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in row.items():
            if name not in ("iteration", "time"):
                self._board.add_scalar(name, value, iteration)
        shown = {
            "goals/episode": f"{row['goals_per_episode']:.2f}",
            "kl": f"{row['kl']:.3f}",
        }
        for problem in PROBLEMS:
            if row[problem]:
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
        """Flush everything to disk."""
        mujoco_warnings.save(self._folder)
        self._bar.close()
        self._file.close()
        self._board.close()


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """All complete lines of a run's metrics.jsonl, oldest first."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break  # the run was killed while it wrote this line
    return rows


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
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _smooth(values: np.ndarray, window: int = 15) -> np.ndarray:
    """Centred moving average, shorter at the ends."""
    sums = np.convolve(values, np.ones(window), mode="same")
    counts = np.convolve(np.ones(len(values)), np.ones(window), mode="same")
    return sums[: len(values)] / counts[: len(values)]
