"""Every value of every configuration: in its range it works, else one line names it."""

import dataclasses
import importlib
import math
import pkgutil
import typing

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings, strategies

import mjx_dex
from mjx_dex import ranges, trees
from mjx_dex import settings as files
from mjx_dex.calibrate.config import CalibrateConfig
from mjx_dex.config import Config, GoalConfig, PPOConfig, Uniform, replace
from mjx_dex.evaluate import EvaluateCommand
from mjx_dex.ranges import Number, SettingError
from mjx_dex.task import make_env
from mjx_dex.train import TrainCommand, make_trainer
from mjx_dex.vision.config import VisionConfig

ALWAYS = settings(
    deadline=None,
    derandomize=True,  # the same examples in every run
    database=None,
    suppress_health_check=list(HealthCheck),
)

KINDS = (Config, VisionConfig, CalibrateConfig)


def leaves(kind, prefix=""):
    """Types of all values by dotted name."""
    found = {}
    for name, hint in ranges.hints(kind).items():
        nested = dataclasses.is_dataclass(hint)
        found |= leaves(hint, f"{prefix}{name}.") if nested else {prefix + name: hint}
    return found


LEAVES = [(kind, name) for kind in KINDS for name in leaves(kind)]


def commands():
    """Every dataclass of options that a module of mjx_dex defines."""
    for module in pkgutil.walk_packages(mjx_dex.__path__, "mjx_dex."):
        if module.name.endswith(("rendering.warp", "rendering.worker")):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if name.endswith("Command") and dataclasses.is_dataclass(value):
                yield value


def bare_numbers(hint):
    """Whether a type holds a number without a range."""
    if ranges.number_of(hint) is not None:
        return False
    return hint in (int, float) or any(map(bare_numbers, typing.get_args(hint)))


@pytest.mark.parametrize("kind", [*KINDS, *sorted(set(commands()), key=str)])
def test_every_number_has_a_range(kind):
    assert [name for name, hint in leaves(kind).items() if bare_numbers(hint)] == []


# --- values of all sorts ---

ANYTHING = strategies.one_of(
    strategies.none(),
    strategies.booleans(),
    strategies.integers(),
    strategies.floats(),
    strategies.sampled_from([0, -1, 1, 0.0, -0.0, 1e-300, 1e300, 2**40, math.nan]),
    strategies.text("ab1.-e", max_size=4),
    strategies.lists(strategies.floats() | strategies.integers(), max_size=4),
)


def nested(name, value):
    """A configuration file that holds one value."""
    for key in reversed(name.split(".")):
        value = {key: value}
    return value


def value_of(config, name):
    for part in name.split("."):
        config = getattr(config, part)
    return config


def is_line_about(error, name):
    """Whether an error is one line that names a value, or one that belongs to it."""
    line = str(error)
    group = name.rpartition(".")[0]
    return "\n" not in line and (name in line or (group and f"{group}." in line))


@settings(ALWAYS, max_examples=1500)
@given(strategies.sampled_from(LEAVES), ANYTHING)
def test_any_value_in_a_file_is_right_or_named(leaf, value):
    kind, name = leaf
    path = "F"
    text = files.as_yaml(nested(name, value))
    try:
        config = files.parse(files.yaml.load(text, files._Loader), path, kind)
    except files.ConfigError as error:
        assert str(error).startswith("F: ") and is_line_about(error, name), error
    else:
        hint = leaves(kind)[name]
        ranges.checked_value(name, value_of(config, name), hint)  # does not raise


@settings(ALWAYS, max_examples=60)
@given(
    strategies.sampled_from([leaf for leaf in LEAVES if leaf[0] is Config]),
    strategies.one_of(
        strategies.floats().map(repr),
        strategies.integers().map(str),
        strategies.text("ab1.-e", min_size=1, max_size=4),
    ),
)
def test_any_value_of_an_option_is_right_or_named(leaf, text):
    _, name = leaf
    flag = f"--{name.replace('_', '-')}"
    assume(leaves(Config)[name] is not bool)
    try:
        command = files.from_command_line(
            TrainCommand, Config(), [f"{flag}={text}"], "a test"
        )
    except files.ConfigError as error:
        line = str(error)
        assert "\n" not in line and flag.rpartition(".")[0] in line, line
        assert "--" in line
    else:
        ranges.checked_value(name, value_of(command, name), leaves(Config)[name])


@settings(ALWAYS, max_examples=1000)
@given(strategies.sampled_from(LEAVES), ANYTHING)
def test_any_value_in_python_is_right_or_named(leaf, value):
    kind, name = leaf
    config, (*groups, field) = kind(), name.split(".")
    part = value_of(config, ".".join(groups)) if groups else config
    if isinstance(value, list):
        value = tuple(value)
    try:
        changed = dataclasses.replace(part, **{field: value})
    except SettingError as error:
        assert "\n" not in str(error)
        # Or one that it does not fit, such as "angles" for "tolerance".
        assert error.field.split("[")[0].split(".")[0] in dir(part)
    else:
        ranges.checked_value(name, getattr(changed, field), leaves(kind)[name])


# --- values in their ranges ---

SLOW = {
    "physics.substeps": 12,
    "physics.iterations": 50,
    "physics.ls_iterations": 50,
    "physics.threads": 2,
    "num_envs": 64,
    "bank.size": 64,
    "bank.starting": 16,
    "network.hidden": 64,
    "network.memory": 64,
    "ppo.horizon": 64,
}
"""Values above these work as well, and take long."""


def values(name, hint):
    """Values that the type of a field allows, by its ends more often than by chance."""
    number = ranges.number_of(hint)
    if number is not None:
        return numbers(number, SLOW.get(name, number.high))
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if hint is bool:
        return strategies.booleans()
    if origin is typing.Literal:
        return strategies.sampled_from(options)
    if type(None) in options:
        return strategies.none() | values(name, options[0])
    if origin is tuple and options[-1] is not Ellipsis:
        return strategies.tuples(*(values(name, option) for option in options))
    if origin is tuple and typing.get_origin(options[0]) is typing.Literal:
        names = strategies.sampled_from(typing.get_args(options[0]))
        return strategies.lists(names, min_size=1, unique=True).map(tuple)
    return None  # text


def numbers(number: Number, high):
    low, high = max(number.low, -1e6), min(high, 1e6)
    if number.kind is int:
        return strategies.integers(int(low), int(high))
    return strategies.floats(
        *(low, high),
        exclude_min=number.above,
        exclude_max=number.below,
        allow_subnormal=False,
    ) | strategies.sampled_from([x for x in (low, high) if number.is_right(x)])


FIELDS = {
    name: strategy
    for name, hint in leaves(Config).items()
    if name != "engine" and (strategy := values(name, hint)) is not None
}


@pytest.fixture(scope="module")
def key():
    return jax.random.key(0)


def fitting(changes):
    """A configuration with those changes that fit together, one after another."""
    config = replace(Config(), engine="native")
    for name, value in changes.items():
        try:
            config = replace(config, **{name: value})
        except SettingError as error:
            assert "\n" not in str(error)
    return config


def some(names):
    """Values for fields of those names."""
    return strategies.fixed_dictionaries({name: FIELDS[name] for name in names})


CHANGES = strategies.lists(
    strategies.sampled_from(sorted(FIELDS)), min_size=20, max_size=60, unique=True
).flatmap(some)


@settings(ALWAYS, max_examples=15, phases=[Phase.generate])  # each takes seconds
@given(changes=CHANGES)
def test_an_environment_steps_with_any_values_in_their_ranges(key, changes):
    config = fitting(changes)
    try:
        env = make_env(config)
        make_trainer(config, jax.devices()[:1])
    except ValueError as error:
        assert "object_shape makes blocks of prisms" in str(error)
        return
    # Step by step: what differs between examples would be compiled for each of them.
    state = env.begin(key, env.adaptive.init())
    for _ in range(2):
        moved, _ = env.act(state, env.random_action(state))
        state = moved.replace(episode_steps=moved.episode_steps + 1)
    if not trees.is_finite(state.physics):
        return  # it blew up, was not started, and would begin again
    limit = np.float32(env.first_angle_limit)
    state = env.deal(state, key, limit, env.adaptive.init())
    state, _ = env.observe(state)
    state, time_step = env.step(state, env.random_action(state))
    assert trees.is_finite(
        (time_step.observation, time_step.last_observation, time_step.reward)
    )


