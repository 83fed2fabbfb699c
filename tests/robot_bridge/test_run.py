"""The commands ``run`` and ``replay``, from end to end."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from robot_bridge import bundle as bundles
from robot_bridge import replay, run
from robot_bridge.recording import Recorder, RecordingError, numbers, read

LOCKSTEP = ["--transport", "lockstep", "--seconds", "2", "--goals", "3"]


@pytest.fixture(scope="module")
def recorded(careful_path, tmp_path_factory):
    """A recording of two trials in lockstep, and the figures."""
    folder = tmp_path_factory.mktemp("recorded")
    file, figures = folder / "run.mcap", folder / "run.json"
    arguments = [str(careful_path), *LOCKSTEP, "--trials", "2", "--record", str(file)]
    assert run.main([*arguments, "--json", str(figures)]) == 0
    return file, json.loads(figures.read_text())


def test_trials_are_counted(recorded):
    _, figures = recorded
    assert len(figures["goals"]) == 2
    assert set(figures["ends"]) <= {"out of time", "dropped", "completed"}
    assert "out of time" in figures["ends"]
    assert len(figures["took"]) >= 25


def test_a_trial_out_of_time_took_as_long_as_it_may(recorded):
    file, figures = recorded
    ticks = [
        e for topic, e in read(file) if topic == "tick" and e["state"] == "running"
    ]
    assert len(figures["took"]) == len(ticks)
    times = np.array([tick["now"] for tick in ticks])
    gaps = np.diff(times)
    np.testing.assert_allclose(gaps[gaps < 0.2], 0.08, atol=1e-9)


def test_everything_is_in_the_recording(recorded):
    file, figures = recorded
    entries = list(read(file))
    topics = [topic for topic, _ in entries]
    assert topics[0] == "start"
    assert {"look", "wish", "tick", "event"} <= set(topics)
    wishes = [entry["wish"] for topic, entry in entries if topic == "wish"]
    assert wishes == ["arm", "start", "new trial", "arm", "start", "stop"]
    whys = [e["why"] for topic, e in entries if topic == "event" and e["to"] == "hold"]
    assert whys == figures["ends"]
    tick = next(e for t, e in entries if t == "tick" and e["state"] == "running")
    assert len(tick["observation"]) == 22
    assert np.shape(tick["outputs"]) == (20, 11)
    assert len(tick["command"]["targets"]) == 20
    assert tick["ages"]["joints"] < 0.01


def test_a_replay_gives_the_same_commands_bit_for_bit(recorded, capsys):
    assert replay.main([str(recorded[0])]) == 0
    assert " 0 differ" in capsys.readouterr().out
    assert replay.replay(recorded[0]).ticks == len(recorded[1]["took"])


def test_another_policy_gives_others(recorded, bundle_path, capsys):
    assert replay.main([str(recorded[0]), "--bundle", str(bundle_path)]) == 1
    assert "running was recorded" in capsys.readouterr().out


def test_a_replay_notices_one_changed_reading(recorded, tmp_path):
    recorder = Recorder(tmp_path / "changed.mcap")
    for number, (topic, entry) in enumerate(read(recorded[0])):
        if topic == "look" and number > 200 and "joints" in entry["samples"]:
            entry["samples"]["joints"]["value"][5] += 1e-9
        recorder.put(topic, entry)
    recorder.close()
    found = replay.replay(recorder.path)
    assert found.different > 0
    assert found.largest < 1e-6


def test_a_replay_notices_another_force(recorded, tmp_path):
    recorder = Recorder(tmp_path / "weaker.mcap")
    for topic, entry in read(recorded[0]):
        if topic == "tick" and entry["command"]:
            entry["command"]["force"] *= 0.5
        recorder.put(topic, entry)
    recorder.close()
    assert replay.main([str(recorder.path), "--tolerance", "1"]) == 1


def test_a_recording_of_another_export_is_refused(recorded, careful_path, tmp_path):
    moved = shutil.copytree(careful_path, tmp_path / "other.dex")
    manifest = json.loads((moved / "manifest.json").read_text())
    manifest["training"]["run"] = "another"
    (moved / "manifest.json").write_text(json.dumps(manifest))
    (moved / bundles.SUMS).write_text(bundles.sums_of(moved))
    recorder = Recorder(tmp_path / "moved.mcap")
    for topic, entry in read(recorded[0]):
        recorder.put(
            topic, {**entry, "bundle": str(moved)} if topic == "start" else entry
        )
    recorder.close()
    with pytest.raises(RecordingError, match="made with another export"):
        replay.replay(recorder.path)


def test_a_recording_that_was_cut_off_is_read_as_far_as_it_goes(recorded, tmp_path):
    whole = recorded[0].read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    found = list(read(cut))
    assert 0 < len(found) < len(list(read(recorded[0])))
    assert replay.replay(cut).different == 0


@pytest.mark.parametrize("content", [b"", b"short", b"nonsense" * 100])
def test_what_is_no_recording_is_named(content, tmp_path, capsys):
    (tmp_path / "x.mcap").write_bytes(content)
    assert replay.main([str(tmp_path / "x.mcap")]) == 1
    assert "is no recording" in capsys.readouterr().err


def test_recordings_are_never_overwritten(recorded, careful_path, capsys):
    arguments = [str(careful_path), *LOCKSTEP, "--record", str(recorded[0])]
    assert run.main(arguments) == 1
    assert "is there already" in capsys.readouterr().err


def test_nan_survives_a_recording(tmp_path):
    recorder = Recorder(tmp_path / "nan.mcap")
    recorder.put("look", {"value": np.array([[1.5, np.nan], [np.inf, 1 / 3]])})
    recorder.close()
    ((_, entry),) = read(recorder.path)
    found = numbers(entry["value"])
    np.testing.assert_array_equal(found, [[1.5, np.nan], [np.nan, 1 / 3]])


def test_what_cannot_be_written_is_an_error_not_silence(tmp_path):
    recorder = Recorder(tmp_path / "odd.mcap")
    recorder.put("look", {"value": object()})
    recorder.close()
    assert "cannot write" in recorder.error


def test_figures_are_the_same_for_the_same_seed(careful_path, tmp_path):
    def figures(name, seed):
        file = tmp_path / name
        arguments = [str(careful_path), *LOCKSTEP, "--trials", "1", "--no-record"]
        run.main([*arguments, "--seed", str(seed), "--json", str(file)])
        content = json.loads(file.read_text())
        return content["goals"], content["ends"], len(content["took"])

    assert figures("a", 4) == figures("b", 4)


def test_a_rehearsal_in_real_time(careful_path, tmp_path):
    """As in the README: nothing but a bundle; here of few and short trials."""
    command = [sys.executable, "-m", "robot_bridge.run", str(careful_path)]
    command += ["--trials", "2", "--seconds", "1.5", "--imperfections", "unseen"]
    command += ["--joints-age", "0.3"]  # other tests run on the same cores
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "goals in a row" in done.stdout
    assert "; 0 took longer than 80 ms" in done.stdout
    (file,) = (tmp_path / "runs/bridge").iterdir()
    assert replay.replay(file).different == 0


@pytest.mark.parametrize(
    "flags",
    [
        ["--trials", "0"],
        ["--goals", "0"],
        ["--seconds", "-1"],
        ["--sweep", "0"],
        ["--minutes", "nan"],
    ],
)
def test_numbers_that_make_no_sense_are_refused(flags, careful_path, capsys):
    with pytest.raises(SystemExit):
        run.main([str(careful_path), *LOCKSTEP, *flags])
    assert flags[0] in capsys.readouterr().err


def test_a_slow_policy_is_noticed(careful_path, monkeypatch, capsys):
    """Through the whole loop, in real time."""
    from robot_bridge.policy import Policy

    step, slow = Policy.step, []

    def think(self, carry, observation):
        slow.append(1)
        if len(slow) > 40:
            time.sleep(0.1)
        return step(self, carry, observation)

    monkeypatch.setattr(Policy, "step", think)
    # The bundle's check and the warm-up think, too.
    monkeypatch.setattr("robot_bridge.bundle.compare_golden", lambda b: (0.0, 0))
    arguments = [str(careful_path), "--trials", "1", "--seconds", "20", "--no-record"]
    arguments += ["--joints-age", "0.3"]
    assert run.main(arguments) == 1
    assert "3 ticks in a row were late" in capsys.readouterr().out


def test_a_tampered_bundle_is_refused_in_one_line(careful_path, tmp_path, capsys):
    copy = shutil.copytree(careful_path, tmp_path / "copy.dex")
    (copy / "golden.npz").write_bytes(b"x")
    assert run.main([str(copy), *LOCKSTEP]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "golden.npz is not what was exported" in error


def test_a_hand_that_does_not_answer_is_named(
    careful_path, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(run, "CONNECTING", 0.3)
    socket = tmp_path / "nobody"
    assert run.main([str(careful_path), "--socket", str(socket), "--no-record"]) == 1
    assert f"no simulated hand answers at {socket}" in capsys.readouterr().err


def test_a_left_hand_is_refused(careful_path, tmp_path):
    socket = tmp_path / "left"
    command = [sys.executable, "-m", "robot_bridge.sim_hand", str(careful_path)]
    hand = subprocess.Popen(
        [*command, "--socket", str(socket), "--side", "left"], stdout=subprocess.PIPE
    )
    try:
        hand.stdout.readline()
        command = [sys.executable, "-m", "robot_bridge.run", str(careful_path)]
        done = subprocess.run(
            [*command, "--socket", str(socket), "--no-record"],
            capture_output=True,
            text=True,
        )
    finally:
        hand.terminate()
        hand.communicate(timeout=10)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the policy was trained for a right hand")
