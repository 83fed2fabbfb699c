import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime

import numpy as np
import pytest
from test_train import TINY, rows

from mjx_dex import ablate, lineage, runs, settings
from mjx_dex.config import Config, replace
from mjx_dex.studies import STUDIES
from mjx_dex.train import TrainCommand

QUICK = ["--trials", "2", "--test-options", "--task.goal.seconds 0.16"]
VARIANTS = {
    "memory": "FF policy / LSTM value",
    "scale": "0.5 x batch",
    "discrete": "continuous",
    "sizes": "0.5 x environments, horizon 10",
}


TINY_CONFIG = settings.config_of(
    settings.from_command_line(
        TrainCommand, settings.load("quickstart"), TINY, description=None
    )
)


def call(folder, study, *options):
    return ablate.main([study, "--folder", str(folder), *QUICK, *options])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.mark.parametrize("study", VARIANTS)
def test_a_study_runs_from_end_to_end(study, folder, capsys):
    """One variant of each, two iterations, tested in all of the study's worlds.

    The study of randomizations, whose worlds take long to compile, is in notebook 2.
    """
    variant = VARIANTS[study]
    options = ["--variants", variant, "--budget", "32", *TINY]
    assert call(folder, study, *options) == 0
    run = folder / study / ablate.slug(variant) / "seed_0"
    changes = STUDIES[study].variants[variant]
    config, base = runs.load_config(run), TINY_CONFIG
    changes = changes(base) if callable(changes) else changes
    assert replace(config, **changes) == config
    assert 32 <= rows(run)[-1]["env_steps"] <= 40
    table = (folder / study / "table.md").read_text()
    assert table.strip() in capsys.readouterr().out
    (line,) = [x for x in table.splitlines() if x.startswith(f"| {variant} | 1 |")]
    for test in STUDIES[study].tests:
        result = json.loads((run / f"evaluation_{ablate.slug(test)}.json").read_text())
        (native,) = result["engines"]
        assert f"{native['mean']:.2f} ± {native['standard_error']:.2f}" in line
    assert "All: goals near 0.45-0.8 rad, tolerance 0.4 rad, limit 0.16 s" in table
    assert (folder / study / "study.png").stat().st_size > 10_000


def test_what_is_finished_is_not_done_again(folder, monkeypatch):
    """After the test above; with a larger budget the run goes on."""
    calls = []
    monkeypatch.setattr(ablate, "_call", lambda *command: calls.append(command))
    options = ["--variants", VARIANTS["discrete"], *TINY]
    assert call(folder, "discrete", *options, "--budget", "32") == 0
    assert calls == []
    # What asks for something else is asked again.
    assert call(folder, "discrete", *options, "--budget", "32", "--trials", "3") == 0
    (command,) = calls
    assert command[0] == "mjx_dex.evaluate" and "3" in command
    calls.clear()
    assert call(folder, "discrete", *options, "--budget", "64") == 0
    (command,) = calls
    assert command[:2] == ("mjx_dex.train", "--resume")
    assert "64" in command and "--num-envs" not in command


def is_untested(table):
    """Whether a table's only run has no goals: | variant | 1 | steps | ... | - |."""
    (row,) = [line for line in table.splitlines() if "| 1 | 0.00 | " in line]
    return row.endswith("| - |")


def test_results_of_an_earlier_checkpoint_are_not_in_the_table(folder, monkeypatch):
    """A run that went on, and was interrupted before it was tested again."""
    variant = VARIANTS["discrete"]
    run = ablate.Run(variant, 0, {}, folder / "discrete" / variant / "seed_0")
    options, _ = ablate._parse(["discrete", *QUICK])
    assert not is_untested(ablate.write_table([run], options, folder))
    monkeypatch.setattr(ablate, "trained", lambda _: 48)
    assert is_untested(ablate.write_table([run], options, folder))


@pytest.mark.parametrize("other", ["--seed 5", "--object.size 0.06", "--most-likely"])
def test_results_of_another_question_are_not_in_the_table(folder, other):
    variant = VARIANTS["discrete"]
    run = ablate.Run(variant, 0, {}, folder / "discrete" / variant / "seed_0")
    question = QUICK[-1]
    for asked, is_answered in [(question, True), (f"{question} {other}", False)]:
        options, _ = ablate._parse(["discrete", *QUICK[:-2], f"--test-options={asked}"])
        table = ablate.write_table([run], options, folder)
        assert is_untested(table) != is_answered


