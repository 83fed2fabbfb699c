"""``python -m mjx_dex.probe RUN``: what a policy's memory knows about its world.

Section 6.4: from an LSTM's state after 5 seconds, is the block bigger or smaller than
average? The same is asked here of every randomized parameter, at several times, with a
linear classifier that is tested on episodes it was not fitted to; and, to tell what
memory adds, of the observation at that time alone.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import matplotlib
import numpy as np

from mjx_dex import runs, settings
from mjx_dex.config import Config
from mjx_dex.evaluate import menu_name
from mjx_dex.play import Play
from mjx_dex.randomization.menu import enabled_effects
from mjx_dex.ranges import Count, real
from mjx_dex.types import EpisodeDraw
from robot_bridge.files import (
    Output,
    check_outputs,
    picture_formats,
    save_figure,
    write_at_once,
)

matplotlib.use("agg")
import matplotlib.pyplot as plt

NOTHING = "nothing is randomized that could be known; give --randomization.preset all"

FOLDS = 5
RIDGES = 10.0 ** np.arange(-1, 6)
"""Penalties to choose from."""


@dataclass(frozen=True)
class ProbeCommand(Config):
    """Options of the command itself; configuration options change the run's own."""

    episodes: Count = 1000
    """Episodes, played in parallel; those that end before a time do not count there."""
    seconds: tuple[real(0, 1e6), ...] = (1.0, 2.0, 5.0, 10.0)
    """Times to ask at, since an episode's first observation."""
    untrained: bool = False
    """Ask the policy as it was before training, for comparison."""
    json: Path | None = None
    """Write every figure to this file."""
    plot: Path | None = None
    """Draw what is known over time to this one."""


@dataclass(frozen=True)
class Snapshot:
    """What there is to know and to know it from, at one time, of worlds in play."""

    seconds: float
    memory: np.ndarray
    """[episodes, 2 * units] the LSTM's cells and outputs."""
    observation: np.ndarray
    """[episodes, policy inputs] what the policy saw then."""
    parameters: dict[str, np.ndarray]
    """[episodes, coordinates] randomized parameters by name."""


