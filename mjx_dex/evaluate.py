"""``python -m mjx_dex.evaluate RUN``: how many goals in a row a policy reaches."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mjx_dex import settings
from mjx_dex.config import Config, replace
from mjx_dex.learning.agent import Agent
from mjx_dex.learning.checkpoints import CheckpointError, Checkpoints
from mjx_dex.physics import choose_engine
from mjx_dex.task import BankedEnvironments, make_env, with_buffers
from mjx_dex.train import make_trainer, set_up_process


@dataclass(frozen=True)
class EvaluateCommand(Config):
    """Options of the command itself; configuration options change the run's own."""

    trials: int = 100
    """Episodes, played in parallel."""
    untrained: bool = False
    """Play the policy as it was before training, for comparison."""
    most_likely: bool = False
    """Take the most likely action instead of drawing one."""
    json: Path | None = None
    """Write the result to this file, too."""


@dataclass(frozen=True)
class Result:
    """One evaluation. The protocol is printed with the figure: it decides it."""

    mean: float
    deviation: float
    standard_error: float
    median: float
    trials: list[int]
    drops: int
    timeouts: int
    completions: int
    broken_worlds: int
    lost_contacts: int
    """World steps in which a buffer was full."""
    env_steps: int
    protocol: dict

    def __str__(self):
        shown = ", ".join(f"{name} {value}" for name, value in self.protocol.items())
        problems = "".join(
            f"{name}: {getattr(self, name)}\n"
            for name in ("broken_worlds", "lost_contacts")
            if getattr(self, name)
        )
        return (
            f"goals per episode: {self.mean:.2f} ± {self.standard_error:.2f} "
            f"(standard error), deviation {self.deviation:.2f}, "
            f"median {self.median:g}\n"
            f"{len(self.trials)} trials ended by: drop {self.drops}, "
            f"time {self.timeouts}, all goals met {self.completions}\n{problems}"
            f"{shown}; policy trained for {self.env_steps:,} env steps"
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    set_up_process()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if not arguments or arguments[0].startswith("-"):
            raise ValueError("give a run's folder: python -m mjx_dex.evaluate RUN")
        run = Path(arguments[0])
        base = settings.load(run / "config.yaml")
        command = settings.from_command_line(
            EvaluateCommand, base, arguments[1:], description=__doc__
        )
        result = evaluate_run(run, base, command)
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(result)
    if command.json:
        command.json.write_text(json.dumps(asdict(result), indent=1))
    return 0


def evaluate_run(run: Path, base: Config, command: EvaluateCommand) -> Result:
    """Evaluate the latest checkpoint of a run."""
    # Only what it learned is asked of it; its own engine may not run here.
    device = jax.local_devices()[:1]
    trainer = make_trainer(replace(base, engine="native"), device)
    key = jax.random.key(base.seed)
    if command.untrained:
        learner = trainer.init(key)
    else:
        checkpoints = Checkpoints(run / "checkpoints")
        learner = checkpoints.restore(trainer, key)
        checkpoints.close()
    # Every trial is asked for the same: no curriculum of goals or randomization.
    fixed = {
        "task.goal.widening": 0.0,
        "task.goal.narrowing": 0.0,
        "randomization.adaptive.enabled": False,
    }
    config = with_buffers(replace(settings.config_of(command), **fixed))
    env_steps = int(learner.iteration) * trainer.steps_per_iteration
    agent = trainer.agent(learner)
    # As in training: a GPU would otherwise round more coarsely.
    with jax.default_matmul_precision(config.network.matmul_precision):
        return evaluate(config, agent, command.trials, command.most_likely, env_steps)


def evaluate(
    config: Config, agent: Agent, trials: int, most_likely: bool, env_steps: int
) -> Result:
    """Play one episode in each of ``trials`` worlds.

    Args:
        config: of the worlds; goals, tolerance and engine are taken from here.
        agent: plays.
        trials: number of episodes.
        most_likely: act by the mode of the policy, not by a sample.
        env_steps: that the agent was trained for, to be printed.
    """
    env = make_env(config)
    worlds = BankedEnvironments(env, trials, config.bank)
    policy, _, actions = agent.networks
    select = (lambda _, x: actions.mode(x)) if most_likely else actions.sample
    empty = policy.initial_carry()

    @jax.jit
    def start(key):
        state, observation = worlds.reset(key)
        carry = jax.tree.map(lambda x: jnp.zeros((trials, *x.shape)), empty)
        return state, observation, carry, jnp.ones(trials, bool)

    @jax.jit
    def step(playing, key):
        state, observation, carry, first = playing
        carry, outputs = jax.vmap(agent.act)(carry, observation.policy, first)
        state, time_step = worlds.step(state, select(key, outputs))
        first = time_step.terminated | time_step.truncated
        return (state, time_step.observation, carry, first), time_step

    key = jax.random.key(config.seed)
    playing = start(key)
    worlds.check(playing[0])
    ended = np.zeros(trials, bool)
    outcome = {name: np.zeros(trials) for name in OUTCOMES}
    lost_contacts, step_number = 0, 0
    while not ended.all():
        step_number += 1
        playing, time_step = step(playing, jax.random.fold_in(key, step_number))
        now = np.array(time_step.terminated | time_step.truncated) & ~ended
        lost_contacts += np.array(time_step.metrics["lost_contacts"])[~ended].sum()
        for name in OUTCOMES:
            outcome[name][now] = np.array(time_step.metrics[name])[now]
        ended |= now
    goals = outcome["episode_goals"]
    return Result(
        mean=float(goals.mean()),
        deviation=float(goals.std()),
        standard_error=float(goals.std() / np.sqrt(trials)),
        median=float(np.median(goals)),
        trials=sorted(goals.astype(int).tolist()),
        drops=int(outcome["drops"].sum()),
        timeouts=int(outcome["timeouts"].sum()),
        completions=int(outcome["completions"].sum()),
        broken_worlds=int(outcome["broken_worlds"].sum()),
        lost_contacts=int(lost_contacts),
        env_steps=env_steps,
        protocol=_protocol(config),
    )


OUTCOMES = ("episode_goals", "drops", "timeouts", "completions", "broken_worlds")


def _protocol(config: Config) -> dict:
    goal = config.task.goal
    distribution = goal.distribution
    if distribution == "near":
        distribution += f" {goal.angles[0]:g}-{goal.angles[1]:g} rad"
    return {
        "goals": distribution,
        "tolerance": f"{goal.tolerance:g} rad",
        "limit": f"{goal.seconds:g} s per goal",
        "cap": goal.count,
        "engine": choose_engine(config.engine)[0],
        "object": config.object.shape,
        "randomization": _randomization(config),
    }


def _randomization(config: Config) -> str:
    menu = config.randomization
    switched = [f"+{name}" for name in menu.on] + [f"-{name}" for name in menu.off]
    return " ".join([menu.preset, *switched])


if __name__ == "__main__":
    sys.exit(main())