def test_a_study_without_trials_has_no_tests_to_check():
    options, _ = ablate._parse(["sizes", "--trials", "0"])
    ablate._check_tests(options, Config())


def test_wrong_test_options_are_told_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablate, "_call", lambda *command: pytest.fail("it trained"))
    options = ["recipe", "--folder", str(tmp_path)]
    assert ablate.main([*options, "--test-options=--task.goal.second 8"]) == 1
    said = capsys.readouterr().err
    assert "--test-options: --task.goal.second is no option" in said
    assert "did you mean --task.goal.seconds?" in said
    assert ablate.main([*options, "--test-options=--trials 3"]) == 1
    assert "--test-options: --trials is set by the study" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", ["--run-dir=x", "--max-env-steps", "--resume", "--from-run"]
)
def test_options_that_a_study_decides_are_refused(
    tmp_path, option, monkeypatch, capsys
):
    monkeypatch.setattr(ablate, "_call", lambda *_: pytest.fail("it began to train"))
    assert call(tmp_path, "memory", option, "5") == 1
    assert f"error: {option.partition('=')[0]}: " in capsys.readouterr().err


def test_variants_that_change_nothing_are_left_out(tmp_path, capsys):
    """Of ``paper``, whose goals are uniform and whose drops cost 20."""
    options, _ = ablate._parse(
        ["recipe", "--variants", "base", "uniform_goals", "bins"]
    )
    found = ablate._runs(options, settings.load("paper"), tmp_path)
    assert [run.variant for run in found] == ["base", "bins"]
    assert "uniform_goals is the same as base here" in capsys.readouterr().out


def test_ctrl_c_lets_a_command_end(tmp_path):
    """One that takes a second to save."""
    saves = tmp_path / "slow.py"
    saves.write_text(
        "import pathlib, signal, time\n"
        "asked = []\n"
        "signal.signal(signal.SIGINT, lambda *_: asked.append(1))\n"
        "pathlib.Path('ready').touch()\n"
        "while not asked: time.sleep(0.05)\n"
        "time.sleep(1)\n"
        "pathlib.Path('saved').touch()\n"
    )
    # Where tests run in the background, Ctrl-C is ignored by all that they start.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    call = "from mjx_dex import ablate; ablate._call('slow')"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{listen}; {call}"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) != 0
    assert (tmp_path / "saved").exists()


def test_a_failing_run_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def fail_first(*command):
        calls.append(command)
        if len(calls) == 1:
            raise subprocess.CalledProcessError(1, ["python", "-m", *command])

    calls = []
    monkeypatch.setattr(ablate, "_call", fail_first)
    assert call(tmp_path, "memory") == 1
    tried = [command for command in calls if command[0] == "mjx_dex.train"]
    # The second one did nothing, which looks like Ctrl-C.
    assert len(tried) == 2
    assert "this failed: python -m mjx_dex.train" in capsys.readouterr().err


def test_other_options_are_refused(tmp_path, capsys):
    run = tmp_path / "discrete" / "continuous" / "seed_0"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    settings.save(settings.load("quickstart"), tmp_path / "discrete" / "config.yaml")
    assert call(tmp_path, "discrete", "--ppo.gamma", "0.9") == 1
    error = capsys.readouterr().err.strip()
    assert "runs of another configuration (ppo.gamma 0.99, not 0.9)" in error
    assert "--folder" in error


def test_an_unknown_variant_is_named(tmp_path, capsys):
    assert call(tmp_path, "memory", "--variants", "GRU") == 1
    assert "--variants: GRU is none of LSTM policy" in capsys.readouterr().err


def test_no_time_begins_nothing_and_says_how_to_go_on(tmp_path, capsys):
    assert call(tmp_path, "memory", "--max-minutes", "0") == 0
    said = capsys.readouterr().out
    assert "not finished; the same command goes on" in said
    assert "| LSTM policy / LSTM value | 0 | 0.00 | 0.0 | - | - |" in said


