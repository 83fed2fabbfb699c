"""``python -m mjx_dex.ablate STUDY``: train variants, test them, table and plot.

Every run is a call of ``train``, and every test a call of ``evaluate``, printed before
it is made. What is finished is not done again: after an interruption, or with a larger
budget, the same command goes on.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import matplotlib
import numpy as np

from mjx_dex import report, settings
from mjx_dex.config import Config
from mjx_dex.costs import SECONDS_PER_YEAR
from mjx_dex.studies import STUDIES, Changes
from mjx_dex.train import TrainCommand, set_up_process

matplotlib.use("agg")
import matplotlib.pyplot as plt

WINDOW = 20
"""Iterations that a curve is averaged over."""


class UnfinishedError(RuntimeError):
    """The minutes that were given are over, or somebody pressed Ctrl-C."""


@dataclass(frozen=True)
class Run:
    """One training run of a study."""

    variant: str
    seed: int
    changes: Changes
    folder: Path


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    set_up_process()
    options, train_options = _parse(sys.argv[1:] if arguments is None else arguments)
    deadline = time.monotonic() + 60 * options.max_minutes
    try:
        config = _config(train_options)
        folder = options.folder / options.study
        _begin(folder, train_options)
        runs = _runs(options, config, folder)
        try:
            for run in runs:
                _train(run, options, train_options, deadline)
                _test(run, options)
        except (UnfinishedError, KeyboardInterrupt):
            print("not finished; the same command goes on")
    except subprocess.CalledProcessError as error:
        print(f"error: {_shown(error.cmd)} failed", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    table = write_table(runs, options.study, folder)
    plot(runs, STUDIES[options.study].question, folder / "study.png")
    print(f"{table}\nsaved {folder / 'table.md'} and {folder / 'study.png'}")
    return 0


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options of the command itself, and those that every training run is given."""
    parser = argparse.ArgumentParser(
        prog="python -m mjx_dex.ablate",
        description=__doc__,
        epilog="Every other option is train's, and is given to every run: --config, "
        "--engine, --num-envs and so on (python -m mjx_dex.train --help).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "study",
        choices=STUDIES,
        help="; ".join(f"{name}: {study.question}" for name, study in STUDIES.items()),
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=2e6,
        metavar="ENV_STEPS",
        help="of each training run (default: %(default)g)",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, help="runs of each variant (default: 1)"
    )
    parser.add_argument(
        "--variants", nargs="+", metavar="NAME", help="only these (default: all)"
    )
    parser.add_argument(
        "--trials", type=int, default=100, help="of each test (default: 100)"
    )
    parser.add_argument(
        "--test-options",
        default="",
        help="evaluate's, in one string: '--task.goal.seconds 8'",
    )
    parser.add_argument(
        "--max-minutes",
        type=float,
        default=float("inf"),
        help="stop, to go on later, after so many",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/studies"), help="of all studies"
    )
    return parser.parse_known_args(arguments)


def _config(train_options: list[str]) -> Config:
    """The configuration that the variants change; errors are train's."""
    default = "quickstart" if jax.default_backend() == "cpu" else "single_gpu"
    base = settings.early_option(train_options, "--config") or default
    command = settings.from_command_line(
        TrainCommand, settings.load(base), train_options, description=__doc__
    )
    return settings.config_of(command)


def _begin(folder: Path, train_options: list[str]) -> None:
    """Make a study's folder, or see that it holds runs with the same options."""
    path, options = folder / "options.json", json.dumps(train_options)
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(options)
    if path.read_text() != options:
        raise ValueError(
            f"{folder} holds runs with other options ({path.read_text()}); give them, "
            "or another --folder"
        )


def _runs(options: argparse.Namespace, config: Config, folder: Path) -> list[Run]:
    """All runs of a study, the first seed of every variant first."""
    variants = STUDIES[options.study].variants
    for name in options.variants or ():
        if name not in variants:
            raise ValueError(f"--variants: {name} is none of {', '.join(variants)}")
    return [
        Run(
            variant=name,
            seed=config.seed + seed,
            changes=changes(config) if callable(changes) else changes,
            folder=folder / slug(name) / f"seed_{config.seed + seed}",
        )
        for seed in range(options.seeds)
        for name, changes in variants.items()
        if name in (options.variants or variants)
    ]


def _train(
    run: Run, options: argparse.Namespace, train_options: list[str], deadline: float
) -> None:
    """Train until the budget is spent.

    Raises:
        UnfinishedError: if it was stopped before.
    """
    if trained(run) >= options.budget:
        return
    left = (deadline - time.monotonic()) / 60
    if left <= 0:
        raise UnfinishedError
    is_begun = (run.folder / "config.yaml").exists()
    _call(
        "mjx_dex.train",
        *(["--resume"] if is_begun else []),
        *(train_options if not is_begun else []),
        *("--run-dir", str(run.folder), "--max-env-steps", f"{options.budget:.0f}"),
        *(["--max-minutes", f"{left:.2f}"] if left < float("inf") else []),
        *(flags(run.changes | {"seed": run.seed}) if not is_begun else []),
    )
    if trained(run) < options.budget:
        raise UnfinishedError  # with a checkpoint, also after Ctrl-C


def _test(run: Run, options: argparse.Namespace) -> None:
    """Evaluate in all of the study's worlds where that has not been done."""
    for test, changes in STUDIES[options.study].tests.items():
        path = result_path(run, test)
        if path.exists() and json.loads(path.read_text())["env_steps"] == trained(run):
            continue
        _call(
            "mjx_dex.evaluate",
            str(run.folder),
            *("--trials", str(options.trials), "--json", str(path)),
            *options.test_options.split(),
            *flags(changes),
        )