@dataclass(frozen=True)
class Answer:
    """How often one parameter was told right, at one time."""

    parameter: str
    coordinates: int
    """Each asked after on its own; the figures are means over them."""
    seconds: float
    episodes: int
    memory: float
    """Share of episodes in which memory said on which side of the median it is."""
    observation: float
    """The same, of the observation alone."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return runs.command_line(_main, arguments)


def _main(arguments: list[str]) -> None:
    run, command = runs.from_command_line(ProbeCommand, arguments, __doc__)
    check_outputs(
        Output("--json", command.json),
        Output("--plot", command.plot, picture_formats()),
    )
    config = settings.config_of(command)
    if config.network.policy_memory == "none":
        raise ValueError(f"the policy of {run} has no memory to ask")
    if not enabled_effects(config.randomization):
        raise ValueError(NOTHING)
    policy = runs.load_policy(run, config, command.untrained)
    shots = snapshots(Play(config, policy.agent, command.episodes), command.seconds)
    answers = [answer for shot in shots for answer in ask(shot)]
    try:
        if command.json:
            write_at_once(
                command.json, json.dumps([vars(x) for x in answers], indent=1)
            )
        if command.plot:
            plot(answers, command.plot)
    finally:  # also where the disk is full by now
        print(report(answers))
        print(
            f"randomization {menu_name(config.randomization)}, object "
            f"{config.object.shape}; {policy.history}"
        )


def snapshots(play: Play, seconds: tuple[float, ...]) -> list[Snapshot]:
    """Play, and look at all worlds that are still in their first episode.

    A time that too few of them reach, and all later ones, are left out.

    Raises:
        ValueError: if nothing is randomized, or too few reach the first time.
    """
    period = play.config.physics.control_period
    # An observation at time 0, and one more after each period.
    wanted = {1 + round(time / period): time for time in sorted(seconds)}
    playing = np.ones(play.num_worlds, bool)
    shots = []
    steps = play.steps(jax.random.key(play.config.seed))
    for number in range(1, max(wanted) + 1):
        before, after, time_step = next(steps)
        if number in wanted:
            if playing.sum() < 10 * FOLDS:
                if shots:
                    break
                raise ValueError(
                    f"only {playing.sum()} of {play.num_worlds} episodes lasted "
                    f"{wanted[number]:g} s; ask earlier (--seconds) or play more "
                    "(--episodes)"
                )
            memory = np.concatenate([np.asarray(x) for x in after.carry], axis=1)
            shots.append(
                Snapshot(
                    seconds=wanted[number],
                    memory=memory[playing],
                    observation=np.asarray(before.observation.policy)[playing],
                    parameters=parameters(before.state.worlds.draw, playing),
                )
            )
        playing &= ~np.asarray(time_step.terminated | time_step.truncated)
    return shots


def parameters(draw: EpisodeDraw, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """[episodes, coordinates] of what differs between worlds.

    Raises:
        ValueError: if nothing does.
    """
    everything = vars(draw.physics) | {
        "action_delay": draw.action_delay,
        "backlash": draw.backlash,
        "action_noise, correlated": draw.action_noise.correlated,
        "timestep_jitter": draw.timestep_jitter,
        "marker_placement, fingertips": draw.marker_placement.fingertips,
        "marker_placement, base": draw.marker_placement.base,
        "correlated_noise, fingertips": draw.correlated_noise.fingertips,
        "correlated_noise, position": draw.correlated_noise.object_position,
        "correlated_noise, orientation": draw.correlated_noise.object_orientation,
        "random_push, probability": draw.random_push.probability,
    }
    found = {}
    for name, values in everything.items():
        values = np.asarray(values, float).reshape(len(chosen), -1)[chosen]
        varied = values.std(axis=0) > 0
        if varied.any():
            found[name] = values[:, varied]
    if not found:
        raise ValueError(NOTHING)
    return found


def ask(shot: Snapshot) -> list[Answer]:
    """How often memory and observation tell each parameter."""
    names = list(shot.parameters)
    sides = np.concatenate([bigger(shot.parameters[name]) for name in names], axis=1)
    shares = [accuracy(x, sides) for x in (shot.memory, shot.observation)]
    answers, begin = [], 0
    for name in names:
        count = shot.parameters[name].shape[1]
        memory, observation = (s[begin : begin + count].mean() for s in shares)
        answers.append(
            Answer(name, count, shot.seconds, len(sides), memory, observation)
        )
        begin += count
    return answers


def bigger(values: np.ndarray) -> np.ndarray:
    """Bool, like [episodes, coordinates] values: above their median; half of them are.

    Of values that are true or false, those that are true.
    """
    if set(np.unique(values)) <= {0.0, 1.0}:
        return values > 0
    return values > np.median(values, axis=0)


def accuracy(features: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Share of held-out episodes that a linear classifier puts on the right side.

    Of sides that are not equally many it is the mean of both sides' shares, so that
    saying what is more frequent is right by half.

    Ridge regression on sides -1 and 1; its penalty is chosen inside what it is fitted
    to. Each episode is held out once.

    Args:
        features: [episodes, n].
        sides: [episodes, targets] bool.

    Returns:
        [targets].
    """
    order = np.random.default_rng(0).permutation(len(features))
    right = np.zeros(sides.shape, bool)
    for held_out in np.array_split(order, FOLDS):
        fitted = np.setdiff1d(order, held_out)
        rng = np.random.default_rng(1)
        inner, check = np.split(rng.permutation(fitted), [4 * len(fitted) // 5])
        trials = _predict(features, sides, inner, check)
        best = (trials == sides[check]).mean(axis=1).argmax(axis=0)
        said = _predict(features, sides, fitted, held_out)
        chosen = said[best, :, np.arange(sides.shape[1])].T
        right[held_out] = chosen == sides[held_out]
    return (_share(right, sides) + _share(right, ~sides)) / 2


def _share(right: np.ndarray, of: np.ndarray) -> np.ndarray:
    """[targets] of the episodes in question, how many were told right."""
    return (right & of).sum(axis=0) / of.sum(axis=0)


def _predict(features, sides, fitted, asked) -> np.ndarray:
    """[ridges, asked, targets] bool: sides that a fit to ``fitted`` gives."""
    x = features[fitted]
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-9
    x = (x - mean) / deviation
    y = np.where(sides[fitted], 1.0, -1.0)
    # One eigendecomposition serves all penalties.
    values, vectors = np.linalg.eigh(x.T @ x)
    projected = vectors.T @ (x.T @ (y - y.mean(axis=0)))
    weights = projected / (values[:, None] + RIDGES[:, None, None])
    new = ((features[asked] - mean) / deviation) @ vectors
    return new @ weights + y.mean(axis=0) > 0


def report(answers: list[Answer]) -> str:
    """A Markdown table of parameters by times: memory (observation alone)."""
    times = list(dict.fromkeys(answer.seconds for answer in answers))
    counts = {answer.seconds: answer.episodes for answer in answers}
    known = {(answer.parameter, answer.seconds): answer for answer in answers}
    heads = [f"{time:g} s ({counts[time]} episodes)" for time in times]
    lines = [
        "Told right from memory (from the observation alone), on held-out episodes:",
        "",
        f"| bigger than the median? | of | {' | '.join(heads)} |",
        "|---" * (2 + len(times)) + "|",
    ]
    for name in dict.fromkeys(answer.parameter for answer in answers):
        cells = []
        for time in times:
            answer = known.get((name, time))
            cells.append(
                f"{answer.memory:.1%} ({answer.observation:.1%})" if answer else "-"
            )
        coordinates = known[name, times[0]].coordinates
        lines.append(f"| {name} | {coordinates} | {' | '.join(cells)} |")
    errors = ", ".join(f"{50 / np.sqrt(n):.1f}" for n in counts.values())
    lines += [
        "",
        f"One standard error of a single parameter, by chance: {errors} points.",
    ]
    return "\n".join(lines)


def plot(answers: list[Answer], path: Path) -> None:
    """Draw what memory knows over time, with two standard errors around chance."""
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    times = sorted({answer.seconds for answer in answers})
    counts = {answer.seconds: answer.episodes for answer in answers}
    error = 2 * 0.5 / np.sqrt([counts[time] for time in times])
    axis.fill_between(times, 0.5 - error, 0.5 + error, color="0.9", label="chance")
    for k, name in enumerate(dict.fromkeys(answer.parameter for answer in answers)):
        known = [(x.seconds, x.memory) for x in answers if x.parameter == name]
        style = "o-" if k < 10 else "o--"
        axis.plot(*zip(*known, strict=True), style, label=name, markersize=3)
    axis.set(xlabel="seconds of an episode", ylabel="told right from memory")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, ncols=2)
    save_figure(figure, path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
