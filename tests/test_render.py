"""Draws with OSMesa, in a process of its own: MuJoCo picks its renderer at import."""

import os
import subprocess
import sys

import numpy as np
from PIL import Image

SCRIPT = """
import sys
import mujoco
from PIL import Image
from mjx_dex.config import Config
from mjx_dex.hand import build_hand

config = Config()
model = build_hand(config.hand, config.object, config.physics, visuals=True).model
data = mujoco.MjData(model)
data.ctrl[:] = model.actuator_ctrlrange.mean(1)
mujoco.mj_step(model, data, nstep=200)
with mujoco.Renderer(model, 240, 320) as renderer:
    renderer.update_scene(data, "overview")
    Image.fromarray(renderer.render()).save(sys.argv[1])
    renderer.enable_segmentation_rendering()
    renderer.update_scene(data, "overview")
    ids = renderer.render()[..., 0]
    Image.fromarray((ids + 1).astype("uint8")).save(sys.argv[2])
print(model.geom("object0").id, model.geom("robot0:V_palm").id)
"""


def test_hand_and_block_are_seen(tmp_path):
    picture, segments = tmp_path / "picture.png", tmp_path / "segments.png"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, picture, segments],
        env=os.environ | {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "osmesa"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (
        "drawing needs OSMesa (Debian: apt-get install libosmesa6)\n" + done.stderr
    )
    block, palm = map(int, done.stdout.split())
    ids = np.asarray(Image.open(segments)).astype(int) - 1
    assert (ids == block).mean() > 0.01
    assert (ids == palm).mean() > 0.005
    assert np.asarray(Image.open(picture)).std() > 20