def _call(module: str, *arguments: str) -> None:
    command = [sys.executable, "-m", module, *arguments]
    print(_shown(command), flush=True)
    subprocess.run(command, check=True)


def _shown(command: list[str]) -> str:
    return " ".join(["python", *command[1:]])


def flags(changes: Changes) -> list[str]:
    """Changes as options of a command line.

    >>> flags({"task.locked_wrist": True, "task.goal.angles": (0.1, 0.2)})
    ['--task.locked-wrist', '--task.goal.angles', '0.1', '0.2']
    """
    result = []
    for path, value in changes.items():
        head, _, name = path.replace("_", "-").rpartition(".")
        prefix = f"--{head}." if head else "--"
        if isinstance(value, bool):
            result.append(f"{prefix}{'' if value else 'no-'}{name}")
        else:
            values = value if isinstance(value, tuple) else (value,)
            result += [prefix + name, *map(str, values)]
    return result


def slug(name: str) -> str:
    """A name as part of a path."""
    return re.sub(r"[^a-z0-9.]+", "_", name.lower()).strip("_")


def result_path(run: Run, test: str) -> Path:
    """Where a test's result is."""
    return run.folder / f"evaluation_{slug(test)}.json"


def trained(run: Run) -> int:
    """Env steps that a run has logged."""
    rows = report.read_metrics(run.folder)
    return int(rows[-1]["env_steps"]) if rows else 0


def write_table(runs: list[Run], study: str, folder: Path) -> str:
    """A Markdown table of all that is finished: training variants by tests."""
    tests = STUDIES[study].tests
    lines = [
        STUDIES[study].question,
        "",
        f"| trained with | runs | million env steps | {' | '.join(tests)} |",
        "|---" * (3 + len(tests)) + "|",
    ]
    protocols = {}
    for variant in dict.fromkeys(run.variant for run in runs):
        cells, done = [], [r for r in runs if r.variant == variant and trained(r)]
        for test in tests:
            results = [
                json.loads(result_path(run, test).read_text())
                for run in done
                if result_path(run, test).exists()
            ]
            cells.append(cell([result["engines"][-1] for result in results]))
            protocols.update((test, r["protocol"]) for r in results)
        steps = np.mean([trained(run) for run in done]) / 1e6 if done else 0.0
        lines.append(f"| {variant} | {len(done)} | {steps:.2f} | {' | '.join(cells)} |")
    lines += ["", "Goals per trial on native: mean ± standard error (median).", ""]
    text = "\n".join(lines + _describe(protocols))
    (folder / "table.md").write_text(text + "\n")
    return text


def _describe(protocols: dict[str, dict]) -> list[str]:
    """What all tests asked for, and where they differ."""
    if not protocols:
        return []

    def shown(items):
        return ", ".join(f"{name} {value}" for name, value in items)

    common = set.intersection(*(set(p.items()) for p in protocols.values()))
    first = next(iter(protocols.values()))
    lines = [f"All: {shown(item for item in first.items() if item in common)}."]
    for test, protocol in protocols.items():
        own = [item for item in protocol.items() if item not in common]
        if own:
            lines.append(f"{test}: {shown(own)}.")
    return lines


def cell(results: list[dict]) -> str:
    """Mean over runs; its error is over trials for one run, over runs for more."""
    if not results:
        return "-"
    means = [result["mean"] for result in results]
    error = results[0]["standard_error"]
    if len(means) > 1:
        error = np.std(means, ddof=1) / np.sqrt(len(means))
    median = np.median([goals for result in results for goals in result["goals"]])
    return f"{np.mean(means):.2f} ± {error:.2f} ({median:g})"


def plot(runs: list[Run], title: str, path: Path) -> None:
    """Draw goals per episode in training over wall-clock and over experience.

    As in Figures 8 to 10: a moving average and its 90% interval.
    """
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    colors = {v: f"C{k}" for k, v in enumerate(dict.fromkeys(r.variant for r in runs))}
    for run in runs:
        rows = report.read_metrics(run.folder)
        if not rows:
            continue
        goals = np.array([row["goals_per_episode"] for row in rows])
        mean, error = moving_average(goals)
        steps = np.array([row["env_steps"] for row in rows])
        pace = np.array([row["env_steps_per_second"] for row in rows])
        hours = np.cumsum(np.diff(steps, prepend=0) / pace) / 3600
        years = (
            steps
            * settings.load(run.folder / "config.yaml").physics.control_period
            / SECONDS_PER_YEAR
        )
        for axis, x in zip(panels, (hours, years), strict=True):
            color = colors[run.variant]
            axis.plot(x, mean, color=color, label=run.variant)
            axis.fill_between(x, mean - error, mean + error, color=color, alpha=0.2)
    panels[0].set(xlabel="hours of training", ylabel="consecutive goals achieved")
    panels[1].set(xlabel="years of experience")
    for axis in panels:
        axis.grid(alpha=0.3)
        axis.set_ylim(bottom=0)
    handles, labels = panels[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        panels[1].legend(unique.values(), unique, fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def moving_average(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the last ``WINDOW`` values at each, and half of its 90% interval."""
    windows = [values[max(0, k + 1 - WINDOW) : k + 1] for k in range(len(values))]
    mean = np.array([window.mean() for window in windows])
    error = np.array([window.std() / np.sqrt(len(window)) for window in windows])
    return mean, 1.645 * error


if __name__ == "__main__":
    sys.exit(main())
