"""``python -m mjx_dex.evaluate RUN``: how many goals in a row a policy reaches."""

import contextlib
import itertools
import json
import logging
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import matplotlib
import numpy as np

from mjx_dex import runs, settings
from mjx_dex.config import Config, RandomizationConfig, replace
from mjx_dex.physics import choose_engine
from mjx_dex.play import Play
from mjx_dex.randomization.menu import enabled_effects
from mjx_dex.ranges import real, whole
from mjx_dex.vision.config import RendererName
from robot_bridge.files import (
    Output,
    check_outputs,
    picture_formats,
    save_figure,
    write_at_once,
)

matplotlib.use("agg")
import matplotlib.pyplot as plt

log = logging.getLogger("mjx_dex")

ENDS = {
    "drops": "dropped",
    "timeouts": "out of time",
    "completions": "all goals met",
    "broken_worlds": "world broke",
}
"""Metrics of a world that say why its episode ended."""


@dataclass(frozen=True)
class EvaluateCommand(Config):
    """Options of the command itself; configuration options change the run's own."""

    trials: whole(1, 10**6) = 100
    """Episodes, played in parallel."""
    untrained: bool = False
    """Play the policy as it was before training, for comparison."""
    most_likely: bool = False
    """Take the most likely action instead of drawing one."""
    pose_from: Path | None = None
    """Let the policy act on the pose that this net of ``mjx_dex.vision.train`` sees."""
    pose_renderer: RendererName | None = None
    """Of the images; by default the one that the net learned from."""
    pose_latency: real(0, 10) = 0.0
    """Age of what the net sees [s]."""
    json: Path | None = None
    """Write everything to this file, too."""
    plot: Path | None = None
    """Draw goals per trial and seconds per goal to this one."""


@dataclass(frozen=True)
class Trials:
    """What came of a number of episodes on one engine."""

    engine: str
    goals: list[int]
    """Met in each trial, in a row."""
    ends: list[str]
    """Why each ended: a key of ``ENDS``."""
    seconds_per_goal: list[float]
    """From a goal's being set to its being met, of every goal that was."""
    lost_contacts: int
    """Control steps of worlds in which a contact or constraint buffer was full."""

    @property
    def mean(self) -> float:
        """Goals per trial."""
        return float(np.mean(self.goals))

    @property
    def standard_error(self) -> float:
        """Of the mean."""
        return float(np.std(self.goals) / np.sqrt(len(self.goals)))

    def interval(self, share: float = 0.95, resamples: int = 10_000) -> np.ndarray:
        """[2] bootstrap interval of the mean that holds so much of it."""
        # Seeded, so that a table is the same twice.
        chosen = np.random.default_rng(0).integers(
            len(self.goals), size=(resamples, len(self.goals))
        )
        means = np.asarray(self.goals)[chosen].mean(axis=1)
        return np.quantile(means, [(1 - share) / 2, (1 + share) / 2])

    def summary(self) -> dict:
        """Figures by name."""
        return {
            "mean": self.mean,
            "deviation": float(np.std(self.goals)),
            "standard_error": self.standard_error,
            "interval_95": self.interval().tolist(),
            "median": float(np.median(self.goals)),
            **{end: self.ends.count(end) for end in ENDS},
        }


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return runs.command_line(_main, arguments)


def _main(arguments: list[str]) -> None:
    run, command = runs.from_command_line(EvaluateCommand, arguments, __doc__)
    check_outputs(
        Output("--json", command.json),
        Output("--plot", command.plot, picture_formats()),
    )
    config = settings.config_of(command)
    policy = runs.load_policy(run, config, command.untrained)
    columns = [
        evaluate(replace(config, engine=engine), policy.agent, command)
        for engine in _engines(config)
    ]
    try:
        if command.json:
            save(columns, command, policy, command.json)
        if command.plot:
            plot(columns, command.plot)
    finally:  # also where the disk is full by now
        print(report(columns, command, policy))