@pytest.mark.parametrize("study", STUDIES)
def test_changes_say_the_same_on_the_command_line(study):
    """Of every variant and every test."""
    base = settings.load("quickstart")
    for changes in (*STUDIES[study].variants.values(), *STUDIES[study].tests.values()):
        changes = changes(base) if callable(changes) else changes
        command = settings.from_command_line(
            TrainCommand, base, ablate.flags(changes), description=None
        )
        assert settings.config_of(command) == replace(base, **changes)


def test_variants_differ_from_the_baseline_in_what_they_name():
    base = settings.load("quickstart")
    for study in STUDIES.values():
        configs = [
            replace(base, **(changes(base) if callable(changes) else changes))
            for changes in study.variants.values()
        ]
        assert len({repr(config) for config in configs}) == len(configs)


def test_what_tests_ask_for_is_said_once_where_it_is_the_same():
    one, two = {"cap": 50, "goals": "near"}, {"cap": 50, "goals": "uniform"}
    said = ablate._describe({"one": one, "two": two})
    assert said == ["All: cap 50.", "one: goals near.", "two: goals uniform."]


def test_batch_grows_in_proportion():
    base = Config()
    changes = STUDIES["scale"].variants["2 x batch"](base)
    double = replace(base, **changes)
    assert double.num_envs == 2 * base.num_envs
    assert double.minibatch_size == 2 * base.minibatch_size == 5120
    assert double.bank.size == 2 * base.bank.size


def test_errors_are_over_trials_for_one_run_and_over_runs_for_more():
    one = {"mean": 3.0, "standard_error": 0.5, "goals": [1, 5]}
    two = {"mean": 5.0, "standard_error": 0.1, "goals": [4, 6]}
    assert ablate.cell([one]) == "3.00 ± 0.50 (3)"
    # Deviation of 3 and 5 is sqrt(2); over sqrt(2) runs.
    assert ablate.cell([one, two]) == "4.00 ± 1.00 (4.5)"


def test_the_90_percent_band_of_a_moving_average():
    """Of independent normal numbers it holds their mean about so often; by hand, the
    average of the first three."""
    mean, error = ablate.moving_average(np.array([0, 1.0, 2.0, 6.0]), np.arange(4) > 0)
    np.testing.assert_allclose(mean, [np.nan, 1.0, 1.5, 3.0])
    np.testing.assert_allclose(error[2], 1.645 * 0.5 / np.sqrt(2))
    mean, _ = ablate.moving_average(np.array([1.0, 4.0]), np.array([2, 1]))
    assert mean[1] == pytest.approx(2.0)
    values = np.random.default_rng(0).normal(7.0, 1.0, 20_000)
    mean, error = ablate.moving_average(values, np.ones_like(values))
    apart = slice(ablate.WINDOW, None, ablate.WINDOW)  # windows that share nothing
    held = np.mean(np.abs(mean - 7.0)[apart] < error[apart])
    assert held == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 1000) + 0.02)


def test_minutes_are_counted_from_the_start_of_each_process(tmp_path):
    """A run of two: 90 s from its start to its last row, then 60 s."""
    run = ablate.Run("base", 0, {}, tmp_path)
    assert ablate.minutes(run) == 0.0
    began = [1_000_000.0, 2_000_000.0]
    sessions = tuple(
        lineage.Session(
            run="x",
            began=datetime.fromtimestamp(second).isoformat(),
            iteration=iteration,
            env_steps=0,
            engine="native",
            device="cpu",
            machine="m",
            num_envs=1,
            horizon=1,
            commit=None,
        )
        for second, iteration in zip(began, (0, 2), strict=True)
    )
    lineage.write(tmp_path, lineage.Lineage(here=sessions))
    times = [began[0] + 40, began[0] + 90, began[1] + 60]
    lines = [{"iteration": k + 1, "time": t} for k, t in enumerate(times)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    assert ablate.minutes(run) == pytest.approx(150 / 60)


def test_a_run_of_some_minutes_is_done_after_them(tmp_path, monkeypatch):
    run = ablate.Run("base", 0, {}, tmp_path)
    options, _ = ablate._parse(["sizes", "--minutes", "3"])
    monkeypatch.setattr(ablate, "trained", lambda _: 100)
    for spent, done in ((2.0, False), (3.01, True)):
        monkeypatch.setattr(ablate, "minutes", lambda _, spent=spent: spent)
        assert ablate._is_trained(run, options) == done
