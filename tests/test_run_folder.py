"""Folders of runs, as processes leave them that die at any moment."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mjx_dex import run_folder

DEATHS = (
    "before the folder is marked",
    "marked",
    "saving",
    "saved",
    "lineage written",
    "configuration written",
    "begun",
)
"""Moments of a start, after which a process is killed."""


def start(path, death=None):
    """What a run writes at its start, in the order in which ``train`` does.

    Args:
        path: the run's folder.
        death: of ``DEATHS``; this process ends there, and cleans nothing up.
    """

    def reached(moment):
        if moment == death:
            os._exit(9)

    if death == DEATHS[0]:
        path.mkdir(exist_ok=True)
        os._exit(9)
    with run_folder.begin(path, path.parent) as folder:
        reached("marked")
        unfinished = folder.path / "checkpoints/0.orbax-checkpoint-tmp"
        unfinished.mkdir(parents=True)
        (unfinished / "data").write_text("half")
        reached("saving")
        unfinished.rename(folder.path / "checkpoints/0")
        reached("saved")
        (folder.path / "lineage.json").write_text("{}")
        reached("lineage written")
        (folder.path / "config.yaml").write_text("seed: 1")
        reached("configuration written")
        folder.begun()
        reached("begun")


def race(path):
    """Begin at a signal; the folder is in use until all others have tried."""
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        with run_folder.begin(path, path.parent):
            print("begun", flush=True)
            sys.stdin.readline()
    except ValueError:
        print("refused", flush=True)


def occupy(path):
    with run_folder.begin(path, path.parent) as folder:
        (path / "checkpoints/0").mkdir(parents=True)
        (path / "config.yaml").touch()
        folder.begun()
        print("holds", flush=True)
        sys.stdin.readline()


def in_process(function, *arguments):
    """Another process that calls a function of this file; a context that ends it."""
    command = [sys.executable, __file__, function.__name__, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("again", [1, 2])
def test_a_start_may_be_killed_at_any_moment(tmp_path, death, again):
    """A script that resumes where there is a configuration is right every time."""
    path = tmp_path / "run"
    for _ in range(again):
        if not (path / "config.yaml").exists():
            with in_process(start, path, death) as child:
                assert child.wait() == 9
    if (path / "config.yaml").exists():
        with run_folder.resume(path) as folder:
            assert not folder.is_new
    else:
        start(path)
    assert sorted(x.name for x in path.iterdir()) == [
        *("checkpoints", "config.yaml", "lineage.json")
    ]
    assert [x.name for x in (path / "checkpoints").iterdir()] == ["0"]


def test_a_failed_start_leaves_nothing(tmp_path):
    path = tmp_path / "runs/new/run"
    with (
        pytest.raises(ValueError, match="wrong"),
        run_folder.begin(path, tmp_path) as folder,
    ):
        (folder.path / "checkpoints/0").mkdir(parents=True)
        (folder.path / "lineage.json").touch()
        raise ValueError("wrong")
    assert not list(tmp_path.iterdir())


def test_a_failed_start_leaves_what_was_there(tmp_path):
    (tmp_path / "slurm.out").touch()
    with pytest.raises(KeyboardInterrupt), run_folder.begin(tmp_path, tmp_path):
        raise KeyboardInterrupt
    assert [x.name for x in tmp_path.iterdir()] == ["slurm.out"]


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(tmp_path):
    with contextlib.ExitStack() as stack:
        folders = [
            stack.enter_context(run_folder.begin(None, tmp_path / "runs"))
            for _ in range(3)
        ]
        assert len({folder.path for folder in folders}) == 3
        for folder in folders:
            assert folder.path.is_dir() and folder.path.parent == tmp_path / "runs"


def test_a_run_has_one_process_until_that_dies(tmp_path):
    path = tmp_path / "run"
    with in_process(occupy, path) as owner:
        assert owner.stdout.readline() == "holds\n"
        for claim in (
            run_folder.resume(path),
            run_folder.begin(path, tmp_path),
        ):
            with pytest.raises(ValueError, match=rf"in use: process {owner.pid} on"):
                claim.__enter__()
        owner.kill()
    with run_folder.resume(path):
        pass
    assert not (path / "lock").exists()


def test_of_many_that_begin_at_once_one_does(tmp_path):
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(in_process(race, tmp_path / "run")) for _ in range(5)
        ]
        assert {child.stdout.readline() for child in children} == {"ready\n"}
        for child in children:
            child.stdin.write("\n")
            child.stdin.flush()
        said = sorted(child.stdout.readline() for child in children)
        assert said == ["begun\n", *["refused\n"] * 4]


def test_a_resumed_run_clears_what_a_killed_save_left(tmp_path):
    start(tmp_path / "run")
    unfinished = tmp_path / "run/checkpoints/7.orbax-checkpoint-tmp"
    (unfinished / "learned").mkdir(parents=True)
    with run_folder.resume(tmp_path / "run"):
        assert not unfinished.exists()
    assert (tmp_path / "run/checkpoints/0").exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (("manifest.json",), "is a bundle; give another folder"),
        (("config.yaml", "checkpoints/3/x"), "holds a run already; add --resume"),
        (("config.yaml", "checkpoints/3.tmp/x"), "delete .*config.yaml to begin anew"),
        (("checkpoints/3/x",), "checkpoints holds checkpoints of a run without"),
    ],
)
def test_a_folder_with_something_else_is_refused(tmp_path, content, named):
    for name in content:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    before = sorted(tmp_path.rglob("*"))
    with (
        pytest.raises(ValueError, match=named),
        run_folder.begin(tmp_path, tmp_path),
    ):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_checkpoints_that_are_not_complete_are_no_run(tmp_path):
    (tmp_path / "checkpoints/0.orbax-checkpoint-tmp").mkdir(parents=True)
    start(tmp_path)
    assert [x.name for x in (tmp_path / "checkpoints").iterdir()] == ["0"]


def test_a_run_without_a_complete_checkpoint_says_what_to_delete(tmp_path):
    (tmp_path / "config.yaml").touch()
    with (
        pytest.raises(ValueError, match=r"--resume: .*delete .*config\.yaml"),
        run_folder.resume(tmp_path),
    ):
        pass


if __name__ == "__main__":
    name, path, *death = sys.argv[1:]
    {"start": start, "race": race, "occupy": occupy}[name](Path(path), *death)