def _engines(config: Config) -> list[str]:
    """The run's own, and MuJoCo's C engine: the sim-to-sim check."""
    return list(dict.fromkeys([choose_engine(config.engine)[0], "native"]))


def evaluate(config: Config, agent, command: EvaluateCommand) -> Trials:
    """Play trials until every one has ended.

    Args:
        config: of the worlds; goals, tolerance, limits and engine are taken from here.
        agent: an ``Agent``, who plays.
        command: how many trials, and how to act.
    """
    play = Play(config, agent, command.trials, command.most_likely)
    with seeing(play, command):
        return count(
            (step.metrics for _, _, step in play.steps(jax.random.key(config.seed))),
            config,
            command.trials,
        )


@contextlib.contextmanager
def seeing(play: Play, command: EvaluateCommand):
    """While it lasts, the policy sees through ``pose_from``, if there is one."""
    if command.pose_from is None:
        if command.pose_renderer or command.pose_latency:
            raise ValueError("--pose-renderer and --pose-latency need --pose-from")
        yield
        return
    # Imported here: most evaluations do without renderers.
    from mjx_dex.vision import nets
    from mjx_dex.vision.eyes import Eyes

    net = nets.load(command.pose_from)
    for name, known, there in (
        ("shapes", net.config.object.shape, play.config.object.shape),
        ("sizes", net.config.object.size, play.config.object.size),
    ):
        if known != there:
            raise ValueError(
                f"--pose-from: {name} differ: {command.pose_from} was trained to see "
                f"{known}, and these worlds have {there}"
            )
    if "object_shape" in enabled_effects(play.config.randomization):
        raise ValueError("--pose-from: the net sees one shape, and object_shape is on")
    eyes = Eyes(
        net, play.env, command.pose_renderer, command.pose_latency, command.seed
    )
    log.info("poses from %s; images by %s", command.pose_from, eyes.description)
    play.look = eyes.look
    with contextlib.closing(eyes):
        yield


def count(steps, config: Config, trials: int) -> Trials:
    """The first episode of each world, from the metrics of every step.

    Args:
        steps: iterable of dicts of [trials] numbers: ``HandEnv.judge``'s metrics.
        config: of the worlds.
        trials: number of worlds.
    """
    playing, ends = np.ones(trials, bool), [""] * trials
    goals, set_at = np.zeros(trials, int), np.zeros(trials, int)
    steps_per_goal, lost_contacts = [], 0
    steps = iter(steps)
    for number in itertools.count(1):
        if not playing.any():
            break
        metrics = {name: np.asarray(value) for name, value in next(steps).items()}
        met = playing & (metrics["goals"] > 0)
        steps_per_goal += (number - set_at[met]).tolist()
        goals[met] += 1
        set_at[met] = number
        lost_contacts += int((metrics["lost_contacts"][playing] > 0).sum())
        for end in ENDS:
            for k in np.flatnonzero(playing & (metrics[end] > 0)):
                ends[k], playing[k] = end, False
    period = config.physics.control_period
    return Trials(
        engine=choose_engine(config.engine)[0],
        goals=goals.tolist(),
        ends=ends,
        seconds_per_goal=[period * n for n in steps_per_goal],
        lost_contacts=lost_contacts,
    )


def protocol(command: EvaluateCommand) -> dict:
    """What decides the figures most, to be printed beside them."""
    goal, task = command.task.goal, command.task
    distribution = goal.distribution
    if distribution == "near":
        distribution += f" {goal.angles[0]:g}-{goal.angles[1]:g} rad"
    return {
        "goals": distribution,
        "tolerance": f"{goal.tolerance:g} rad",
        "limit": f"{goal.seconds:g} s per goal",
        "cap": goal.count,
        "object": command.object.shape,
        "wrist": "locked" if task.locked_wrist else "free",
        "randomization": menu_name(command.randomization),
        "actions": "most likely" if command.most_likely else "drawn",
        "pose": _pose_name(command),
    }


