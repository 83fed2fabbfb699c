import json
import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest
from PIL import Image
from test_train import TINY

from mjx_dex import grasps, train
from mjx_dex.grasps import Touch, classify
from mjx_dex.hand.names import FINGERS

FF, MF, RF, LF, TH = range(5)
FAR = 10.0


def touch(distal=(), proximal=(), palm=False, wrist=False, ends=()):
    phalanges = np.zeros((5, 3), bool)
    phalanges[list(distal), 2] = True
    phalanges[list(proximal), 0] = True
    at_end = np.zeros(5, bool)
    at_end[list(ends)] = True
    return Touch(phalanges, at_end, palm, wrist)


@pytest.mark.parametrize(
    "what, name",
    [
        (touch(distal=[TH, FF], ends=[TH, FF]), "tip pinch"),
        (touch(distal=[TH, LF], ends=[TH]), "palmar pinch"),
        (touch(distal=[TH, FF, MF], ends=[TH, FF, MF]), "tripod"),
        (touch(distal=[TH, FF, MF, LF]), "quadpod"),
        (touch(distal=[TH, FF, MF, RF, LF]), "5-finger precision"),
        (touch(distal=[TH, FF], palm=True), "power"),
        (touch(distal=[TH], proximal=[RF], palm=True), "power"),
        (touch(distal=[FF, MF, RF, LF], palm=True), "unopposed"),
        (touch(distal=[TH], palm=True), "unopposed"),
        (touch(palm=True), "unopposed"),
        (touch(wrist=True), "unopposed"),
        (touch(), "in the air"),
    ],
)
def test_grasps_are_told_by_what_touches(what, name):
    assert classify(what) == name
    assert name in grasps.GRASPS


@pytest.fixture(scope="module")
def observer(hand):
    return grasps.Observer(hand.model)


def placed(hand, body, offset):
    """``qpos`` with the block at an offset [m] in the frame of a body's capsule."""
    model, data = hand.model, mujoco.MjData(hand.model)
    data.qpos[:] = model.qpos0
    mujoco.mj_forward(model, data)
    geom = model.geom(f"robot0:C_{body}").id
    rotation = data.geom_xmat[geom].reshape(3, 3)
    data.qpos[-7:-4] = data.geom_xpos[geom] + rotation @ offset
    mujoco.mju_mat2Quat(data.qpos[-4:], data.geom_xmat[geom])
    return data.qpos.copy()


@pytest.mark.parametrize("finger", range(5))
def test_a_block_beyond_a_finger_touches_its_end(observer, hand, finger):
    """Half the block, half the capsule and its radius away, less 1 mm."""
    model = hand.model
    name = f"{FINGERS[finger].lower()}distal"
    radius, half = model.geom(f"robot0:C_{name}").size[:2]
    block = model.geom("object0").size[0]
    away = np.array([0.0, 0.0, half + radius + block])
    found = observer.touch(placed(hand, name, away - np.array([0, 0, 0.001])))
    assert found.phalanges[finger].tolist() == [False, False, True]
    assert found.ends[finger] and not found.palm
    found = observer.touch(placed(hand, name, away + np.array([0, 0, 0.001])))
    assert not found.phalanges[finger].any()


@pytest.mark.parametrize("reach", [None, 0.004])
def test_a_block_on_a_finger_touches_its_pad_and_not_its_end(observer, hand, reach):
    """All along it, or beyond 4 mm from the phalanx's middle."""
    radius = hand.model.geom("robot0:C_ffdistal").size[0]
    block = hand.model.geom("object0").size[0]
    along = 0.0 if reach is None else block + reach
    away = np.array([0.0, -(radius + block - 0.001), along])
    found = observer.touch(placed(hand, "ffdistal", away))
    assert found.phalanges[FF, 2] and not found.ends[FF]


def test_a_block_in_the_palm_touches_it(observer, hand):
    qpos = placed(hand, "ffdistal", np.array([0.0, 0.0, FAR]))
    assert not observer.touch(qpos).palm
    data = mujoco.MjData(hand.model)
    data.qpos[:] = qpos
    mujoco.mj_forward(hand.model, data)
    qpos[-7:-4] = data.geom("robot0:C_palm0").xpos
    found = observer.touch(qpos)
    assert found.palm and classify(found) in ("power", "unopposed")


@pytest.mark.parametrize("name", ["wrist", "forearm"])
def test_a_block_on_wrist_or_forearm_is_not_in_the_air(observer, hand, name):
    model, data = hand.model, mujoco.MjData(hand.model)
    data.qpos[:] = model.qpos0
    mujoco.mj_forward(model, data)
    body = model.body(f"robot0:{name}").id
    (geom,) = np.flatnonzero((model.geom_bodyid == body) & (model.geom_contype > 0))
    data.qpos[-7:-4] = data.geom_xpos[geom]
    found = observer.touch(data.qpos)
    assert found.wrist and classify(found) != "in the air"


def test_shares_are_of_states_and_of_touching_phalanges():
    seen = [touch(distal=[TH, FF]), touch(palm=True), touch(proximal=[FF]), touch()]
    figures = grasps.count(seen)
    assert figures["grasps"]["palmar pinch"] == 0.25
    assert figures["grasps"]["unopposed"] == 0.5
    assert sum(figures["grasps"].values()) == pytest.approx(1.0)
    assert figures["digits"]["FF"] == 0.5 and figures["digits"]["TH"] == 0.25
    assert figures["palm"] == 0.25
    assert figures["phalanges"]["distal"] == pytest.approx(2 / 3)


def test_a_run_is_looked_at_and_drawn(tmp_path, capsys):
    """In a process of its own: MuJoCo picks its renderer at import."""
    folder, saved = tmp_path / "run", tmp_path / "grasps.json"
    assert train.main([*TINY, "--run-dir", str(folder), "--max-env-steps", "16"]) == 0
    options = ["--worlds", "4", "--minutes", "0.02", "--json", str(saved)]
    options += ["--plot", str(tmp_path / "new" / "page.png")]
    done = subprocess.run(
        [sys.executable, "-m", "mjx_dex.grasps", folder, *options],
        env=os.environ | {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "osmesa"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (
        "drawing needs OSMesa (Debian: apt-get install libosmesa6)\n" + done.stderr
    )
    randomized = [str(folder), "--randomization.on", "object_size"]
    assert grasps.main(randomized) == 1
    assert "--randomization: object_size gives" in capsys.readouterr().err
    figures = json.loads(saved.read_text())
    # 15 control steps, of which every fifth is looked at, in 4 worlds.
    assert figures["states"] == 12 and "(12 states)" in done.stdout
    assert figures["palm"] + sum(figures["digits"].values()) > 0
    seen = [share > 0 for share in figures["grasps"].values()]
    assert seen == [is_drawn(panel) for panel in panels(tmp_path / "new" / "page.png")]


def panels(path):
    """The eight parts of a page, [height, width] of how bright."""
    page = np.asarray(Image.open(path).convert("L"))
    return [p for row in np.array_split(page, 2) for p in np.array_split(row, 4, 1)]


def is_drawn(panel):
    return (panel < 250).mean() > 0.3
