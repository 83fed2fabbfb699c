"""Results are written whole or not at all; what cannot be is reported first."""

import errno
import os
import resource
import socket
from pathlib import Path

import matplotlib
import pytest

from robot_bridge.files import (
    VIDEOS,
    Output,
    check_outputs,
    picture_formats,
    save_figure,
    write_at_once,
    written_at_once,
)

matplotlib.use("agg")
import matplotlib.pyplot as plt


def refusal(*outputs, inputs=()) -> str:
    with pytest.raises(ValueError) as found:
        check_outputs(*outputs, inputs=inputs)
    assert "\n" not in str(found.value)
    return str(found.value)


def test_a_good_path_gets_its_folder_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "folder" / "x.json"
    check_outputs(Output("--json", path), Output("--plot", None))
    assert list(path.parent.iterdir()) == []


def test_a_result_that_is_there_is_not_touched(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("before")
    os.utime(path, (1, 1))
    check_outputs(Output("--json", path))
    assert path.read_text() == "before" and path.stat().st_mtime == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path):
    (tmp_path / "file").touch()
    assert refusal(Output("--json", tmp_path)) == (
        f"--json {tmp_path}: is there, and is not a file"
    )
    reason = refusal(Output("--out", tmp_path / "file", is_folder=True))
    assert "is not a folder" in reason
    for path in (tmp_path / "file/x.json", tmp_path / "file/y/x.json"):
        reason = refusal(Output("--json", path))
        assert reason.startswith(f"--json {path}: cannot be written: {tmp_path}/file")
        assert "is not a folder" in reason
        assert "cannot be" in refusal(Output("--out", path, is_folder=True))


def test_where_nothing_can_be_written_is_said(tmp_path):
    assert "--json /proc/x.json: cannot" in refusal(
        Output("--json", Path("/proc/x.json"))
    )
    long = tmp_path / (300 * "x")
    assert "File name too long" in refusal(Output("--json", long))


def test_devices_and_sockets_are_not_replaced(tmp_path):
    assert "is not a file" in refusal(Output("--json", Path("/dev/null")))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert "is not a file" in refusal(Output("--json", tmp_path / "socket"))


def test_permissions_are_seen(tmp_path, monkeypatch):
    """Root may do everything: the answer that other users get stands in."""
    path = tmp_path / "x.json"
    path.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert "is write-protected" in refusal(Output("--json", path))


@pytest.mark.parametrize("name", ["x.foo", "x", "x.pgf", "x.json"])
def test_pictures_need_a_format_that_can_be_drawn(tmp_path, name):
    reason = refusal(Output("--plot", tmp_path / name, picture_formats()))
    assert "its name must end in one of" in reason and ".png" in reason


def test_all_formats_that_are_accepted_are_drawn(tmp_path):
    figure, axis = plt.subplots(figsize=(1, 1))
    axis.set_title("text")
    for suffix in picture_formats():
        path = tmp_path / f"x{suffix.upper()}"
        check_outputs(Output("--plot", path, picture_formats()))
        save_figure(figure, path, dpi=20)
        assert path.stat().st_size > 100, suffix
    plt.close(figure)


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # ffmpeg is started
def test_all_formats_of_videos_that_are_accepted_are_written(tmp_path):
    imageio = pytest.importorskip("imageio.v2")
    import numpy as np

    for suffix in VIDEOS:
        with imageio.get_writer(tmp_path / f"x{suffix}", fps=12.5) as writer:
            for _ in range(3):
                writer.append_data(np.zeros((64, 64, 3), np.uint8))
        assert (tmp_path / f"x{suffix}").stat().st_size > 100, suffix


def test_two_results_are_not_one_file(tmp_path):
    path, other = tmp_path / "x", tmp_path / "link"
    other.symlink_to(path)
    for second in (path, tmp_path / "folder" / ".." / "x", other):
        reason = refusal(Output("--json", path), Output("--out", second))
        assert reason == f"--out {second}: is the same file as --json"


def test_what_is_read_is_not_replaced(tmp_path):
    path = tmp_path / "recording.csv"
    path.touch()
    reason = refusal(Output("--out", path), inputs=[path])
    assert reason == f"--out {path}: is the same file as one that is read"


def test_files_of_one_stem_are_written_at_the_same_time(tmp_path):
    with (
        written_at_once(tmp_path / "a.json") as first,
        written_at_once(tmp_path / "a.txt") as second,
        written_at_once(tmp_path / "a.json") as third,
    ):
        paths = (first, second, third)
        for path in paths:
            path.write_text(path.name)
        assert len({path.read_text() for path in paths}) == 3
    assert (tmp_path / "a.json").read_text() == first.name
    assert (tmp_path / "a.txt").read_text() == second.name
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), written_at_once(path) as unfinished:
        unfinished.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_and_the_previous_file_stays(tmp_path):
    """A limit of files' size is met in the middle of the text, as a full disk is."""
    path = tmp_path / "x.json"
    path.write_text("before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError) as found:
            write_at_once(path, 5000 * "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(found.value) == f"cannot write {path}: {os.strerror(errno.EFBIG)}"
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_no_space_for_a_picture_is_one_line(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_text("before")
    figure = plt.figure()

    def fill(where, **_):
        where.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(figure, "savefig", fill)
    with pytest.raises(OSError, match=r"cannot write .*x.png: No space left on device"):
        save_figure(figure, path, dpi=20)
    plt.close(figure)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_written_whole_and_never_over_another(tmp_path):
    path = tmp_path / "x.dex"
    with pytest.raises(OSError, match="cannot write"), written_at_once(path) as other:
        other.mkdir()
        (other / "file").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []
    with written_at_once(path) as unfinished:
        unfinished.mkdir()
        (unfinished / "file").write_text("first")
    with pytest.raises(OSError, match="not empty"), written_at_once(path) as other:
        other.mkdir()
    assert (path / "file").read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "data").mkdir()
    link = tmp_path / "x.json"
    link.symlink_to(tmp_path / "data" / "x.json")
    write_at_once(link, "text")
    assert link.is_symlink() and (tmp_path / "data" / "x.json").read_text() == "text"


def test_permissions_are_those_of_new_files(tmp_path):
    write_at_once(tmp_path / "x", "text")
    (tmp_path / "y").touch()
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode
