import dataclasses
import json

import pytest

from mjx_dex import settings
from mjx_dex.config import Config, replace
from robot_bridge import policies


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "some.yaml"
        path.write_text(text)
        return path

    return write


def test_a_file_changes_only_what_it_names(write):
    config = settings.load(write("task: {goal: {tolerance: 0.1}}\nnum_envs: 8\n"))
    expected = replace(Config(), **{"task.goal.tolerance": 0.1, "num_envs": 8})
    assert config == expected


def test_numbers_that_yaml_reads_as_text_are_numbers(write):
    assert settings.load(write("ppo: {learning_rate: 3e-4}")).ppo.learning_rate == 3e-4


def test_a_saved_configuration_loads_as_itself(tmp_path):
    config = replace(
        Config(),
        **{
            "ppo.kl_target": 0.016,
            "task.policy_inputs": ("fingertips",),
            "hand.self_collision": False,
        },
    )
    settings.save(config, tmp_path / "config.yaml")
    assert settings.load(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("task: {goal: {tolerence: 0.1}}", "task.goal.tolerence"),
        ("num_envs: many", "num_envs"),
        ("num_envs: true", "num_envs"),
        ("hand: {self_collision: 1}", "hand.self_collision"),
        ("task: {goal: {distribution: far}}", "task.goal.distribution"),
        ("task: {goal: {angles: [0.1]}}", "task.goal.angles"),
        ("ppo: {chunk: 7}", "ppo.horizon"),
        ("ppo: 3", "ppo"),
        ("ppo: {", "YAML"),
    ],
)
def test_a_bad_file_names_itself_and_the_culprit(write, text, culprit):
    path = write(text)
    with pytest.raises(settings.ConfigError) as error:
        settings.load(path)
    assert str(path) in str(error.value)
    assert culprit in str(error.value)


def test_a_misspelt_key_is_told_the_right_one(write):
    with pytest.raises(settings.ConfigError, match=r"did you mean ppo\.gamma"):
        settings.load(write("ppo: {gama: 0.9}"))


def test_a_missing_file_is_told_the_presets():
    with pytest.raises(settings.ConfigError, match="paper, quickstart, single_gpu"):
        settings.load("no_such_preset")


def test_the_command_line_changes_the_base():
    @dataclasses.dataclass(frozen=True)
    class Command(Config):
        extra: int = 1

    base = replace(Config(), num_envs=8)
    command = settings.from_command_line(
        Command, base, ["--task.goal.tolerance", "0.2", "--extra", "3"], "a test"
    )
    assert command.extra == 3
    expected = replace(base, **{"task.goal.tolerance": 0.2})
    assert settings.config_of(command) == expected


def test_differences_name_values_and_survive_a_file(tmp_path):
    changes = {"ppo.gamma": 0.9, "task.goal.angles": (0.1, 0.2), "task.action_bins": 5}
    changed = replace(Config(), **changes)
    settings.save(changed, tmp_path / "changed.yaml")
    assert settings.differences(changed, settings.load(tmp_path / "changed.yaml")) == []
    assert settings.differences(Config(), changed) == [
        "task.goal.angles (0.45, 0.8), not (0.1, 0.2)",
        "task.action_bins 11, not 5",
        "ppo.gamma 0.998, not 0.9",
    ]


def test_paper_preset_is_table_10():
    ppo = settings.load("paper").ppo
    network = settings.load("paper").network
    assert (ppo.gamma, ppo.gae_lambda, ppo.entropy, ppo.clip) == (
        0.998,
        0.95,
        0.01,
        0.2,
    )
    assert (ppo.learning_rate, ppo.kl_target) == (3e-4, None)
    batch = settings.load("paper").num_envs * ppo.horizon
    assert (batch, ppo.chunk) == (800_000, 10)
    assert (ppo.minibatch_size, ppo.minibatches) == (25_600, 60)
    assert (network.hidden, network.memory) == (1024, 512)
    assert settings.load("paper").task == Config().task


def test_keys_of_earlier_versions_are_left_out_and_said(write, caplog):
    path = write("physics: {graph_mode: warp_staged, substeps: 5}")
    with caplog.at_level("INFO", logger="mjx_dex"):
        config = settings.load(path)
    assert config == replace(Config(), **{"physics.substeps": 5})
    (record,) = caplog.records
    assert "physics.graph_mode is not used any more" in record.message
    assert str(path) in record.message


def test_every_retired_key_is_gone():
    for name in settings.RETIRED:
        group, key = name.split(".")
        assert not hasattr(getattr(Config(), group), key)


def test_the_published_bundle_still_loads():
    manifest = json.loads((policies.find("near.dex") / "manifest.json").read_text())
    values = manifest["training"]["config"]
    assert values["physics"]["graph_mode"] == "warp_staged"
    config = settings.parse(values, "the bundle's manifest")
    assert config.physics.substeps == values["physics"]["substeps"]
