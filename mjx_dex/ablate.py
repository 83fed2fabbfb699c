"""``python -m mjx_dex.ablate STUDY``: train variants, test them, table and plot.

Every run is a call of ``train``, and every test a call of ``evaluate``, printed before
it is made. What is finished is not done again: after an interruption, or with a larger
budget, the same command goes on.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import matplotlib
import numpy as np

from mjx_dex import evaluate, lineage, report, runs, settings, startup
from mjx_dex.config import Config, replace
from mjx_dex.costs import SECONDS_PER_YEAR
from mjx_dex.evaluate import EvaluateCommand
from mjx_dex.studies import STUDIES, Changes
from mjx_dex.train import TrainCommand
from robot_bridge.arguments import POSITIVE, Number
from robot_bridge.files import Output, check_outputs, save_figure, write_at_once

matplotlib.use("agg")
import matplotlib.pyplot as plt

WINDOW = 20
"""Iterations that a curve is averaged over."""
MANY_STEPS = 10**12
"""Environment steps that no run reaches: where time ends it."""
ENOUGH = 0.95
"""Share of a run's minutes after which it is done."""


class UnfinishedError(RuntimeError):
    """The minutes that were given are over, or somebody pressed Ctrl-C."""


@dataclass(frozen=True, eq=False)
class Run:
    """One training run of a study."""

    variant: str
    seed: int
    changes: Changes
    folder: Path


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    startup.set_up()
    options, train_options = _parse(sys.argv[1:] if arguments is None else arguments)
    deadline = time.monotonic() + 60 * options.max_minutes
    try:
        config, train_options = _config(train_options)
        folder = options.folder / options.study
        _check_tests(options, config)
        study_runs = _runs(options, config, folder)
        check_outputs(
            Output("--folder", folder, is_folder=True),
            Output("--folder", folder / "table.md"),
            Output("--folder", folder / "study.png"),
        )
        _begin(folder, config)
        failed = _carry_out(study_runs, options, train_options, deadline)
        table = write_table(study_runs, options, folder)
        plot(study_runs, STUDIES[options.study].question, folder / "study.png")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{table}\nsaved {folder / 'table.md'} and {folder / 'study.png'}")
    for command in failed:
        print(f"error: this failed: {command}", file=sys.stderr)
    return 1 if failed else 0


def _carry_out(
    study_runs: list[Run],
    options: argparse.Namespace,
    train_options: list[str],
    deadline: float,
) -> list[str]:
    """Train and test all that is not; returns the commands that failed."""
    failed = []
    try:
        for run in study_runs:
            try:
                _train(run, options, train_options, deadline)
                _test(run, options, deadline)
            except subprocess.CalledProcessError as error:
                failed.append(_shown(error.cmd))
    except (UnfinishedError, KeyboardInterrupt):
        print("not finished; the same command goes on")
    return failed


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
        type=Number(1, MANY_STEPS, is_whole=True),
        default=2_000_000,
        metavar="ENV_STEPS",
        help="of each training run: %(type)s (default: %(default)g)",
    )
    parser.add_argument(
        "--minutes",
        type=POSITIVE,
        help="of each training run, from its start, whatever the budget: %(type)s",
    )
    parser.add_argument(
        "--seeds",
        type=Number(1, 1000, is_whole=True),
        default=1,
        help="runs of each variant: %(type)s (default: 1)",
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        metavar="NAME",
        help="only these (default: all); 0.5_x for '0.5 x'",
    )
    parser.add_argument(
        "--trials",
        type=Number(0, 1_000_000, is_whole=True),
        default=100,
        help="of each test: %(type)s (default: 100; 0: none)",
    )
    parser.add_argument(
        "--test-options",
        default="",
        help="evaluate's, in one string: --test-options='--task.goal.seconds 8'",
    )
    parser.add_argument(
        "--max-minutes",
        type=Number(0),
        default=float("inf"),
        help="stop, to continue later, after this time: %(type)s (default: no limit)",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/studies"), help="of all studies"
    )
    return parser.parse_known_args(arguments)