# --- by hand ---


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Config(num_envs=0), "num_envs is 0; .*from 1 to 10,000,000"),
        (lambda: PPOConfig(gamma=1.5), "gamma is 1.5; .* from 0 to 1"),
        (lambda: PPOConfig(gamma=True), "gamma is True"),
        (lambda: PPOConfig(minibatches=2.5), "minibatches is 2.5; .*whole number"),
        (lambda: GoalConfig(tolerance=math.nan), "tolerance is nan"),
        (lambda: Uniform(2.0, 1.0), r"low \(2\) must not exceed high \(1\)"),
        (lambda: Uniform(0.0, 1.0), "low is 0.0"),
        (lambda: GoalConfig(angles=(1.0, 0.5)), "angles .*smallest first"),
        (
            lambda: GoalConfig(distribution="near", tolerance=0.5),
            r"angles begin at 0.45.*above tolerance \(0.5\)",
        ),
        (
            lambda: replace(Config(), **{"num_envs": 64, "ppo.minibatch_size": 2560}),
            r"ppo.minibatch_size \(2560\) must not exceed the 1280 .*320 would do",
        ),
        (
            lambda: replace(Config(), **{"bank.starting": 300}),
            r"starting \(300\) must not exceed size \(256\)",
        ),
        (
            lambda: replace(Config(), **{"task.policy_inputs": ()}),
            "policy_inputs is empty",
        ),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(make, said):
    with pytest.raises(SettingError, match=said):
        make()


def test_zero_width_is_legal():
    assert Uniform(1.0, 1.0).low == 1.0


def test_numbers_of_numpy_are_numbers():
    ppo = PPOConfig(gamma=np.float32(0.5), minibatches=np.int64(3), clip=1, chunk=1e1)
    values = ppo.gamma, ppo.minibatches, ppo.clip, ppo.chunk
    assert values == (0.5, 3, 1.0, 10)
    assert [type(value) for value in values] == [float, int, float, int]


def test_a_list_stands_for_a_tuple():
    assert GoalConfig(angles=[1, 2]).angles == (1.0, 2.0)


def test_help_shows_ranges(capsys):
    with pytest.raises(SystemExit):
        files.from_command_line(EvaluateCommand, Config(), ["--help"], "a test")
    shown = capsys.readouterr().out
    assert "--ppo.gamma 0<=FLOAT<=1" in shown
    assert "--ppo.horizon 1<=INT" in shown
    assert "--task.goal.tolerance 0<FLOAT<=3.14159" in shown
    assert "--trials 1<=INT<=1,000,000" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--num-envs", "abc"], "--num-envs is 'abc'; it must be a whole number"),
        (["--num-envs", "1" * 400], "--num-envs is 111"),
        (["--num-envs", "2.5"], "--num-envs is 2.5; it must be a whole number"),
        (["--task.goal.angles", "0.1", "9"], "--task.goal.angles[1] is 9; it must"),
        (["--ppo.kl-target", "0"], "--ppo.kl-target is 0; it must be a number above"),
        (["--engine", "cuda"], "--engine is 'cuda'; it must be one of auto, native"),
        (["--num-env", "3"], "--num-env is no option of this command; did you mean"),
        (["--num-envs"], "--num-envs lacks a value: 1<=INT<=10,000,000"),
        (["--ppo.horizon", "15"], "--ppo.horizon (15) must be a multiple of chunk"),
    ],
)
def test_wrong_options_are_one_line(arguments, said):
    with pytest.raises(files.ConfigError) as error:
        files.from_command_line(TrainCommand, Config(), arguments, "a test")
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_options_that_fit_together_alone_are_not_refused_one_by_one():
    arguments = ["--ppo.horizon", "15", "--ppo.chunk", "5", "--num-envs", "1e1"]
    command = files.from_command_line(TrainCommand, Config(), arguments, "a test")
    assert (command.ppo.horizon, command.num_envs) == (15, 10)
