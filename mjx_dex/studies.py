"""The paper's ablations, and ours: what ``ablate`` trains and tests."""

from collections.abc import Callable
from dataclasses import dataclass

from mjx_dex.config import Config

Changes = dict[str, object]
"""Values by dotted path, as ``config.replace`` takes them."""


@dataclass(frozen=True)
class Study:
    """Runs that differ in one thing, each tested in the same worlds."""

    question: str
    variants: dict[str, Changes | Callable[[Config], Changes]]
    """What each training run changes; the first is the baseline."""
    tests: dict[str, Changes]
    """Worlds that every policy is evaluated in."""


PRESETS = {
    "all": "All randomizations",
    "none": "No randomizations",
    "no_observation_noise": "No observation noise",
    "no_physics": "No physics randomizations",
    "no_unmodeled": "No unmodeled effects",
}
"""Training sets of section 6.3 by their name in Figure 8 and Table 4."""


def _scaled(factor: float) -> Callable[[Config], Changes]:
    """Batch size in proportion to devices, as in section 6.5: of worlds as well."""

    def changes(config: Config) -> Changes:
        chunks = config.minibatch_size // config.ppo.chunk
        return {
            "num_envs": max(1, round(factor * config.num_envs)),
            "bank.size": max(1, round(factor * config.bank.size)),
            "bank.starting": max(1, round(factor * config.bank.starting)),
            "ppo.minibatch_size": max(1, round(factor * chunks)) * config.ppo.chunk,
        }

    return changes


def _sized(factor: float, horizon: int) -> Callable[[Config], Changes]:
    """Other numbers of environments and steps; epochs and minibatches stay as many."""

    def changes(config: Config) -> Changes:
        share = factor * horizon / config.ppo.horizon
        chunks = round(share * config.minibatch_size / config.ppo.chunk)
        return {
            "num_envs": max(1, round(factor * config.num_envs)),
            "bank.size": max(1, round(factor * config.bank.size)),
            "bank.starting": max(1, round(factor * config.bank.starting)),
            "ppo.horizon": horizon,
            "ppo.minibatch_size": max(1, chunks) * config.ppo.chunk,
        }

    return changes


def _minibatches(epochs: float, minibatches: float) -> Callable[[Config], Changes]:
    """Factors of epochs and of minibatches in each; the experience stays the same."""

    def changes(config: Config) -> Changes:
        chunks = round(config.minibatch_size / config.ppo.chunk / minibatches)
        return {
            "ppo.minibatches": max(
                1, round(config.ppo.minibatches * epochs * minibatches)
            ),
            "ppo.minibatch_size": max(1, chunks) * config.ppo.chunk,
        }

    return changes


def _passes(number: int) -> Callable[[Config], Changes]:
    """Over each iteration's experience."""

    def changes(config: Config) -> Changes:
        steps = config.num_envs * config.ppo.horizon
        return {"ppo.minibatches": max(1, number * steps // config.minibatch_size)}

    return changes


def _memory(policy: str, value: str) -> Changes:
    return {
        "randomization.preset": "all",
        "network.policy_memory": policy,
        "network.value_memory": value,
    }


RANDOMIZED = {"all randomizations": {"randomization.preset": "all"}}

# IsaacGymEnvs' weights times its 0.01; its sum over 20 squared actions is 20 means.
SHAPED = {
    "task.reward.progress": 0.0,
    "task.reward.closeness": 0.01,
    "task.reward.distance": -0.1,
    "task.reward.effort": -4e-5,
    "task.reward.success": 2.5,
    "task.reward.drop": -0.5,
    "task.reward.timeout": -0.25,
}
BINS = {"task.action_bins": 11, "ppo.entropy": 0.001}

STUDIES = {
    "randomization": Study(
        "Which randomizations does a policy need in worlds that have them? (Figure 8; "
        "Table 4, with simulated worlds in the robot's place)",
        {name: {"randomization.preset": preset} for preset, name in PRESETS.items()},
        {name: {"randomization.preset": preset} for preset, name in PRESETS.items()},
    ),
    "memory": Study(
        "Does a policy need memory in randomized worlds? (Figure 9, Table 5)",
        {
            "LSTM policy / LSTM value": _memory("lstm", "lstm"),
            "FF policy / LSTM value": _memory("none", "lstm"),
            "FF policy / FF value": _memory("none", "none"),
        },
        RANDOMIZED,
    ),
    "scale": Study(
        "What do larger batches gain, in wall-clock time and experience? (Figure 10)",
        {f"{factor:g} x batch": _scaled(factor) for factor in (1.0, 0.25, 0.5, 2.0)},
        {"as trained": {}},
    ),
    "sizes": Study(
        "Which numbers of environments and steps bring a policy on soonest, in "
        "wall-clock time? (give --minutes)",
        {
            f"{factor:g} x environments, horizon {horizon}": _sized(factor, horizon)
            for horizon in (20, 10)
            for factor in (1, 1 / 8, 1 / 4, 1 / 2, 2, 4)
        }
        | {
            "2 x epochs": _minibatches(epochs=2, minibatches=1),
            "0.5 x epochs": _minibatches(epochs=0.5, minibatches=1),
            "2 x minibatches": _minibatches(epochs=1, minibatches=2),
        },
        {"as trained": {}},
    ),
    "discrete": Study(
        "Do 11 bins learn sooner than any number? (the paper's choice, section 4.1)",
        {
            "11 bins": {"task.action_bins": 11},
            "5 bins": {"task.action_bins": 5},
            "continuous": {"task.action_bins": None},
        },
        {"as trained": {}},
    ),
    "recipe": Study(
        "Which choices reach goals soonest?",
        {
            "base": {},
            "shaped": SHAPED,
            "absolute": {"task.action_targets": "absolute"},
            "bins": BINS,
            "bins_shaped": BINS | SHAPED,
            "bins_absolute": BINS | {"task.action_targets": "absolute"},
            "uniform_goals": {"task.goal.distribution": "uniform"},
            "paper_reward": {"task.reward.drop": -20.0},
            "entropy": {"ppo.entropy": 0.001},
            "kl_high": {"ppo.kl_target": 0.05},
            "kl_low": {"ppo.kl_target": 0.0125},
            "passes4": _passes(4),
            "gamma998": {"ppo.gamma": 0.998},
            "feedforward": {
                "network.policy_memory": "none",
                "network.value_memory": "none",
            },
        },
        {
            "near goals": {"task.goal.distribution": "near"},
            "uniform goals": {"task.goal.distribution": "uniform"},
        },
    ),
}