def _config(train_options: list[str]) -> tuple[Config, list[str]]:
    """The configuration that the variants change, and options that name it."""
    refused = {
        "--from-run": "a study's runs begin untrained",
        "--run-dir": "a study has a folder for each of its runs: give --folder",
        "--max-env-steps": "give --budget",
        "--resume": "what was begun goes on without it",
    }
    for option in train_options:
        flag = option.partition("=")[0].replace("_", "-")
        if flag in refused:
            raise ValueError(f"{flag}: {refused[flag]}")
    backend = _default_backend()
    base = settings.early_option(train_options, "--config")
    if base is None:
        base = "quickstart" if backend == "cpu" else "single_gpu"
        train_options = ["--config", base, *train_options]
    command = settings.from_command_line(
        TrainCommand, settings.load(base), train_options, description=__doc__
    )
    return settings.config_of(command), train_options


def _default_backend() -> str:
    """JAX's, asked for in another process: this one must not hold a GPU's memory."""
    code = (
        "import jax; from mjx_dex import startup; startup.check_jax(); "
        "print(jax.default_backend())"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if asked.returncode:
        # The last line of a traceback is the error's type and message.
        raise ValueError(asked.stderr.strip().splitlines()[-1].partition(": ")[2])
    return asked.stdout.strip()


def _begin(folder: Path, config: Config) -> None:
    """Make a study's folder, or see that it holds runs that change this configuration.

    Raises:
        ValueError: if they change another one.
    """
    path = folder / "config.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.glob("*/seed_*/config.yaml")):
        settings.save(config, path)
    different = settings.differences(settings.load(path), config)
    if different:
        raise ValueError(
            f"{folder} holds runs of another configuration ({'; '.join(different)}); "
            "give that, or another --folder"
        )


def _runs(options: argparse.Namespace, config: Config, folder: Path) -> list[Run]:
    """All runs of a study, the first seed of every variant first.

    A variant that changes nothing of this configuration is left out: beside the one
    that it repeats, it would show luck as an effect.
    """
    variants = STUDIES[options.study].variants
    given = {slug(name) for name in options.variants or variants}
    for name in options.variants or ():
        if slug(name) not in map(slug, variants):
            raise ValueError(f"--variants: {name} is none of {', '.join(variants)}")
    chosen, configs = {}, {}
    for name, changes in variants.items():
        if slug(name) not in given:
            continue
        changes = changes(config) if callable(changes) else changes
        changed = replace(config, **changes)
        if changed in configs.values():
            (same,) = [x for x, other in configs.items() if other == changed]
            print(f"{name} is the same as {same} here, and left out")
            continue
        chosen[name], configs[name] = changes, changed
    return [
        Run(
            variant=name,
            seed=config.seed + seed,
            changes=changes,
            folder=folder / slug(name) / f"seed_{config.seed + seed}",
        )
        for seed in range(options.seeds)
        for name, changes in chosen.items()
    ]


def _train(
    run: Run, options: argparse.Namespace, train_options: list[str], deadline: float
) -> None:
    """Train until the budget, or the time, is spent.

    Raises:
        UnfinishedError: if it was stopped before.
    """
    if _is_trained(run, options):
        return
    left = (deadline - time.monotonic()) / 60
    if left <= 0:
        raise UnfinishedError
    steps = options.budget
    if options.minutes is not None:
        left, steps = min(left, options.minutes - minutes(run)), MANY_STEPS
    is_begun = (run.folder / "config.yaml").exists()
    _call(
        "mjx_dex.train",
        *(["--resume"] if is_begun else []),
        *(train_options if not is_begun else []),
        *("--run-dir", str(run.folder), "--max-env-steps", f"{steps:.0f}"),
        *(["--max-minutes", f"{max(left, 0.01):.2f}"] if left < float("inf") else []),
        *(flags(run.changes | {"seed": run.seed}) if not is_begun else []),
    )
    if not _is_trained(run, options):
        raise UnfinishedError  # with a checkpoint, also after Ctrl-C


def _is_trained(run: Run, options: argparse.Namespace) -> bool:
    if options.minutes is None:
        return trained(run) >= options.budget
    # Training stops between iterations, and saves.
    return trained(run) > 0 and minutes(run) >= ENOUGH * options.minutes


def minutes(run: Run) -> float:
    """Wall-clock of a run: of each process, from its start to its last iteration."""
    if not (run.folder / lineage.FILE).exists():
        return 0.0
    rows, seconds = report.read_metrics(run.folder), 0.0
    sessions = lineage.read(run.folder).here
    ends = [*(session.iteration for session in sessions[1:]), float("inf")]
    for session, end in zip(sessions, ends, strict=True):
        times = [r["time"] for r in rows if session.iteration < r["iteration"] <= end]
        began = datetime.fromisoformat(session.began).timestamp()
        seconds += times[-1] - began if times else 0.0
    return seconds / 60


def _test(run: Run, options: argparse.Namespace, deadline: float) -> None:
    """Evaluate in all of the study's worlds where that has not been done."""
    for test in _tests(options):
        if read_result(run, test, options) is not None:
            continue
        if time.monotonic() > deadline:
            raise UnfinishedError
        path = result_path(run, test)
        arguments = _test_arguments(test, options)
        _call("mjx_dex.evaluate", str(run.folder), *arguments, "--json", str(path))


def _tests(options: argparse.Namespace) -> dict[str, dict[str, object]]:
    """The study's tests, unless none is asked for."""
    return STUDIES[options.study].tests if options.trials else {}


def _test_arguments(test: str, options: argparse.Namespace) -> list[str]:
    """What ``evaluate`` is asked for, after a run's folder."""
    changes = STUDIES[options.study].tests[test]
    given = shlex.split(options.test_options)
    return [*given, "--trials", str(options.trials), *flags(changes)]


def _check_tests(options: argparse.Namespace, config: Config) -> None:
    """See, before anything is trained, that the tests can be asked for.

    Raises:
        ValueError: if an option is not a test's to change, or none of ``evaluate``.
    """
    try:
        given = shlex.split(options.test_options)
    except ValueError as error:
        raise ValueError(f"--test-options {options.test_options}: {error}") from error
    for test, changes in _tests(options).items():
        fixed = {"--trials", "--json", "--plot"} | set(flags(changes))
        for option in given:
            flag = option.partition("=")[0].replace("_", "-")
            if flag.startswith("--") and flag in fixed:
                raise ValueError(f"--test-options: {flag} is set by the study")
        arguments = _test_arguments(test, options)
        try:
            settings.from_command_line(
                EvaluateCommand, config, arguments, evaluate.__doc__
            )
        except settings.ConfigError as error:
            raise ValueError(f"--test-options: {error}") from error


def _call(module: str, *arguments: str) -> None:
    """Run a command to its end.

    Raises:
        CalledProcessError: if it fails.
        KeyboardInterrupt: after Ctrl-C, when the command, which gets it as well, has
            ended: ``train`` saves a checkpoint first.
    """
    command = [sys.executable, "-m", module, *arguments]
    print(_shown(command), flush=True)
    process = subprocess.Popen(command)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
    if status:
        raise subprocess.CalledProcessError(status, command)


def _shown(command: list[str]) -> str:
    return shlex.join(["python", *command[1:]])


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


def read_result(run: Run, test: str, options: argparse.Namespace) -> dict | None:
    """A test's result, if it is of the run's latest checkpoint and of this question."""
    path = result_path(run, test)
    if not path.exists():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    _, command = runs.from_command_line(
        EvaluateCommand,
        [str(run.folder), *_test_arguments(test, options)],
        evaluate.__doc__,
    )
    is_latest = result["env_steps"] == trained(run)
    is_it = is_latest and result.get("asked") == evaluate.asked(command)
    return result if is_it else None


def _results(run: Run, options: argparse.Namespace) -> dict[str, dict]:
    """All of a run's results by test."""
    tests = STUDIES[options.study].tests
    found = {test: read_result(run, test, options) for test in tests}
    return {test: result for test, result in found.items() if result is not None}


def trained(run: Run) -> int:
    """Env steps of a run's latest checkpoint."""
    saved = [p.name for p in run.folder.glob("checkpoints/*") if p.name.isdigit()]
    if not saved or not (run.folder / lineage.FILE).exists():
        return 0
    return lineage.read(run.folder).env_steps(max(map(int, saved)))


def write_table(
    study_runs: list[Run], options: argparse.Namespace, folder: Path
) -> str:
    """A Markdown table of all that is tested: training variants by tests."""
    study = STUDIES[options.study]
    tests = study.tests
    lines = [
        study.question,
        "",
        "| trained with | runs | million env steps | minutes | largest turn [rad] | "
        f"{' | '.join(tests)} |",
        "|---" * (5 + len(tests)) + "|",
    ]
    protocols = {}
    for variant in dict.fromkeys(run.variant for run in study_runs):
        done = [r for r in study_runs if r.variant == variant and trained(r)]
        results = {run: _results(run, options) for run in done}
        # Of those that go on, or were stopped, only if no other can be reported.
        done = [run for run in done if results[run]] or done
        cells = []
        for test in tests:
            found = [results[run][test] for run in done if test in results[run]]
            cells.append(cell([result["engines"][-1] for result in found]))
            protocols.update((test, result["protocol"]) for result in found)
        steps = np.mean([trained(run) for run in done]) / 1e6 if done else 0.0
        spent = np.mean([minutes(run) for run in done]) if done else 0.0
        cells = [f"{steps:.2f}", f"{spent:.1f}", largest_turn(done), *cells]
        lines.append(f"| {variant} | {len(done)} | {' | '.join(cells)} |")
    lines += ["", "Goals per trial on native: mean ± standard error (median).", ""]
    text = "\n".join(lines + _describe(protocols))
    write_at_once(folder / "table.md", text + "\n")
    return text


def largest_turn(done: list[Run]) -> str:
    """Mean of the adaptive goal curriculum at the runs' ends, if it moves."""
    moving = [r for r in done if runs.load_config(r.folder).task.goal.widening]
    rows = [row for r in moving for row in report.read_metrics(r.folder)[-5:]]
    turns = [row["goal_angle_limit"] for row in rows]
    return f"{np.mean(turns):.3f}" if turns else "-"


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


def plot(study_runs: list[Run], title: str, path: Path) -> None:
    """Draw goals per episode in training over wall-clock and over experience.

    As in Figures 8 to 10: a moving average and its 90% interval. Below, the adaptive
    goal curriculum, where it moves.
    """
    figure, panels = plt.subplots(
        2, 2, figsize=(10, 8), sharex="col", layout="constrained"
    )
    variants = dict.fromkeys(run.variant for run in study_runs)
    colors = {variant: f"C{k}" for k, variant in enumerate(variants)}
    for run in study_runs:
        rows = report.read_metrics(run.folder)
        if not rows or "seconds" not in rows[0]:
            continue  # of an earlier version
        goals = np.array([row["goals_per_episode"] for row in rows])
        episodes = np.array([row["episodes"] for row in rows])
        mean, error = moving_average(goals, episodes)
        turn = [row["goal_angle_limit"] for row in rows]
        hours = np.cumsum([row["seconds"] for row in rows]) / 3600
        period = runs.load_config(run.folder).physics.control_period
        years = np.array([row["env_steps"] for row in rows]) * period / SECONDS_PER_YEAR
        color = colors[run.variant]
        for (above, below), x in zip(panels.T, (hours, years), strict=True):
            above.plot(x, mean, color=color, label=run.variant)
            above.fill_between(x, mean - error, mean + error, color=color, alpha=0.2)
            below.plot(x, turn, color=color)
    panels[0, 0].set(ylabel="consecutive goals achieved", ylim=(0, None))
    panels[0, 1].set(ylim=(0, None))
    panels[1, 0].set(xlabel="hours of training", ylabel="largest turn to a goal [rad]")
    panels[1, 1].set(xlabel="years of experience")
    for axis in panels.flat:
        axis.grid(alpha=0.3)
        axis.locator_params(axis="x", nbins=6)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        panels[0, 1].legend(unique.values(), unique, fontsize=8)
    figure.suptitle(title, fontsize=9)
    save_figure(figure, path, dpi=120)
    plt.close(figure)


def moving_average(
    values: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean of the last ``WINDOW`` values at each, and half its 90% interval.

    NaN as long as all weights are 0.
    """
    mean, error = np.full((2, len(values)), np.nan)
    for k in range(len(values)):
        window = slice(max(0, k + 1 - WINDOW), k + 1)
        x, w = values[window], weights[window]
        if w.sum() > 0:
            share = w / w.sum()
            mean[k] = share @ x
            error[k] = 1.645 * np.sqrt(share**2 @ (x - mean[k]) ** 2)
    return mean, error


if __name__ == "__main__":
    sys.exit(main())
