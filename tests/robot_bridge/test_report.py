"""A run on one page."""

import numpy as np
import pytest
from PIL import Image

from robot_bridge import report, run
from robot_bridge.recording import Recorder


@pytest.fixture(scope="module")
def recording(careful_path, tmp_path_factory):
    file = tmp_path_factory.mktemp("report") / "run.mcap"
    arguments = ["--transport", "lockstep", "--seconds", "2", "--trials", "2"]
    run.main([str(careful_path), *arguments, "--record", str(file)])
    return file


def test_a_page_is_drawn_beside_the_recording(recording, capsys):
    assert report.main([str(recording)]) == 0
    picture = recording.with_suffix(".png")
    assert f"drawn to {picture}" in capsys.readouterr().out
    pixels = np.asarray(Image.open(picture).convert("L"))
    assert min(pixels.shape) > 800
    assert 0.01 < (pixels < 200).mean() < 0.5


def test_a_recording_without_ticks_is_named(tmp_path, capsys):
    recorder = Recorder(tmp_path / "empty.mcap")
    recorder.put("start", {})
    recorder.close()
    assert report.main([str(recorder.path)]) == 1
    assert "the bridge never ran" in capsys.readouterr().err
