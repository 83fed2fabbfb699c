"""Numbers on command lines are of a range, which the help says."""

import argparse

import pytest

from mjx_dex import ablate
from robot_bridge import drill, guard, replay, report, run, sensors, sim_hand
from robot_bridge.arguments import COUNT, POSITIVE, SEED, Number


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (COUNT, "1", 1),
        (COUNT, "1e6", 1_000_000),
        (COUNT, "2.0", 2),
        (SEED, "0", 0),
        (SEED, "4294967295", 2**32 - 1),
        (Number(0, 2**60, is_whole=True), str(2**60 - 1), 2**60 - 1),
        (POSITIVE, "1e-3", 0.001),
        (Number(0), "0", 0.0),
        (Number(0, 1), "1", 1.0),
    ],
)
def test_numbers_in_range(kind, text, value):
    found = kind(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((COUNT, text) for text in ("0", "-1", "1.5", "nan", "inf", "x", "", "1e7")),
        *((SEED, text) for text in ("-1", "4294967296", "0.5", "1e400")),
        *((POSITIVE, text) for text in ("0", "-1", "nan", "inf", "-inf", "x", "1e999")),
        *((Number(0, 1), text) for text in ("1.001", "-0.001", "nan")),
        *((Number(0), text) for text in ("-1", "nan", "inf")),
    ],
)
def test_numbers_out_of_range(kind, text):
    with pytest.raises(argparse.ArgumentTypeError) as found:
        kind(text)
    assert str(found.value) == f"{text!r} is not {kind}"


def test_ranges_read_well():
    assert str(COUNT) == "a whole number, 1 to 1000000"
    assert str(POSITIVE) == "a number above 0"
    assert str(Number(0)) == "a number, 0 or more"
    assert str(Number(0, 1)) == "a number, 0 to 1"
    assert str(Number(0, 10, is_above=True)) == "a number, above 0 to 10"


def parser_of(command, monkeypatch) -> argparse.ArgumentParser:
    """That the command really parses with."""
    parsers = []

    def parse(self, *_):
        parsers.append(self)
        raise SystemExit

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse)
    with pytest.raises(SystemExit):
        command.main([])
    return parsers[0]


@pytest.mark.parametrize(
    ("command", "numbers"),
    [
        (ablate, 5),
        (run, 11),
        (sim_hand, 2),
        (replay, 1),
        (drill, 1),
        (guard, 0),
        (report, 0),
        (sensors, 0),
    ],
)
def test_every_number_of_a_command_has_a_range_that_its_help_states(
    command, numbers, monkeypatch
):
    parser = parser_of(command, monkeypatch)
    assert parser.prog.startswith("python -m ")
    types = [action.type for action in parser._actions]
    assert not {int, float} & {kind for kind in types if isinstance(kind, type)}
    ranged = [action for action in parser._actions if isinstance(action.type, Number)]
    assert len(ranged) == numbers
    text = " ".join(parser.format_help().split())
    for action in ranged:
        shown = action.help % {"type": action.type, "default": action.default}
        assert str(action.type) in shown
        assert " ".join(shown.split()) in text


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (ablate, ["memory", "--budget", "nan"], "--budget: 'nan' is not a whole"),
        (ablate, ["memory", "--budget", "0"], "--budget: '0' is not a whole number"),
        (
            ablate,
            ["memory", "--minutes", "0"],
            "--minutes: '0' is not a number above 0",
        ),
        (ablate, ["memory", "--minutes", "inf"], "--minutes: 'inf' is not a number"),
        (ablate, ["memory", "--seeds", "-1"], "--seeds: '-1' is not a whole number, 1"),
        (ablate, ["memory", "--seeds", "1e9"], "--seeds: '1e9' is not a whole number"),
        (
            ablate,
            ["memory", "--trials", "1.5"],
            "--trials: '1.5' is not a whole number",
        ),
        (ablate, ["memory", "--max-minutes", "nan"], "--max-minutes: 'nan' is not"),
        (run, ["b", "--trials", "0"], "--trials: '0' is not a whole number, 1"),
        (run, ["b", "--force", "1.1"], "--force: '1.1' is not a number, 0 to 1"),
        (run, ["b", "--speed", "0"], "--speed: '0' is not a number above 0"),
        (run, ["b", "--seed", "-1"], "--seed: '-1' is not a whole number, 0 to"),
        (run, ["b", "--rt-priority", "500"], "'500' is not a whole number, 1 to 99"),
        (run, ["b", "--excite", "XX"], "--excite: invalid choice: 'XX'"),
        (sim_hand, ["b", "--socket", "s", "--seed", "x"], "--seed: 'x' is not a whole"),
        (replay, ["r", "--tolerance", "nan"], "--tolerance: 'nan' is not a number, 0"),
        (drill, ["b", "--times", "0"], "--times: '0' is not a whole number, 1 to 1000"),
    ],
)
def test_other_numbers_are_refused_in_the_last_line(
    command, arguments, message, capsys
):
    with pytest.raises(SystemExit) as found:
        command.main(arguments)
    assert found.value.code == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert "Traceback" not in error


def test_whole_numbers_may_be_written_with_an_exponent():
    options, others = ablate._parse(["memory", "--budget", "1e6", "--trials", "1e2"])
    assert (options.budget, options.trials, others) == (1_000_000, 100, [])
    options = run._parser().parse_args(["b", "--trials", "1e1", "--excite"])
    assert options.trials == 10 and options.excite == []


@pytest.mark.parametrize("command", [run, guard])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "'{' is not JSON: "),
        ("[1]", "'[1]' is not a JSON object, such as"),
        ("null", "'null' is not a JSON object"),
        ('{"marker": "/x"}', "'marker' is not one of markers, "),
        ('{"markers": 5}', "markers takes the name of a topic"),
        ('{"markers_type": "x"}', "markers_type takes sensor_msgs/PointCloud or"),
        ('{"marker_ids": 5}', "marker_ids takes eight whole numbers"),
        ('{"marker_ids": [1, 1, 2]}', "marker_ids takes eight whole numbers"),
        ('{"marker_ids": [0, 1, 2, 3, 4, 5, 6, 6]}', "marker_ids takes eight whole"),
        ('{"marker_ids": [[0], 1, 2, 3, 4, 5, 6, 7]}', "marker_ids takes eight whole"),
        ('{"object_age": -1}', "object_age takes seconds, 0 or more"),
        ('{"object_age": NaN}', "object_age takes seconds, 0 or more"),
        ('{"object_age": "x"}', "object_age takes seconds, 0 or more"),
    ],
)
def test_other_options_of_ros_are_refused_in_the_last_line(
    command, text, message, capsys
):
    with pytest.raises(SystemExit):
        command.main(["bundle", "--ros", text])
    error = capsys.readouterr().err
    assert f"argument --ros: {message}" in error.splitlines()[-1]


def test_options_of_ros_are_read():
    text = '{"marker_ids": [8, 1, 2, 3, 4, 5, 6, 7], "object_age": 0.1, "object": "/x"}'
    options = run._parser().parse_args(["b", "--ros", text]).ros
    assert options["marker_ids"][0] == 8 and options["object"] == "/x"