def _pose_name(command: EvaluateCommand) -> str:
    """Where the policy has the object's pose from."""
    if command.pose_from is None:
        return "true"
    name = f"of {command.pose_from}"
    if command.pose_renderer:
        name += f" on {command.pose_renderer}"
    if command.pose_latency:
        name += f", {1000 * command.pose_latency:g} ms old"
    return name


def asked(command: EvaluateCommand) -> dict:
    """All that decides the figures."""
    own = ("trials", "untrained", "most_likely")
    values = settings.plain(settings.config_of(command)) | {
        name: getattr(command, name) for name in own
    }
    if command.pose_from:
        values["pose"] = _pose_name(command)
    return values


def menu_name(menu: RandomizationConfig) -> str:
    """A preset and what was switched on and off."""
    switched = [f"+{name}" for name in menu.on] + [f"-{name}" for name in menu.off]
    return " ".join([menu.preset, *switched])


def report(columns: list[Trials], command: EvaluateCommand, policy: runs.Policy) -> str:
    """A Markdown table with a column for each engine, and what it is of."""
    names = [
        trials.engine + (" (sim-to-sim)" if k else "")
        for k, trials in enumerate(columns)
    ]
    rows = {
        f"goals per trial, mean ± deviation ({command.trials} trials)": [
            f"{t.mean:.1f} ± {np.std(t.goals):.1f}" for t in columns
        ],
        "95% interval of the mean": [
            "{:.1f} to {:.1f}".format(*t.interval()) for t in columns
        ],
        "median": [f"{np.median(t.goals):g}" for t in columns],
        **{
            label: [str(t.ends.count(end)) for t in columns]
            for end, label in ENDS.items()
            if end != "broken_worlds" or any(end in t.ends for t in columns)
        },
        "seconds per goal, median": [
            f"{np.median(t.seconds_per_goal):.2f}" if t.seconds_per_goal else "-"
            for t in columns
        ],
    }
    if any(t.lost_contacts for t in columns):
        rows["world steps with a full buffer"] = [str(t.lost_contacts) for t in columns]
    lines = [f"| | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    lines += [f"| {label} | {' | '.join(cells)} |" for label, cells in rows.items()]
    for name, trials in zip(names, columns, strict=True):
        shown = " ".join(map(str, sorted(trials.goals, reverse=True)))
        lines.append(f"trials, sorted, {name}: {shown}")
    limits = ", ".join(f"{name} {value}" for name, value in protocol(command).items())
    return "\n".join([*lines, f"{limits}; {policy.history}"])


def save(
    columns: list[Trials], command: EvaluateCommand, policy: runs.Policy, path: Path
) -> None:
    """Write every trial and every figure."""
    content = {
        "protocol": protocol(command),
        "asked": asked(command),
        "env_steps": policy.env_steps,
        "engines": [asdict(t) | t.summary() for t in columns],
    }
    write_at_once(path, json.dumps(content, indent=1))


def plot(columns: list[Trials], path: Path) -> None:
    """Draw how many trials got how far, and how long goals took."""
    figure, (trials, times) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    longest = max([0.0, *(max(t.seconds_per_goal, default=0.0) for t in columns)])
    for column in columns:
        goals = np.sort(column.goals)[::-1]
        rank = np.arange(1, len(goals) + 1)
        trials.step(rank, goals, where="mid", label=column.engine)
        times.hist(
            column.seconds_per_goal,
            bins=np.linspace(0, max(longest, 1.0), 41),
            histtype="step",
            label=column.engine,
        )
    trials.set(xlabel="trials, best first", ylabel="goals in a row", ylim=(0, None))
    times.set(xlabel="seconds to a goal", ylabel="goals met", yscale="symlog")
    for axis in (trials, times):
        axis.grid(alpha=0.3)
        axis.legend()
    save_figure(figure, path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
