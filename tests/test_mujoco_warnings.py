"""MuJoCo's warnings: counted, said once, and in no file of the current folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mjx_dex
from mjx_dex import mujoco_warnings, report

ROOT = Path(mjx_dex.__file__).parents[1]

NAMES = ("env_steps", "goals_per_episode", "kl", "broken_worlds", "lost_contacts")
ROW = dict.fromkeys(NAMES, 0)

BLOW_UP = """
import sys, mujoco, numpy as np
from mujoco.batch import Batch
from mjx_dex import mujoco_warnings, startup
startup.set_up()
model = mujoco.MjModel.from_xml_string(
    '<mujoco><option><flag autoreset="disable"/></option><worldbody><body>'
    '<freejoint/><geom size=".1" mass="1"/></body></worldbody></mujoco>'
)
batch = Batch(model, nsim=256, nthread=4)
position, velocity = batch.bind("qpos"), batch.bind("qvel")
for _ in range(3):
    batch.warning[:] = 0
    position[:], velocity[:] = model.qpos0, np.nan
    batch.step()
if "save" in sys.argv:
    from pathlib import Path
    mujoco_warnings.save(Path("run"))
else:
    mujoco_warnings.report()
"""


def blow_up(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-c", BLOW_UP, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


def test_each_kind_is_said_once_and_all_are_counted(tmp_path):
    done = blow_up(tmp_path)
    first = [x for x in done.stderr.splitlines() if x.startswith("MuJoCo warns")]
    counted = [x for x in done.stderr.splitlines() if x.startswith("768 x MuJoCo: ")]
    # 256 environments, 3 steps: QVEL before and QACC after it.
    assert len(first) == len(counted) == 2
    assert len(done.stderr.splitlines()) == 4
    assert not list(tmp_path.iterdir()), "MUJOCO_LOG.TXT"


def test_a_runs_file_counts_over_its_sessions(tmp_path):
    (tmp_path / "run").mkdir()
    for sessions in (1, 2):
        blow_up(tmp_path, "save")
        counts = json.loads((tmp_path / "run" / mujoco_warnings.FILE).read_text())
        assert len(counts) == 2 and set(counts.values()) == {768 * sessions}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.fixture(autouse=True)
def nothing_counted():
    mujoco_warnings.take()
    yield
    mujoco_warnings.take()


def test_training_writes_the_file_as_it_goes_and_at_its_end(tmp_path):
    with report.RunLog(tmp_path, 0, 0, 100) as run_log:
        assert not (tmp_path / mujoco_warnings.FILE).exists()
        mujoco_warnings.count("contact buffer full: 10 of 8")
        run_log.write(1, ROW, None)
        assert mujoco_warnings.read(tmp_path).total() == 1
        mujoco_warnings.count("contact buffer full: 12 of 8")
    assert mujoco_warnings.read(tmp_path) == {"contact buffer full: N of N": 2}


def test_numbers_make_no_new_kind():
    messages = ("Time = 0.1180. DOF 3", "Time = -1.2e-05. DOF 11")
    assert {mujoco_warnings.kind_of(text) for text in messages} == {"Time = N. DOF N"}


def test_a_damaged_file_is_begun_anew(tmp_path):
    (tmp_path / mujoco_warnings.FILE).write_text("{")
    mujoco_warnings.count("something")
    mujoco_warnings.save(tmp_path)
    assert mujoco_warnings.read(tmp_path) == {"something": 1}


def test_saving_nothing_writes_nothing(tmp_path):
    mujoco_warnings.save(tmp_path)
    assert not list(tmp_path.iterdir())
