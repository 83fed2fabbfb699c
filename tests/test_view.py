"""The browser viewer in a real browser, and the video."""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import imageio_ffmpeg
import mujoco
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from test_train import TINY

from mjx_dex import runs, train, view
from mjx_dex.config import ObjectConfig, Uniform, replace
from mjx_dex.hand import build_hand

DRAWN = {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "osmesa"}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert train.main([*TINY, "--run-dir", str(folder), "--max-env-steps", "16"]) == 0
    return folder


@pytest.fixture(scope="module")
def show(run_dir):
    config = runs.load_config(run_dir)
    return view.Show(config, runs.load_policy(run_dir, config).agent)


def object_velocity(show):
    return np.asarray(show._playing.state.worlds.physics.qvel[0])[24:27]


def test_a_push_changes_the_objects_speed_sideways_and_nothing_else(show):
    show.begin()
    before = np.asarray(show._playing.state.worlds.physics.qvel[0])
    show.push()
    kick = np.asarray(show._playing.state.worlds.physics.qvel[0]) - before
    assert np.linalg.norm(kick[24:26]) == pytest.approx(view.PUSH, rel=1e-5)
    assert np.flatnonzero(np.abs(kick) > 1e-7).tolist() == [24, 25]


def test_a_step_moves_what_is_shown(show):
    show.begin()
    before = show.data.qpos.copy()
    show.step()
    assert show.steps == 1 and np.abs(show.data.qpos - before).max() > 1e-4
    worlds = show._playing.state.worlds
    np.testing.assert_allclose(show.data.qpos, worlds.physics.qpos[0])
    np.testing.assert_allclose(show.data.mocap_quat[0], worlds.goal[0])


def test_object_and_goal_are_as_large_as_in_the_world_that_is_played(run_dir):
    config = runs.load_config(run_dir)
    config = replace(config, **{"randomization.on": ("object_size",)})
    config = replace(config, **{"randomization.object_size": Uniform(1.3, 1.4)})
    show = view.Show(config, runs.load_policy(run_dir, config).agent)
    for name in ("object", "goal"):
        (geom,) = np.flatnonzero(show.model.geom_bodyid == show.model.body(name).id)
        assert (show.model.geom_size[geom] > 1.29 * 0.0285).all()
        assert (show.model.geom_size[geom] < 1.41 * 0.0285).all()
        # Its marks are on its faces, neither inside it nor beside it.
        half, mark = show.model.geom_size[geom, 0], show.model.site(f"{name}:face0")
        assert mark.pos[0] == pytest.approx(half)
        assert mark.pos[0] + mark.size[0] > half


def test_the_goal_touches_nothing_and_changes_no_physics(config):
    scenes = [
        build_hand(config.hand, ObjectConfig(), config.physics, goal=goal).model
        for goal in (False, True)
    ]
    goal = scenes[1].body("goal").id
    geoms = scenes[1].geom_bodyid == goal
    assert geoms.any() and not scenes[1].geom_contype[geoms].any()
    ends = []
    for model in scenes:
        data = mujoco.MjData(model)
        data.ctrl[:] = model.actuator_ctrlrange.mean(1)
        mujoco.mj_step(model, data, nstep=200)
        ends.append(data.qpos.copy())
    np.testing.assert_array_equal(*ends)


def test_a_video_shows_hand_and_goal_and_moves(run_dir, tmp_path):
    path = tmp_path / "video.mp4"
    options = ["--video", path, "--seconds", "0.8"]
    done = subprocess.run(
        [sys.executable, "-m", "mjx_dex.view", run_dir, *options],
        env=os.environ | DRAWN,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (
        "drawing needs OSMesa (Debian: apt-get install libosmesa6)\n" + done.stderr
    )
    assert "RuntimeWarning" not in done.stderr
    to_numbers = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, *to_numbers],
        capture_output=True,
        check=True,
    )
    assert b"12.50 fps" in decoded.stderr or b"12.5 fps" in decoded.stderr
    frames = np.frombuffer(decoded.stdout, np.uint8).reshape(-1, 480, 640, 3)
    frames = frames.astype(int)
    assert len(frames) == 10
    red, green, blue = np.moveaxis(frames[0], -1, 0)
    assert ((green > blue + 20) & (green > red + 20)).mean() > 0.005, "no goal"
    assert ((blue > red + 40) & (blue > green)).mean() > 0.005, "no object"
    assert (frames[0].min(axis=-1) > 180).mean() > 0.01, "no hand"
    assert np.abs(frames[-1] - frames[0]).max() > 50


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def address(run_dir):
    """Of the page, served by the command itself."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "mjx_dex.view", run_dir, "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("open http://127.0.0.1"):
            break
    assert str(port) in line
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()
    process.stdout.close()


@pytest.fixture(scope="module")
def page(address):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "the viewer's test needs Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        # Drawn by the CPU: there is no GPU, and as root no sandbox.
        flags = ["--no-sandbox", "--use-angle=swiftshader"]
        flags += ["--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 900, "height": 600})
        page.goto(address)
        page.get_by_role("button", name="Pause").wait_for(timeout=120_000)
        yield page
        browser.close()


def listening(port):
    """IPv4 addresses of a port on which this machine listens, as in /proc/net/tcp."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A" and local.endswith(f":{port:04X}"):
                found.add(local.split(":")[0])
    return found


def test_only_this_machine_can_open_the_page(address):
    assert listening(int(address.rsplit(":", 1)[1])) == {"0100007F"}  # 127.0.0.1


def test_an_address_that_cannot_be_listened_on_is_an_error():
    # 192.0.2.0/24 is for documentation: nobody has it.
    for host in ("192.0.2.1", "no such host"):
        with pytest.raises(ValueError, match=f"--host: {host} is no address of this"):
            view.check_address(host, 8080)
    with pytest.raises(ValueError, match="--port: 65536 is not from 0 to 65535"):
        view.check_address("127.0.0.1", 65536)


def test_the_address_that_is_printed_can_be_opened():
    assert view.address_of("127.0.0.1", 80) == "http://127.0.0.1:80"
    assert view.address_of("::1", 80) == "http://[::1]:80"
    assert view.address_of("0.0.0.0", 80) == f"http://{socket.gethostname()}:80"


def status(page):
    return page.get_by_text(re.compile("rad to go")).inner_text()


def test_the_hand_is_seen_in_the_browser(page):
    """Grey shapes on white, in the middle, once everything has arrived."""
    deadline = time.monotonic() + 120
    while True:
        png = page.screenshot(clip={"x": 200, "y": 150, "width": 400, "height": 400})
        shades = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), int)
        blue = shades[..., 2] - shades[..., 0] > 15
        if blue.mean() > 0.005 and (shades.max(axis=-1) < 235).mean() > 0.03:
            return
        assert time.monotonic() < deadline, "no hand with an object after two minutes"
        time.sleep(1)


def test_pause_stops_and_play_goes_on(page):
    page.get_by_role("button", name="Pause").click()
    play = page.get_by_role("button", name="Play")
    play.wait_for(timeout=60_000)
    before = status(page)
    time.sleep(1.5)
    assert status(page) == before
    page.get_by_role("button", name="Step").click()
    expect(page.get_by_text(re.compile("rad to go"))).not_to_have_text(
        before, timeout=60_000
    )
    play.click()
    page.get_by_role("button", name="Pause").wait_for(timeout=60_000)
    before = status(page)
    expect(page.get_by_text(re.compile("rad to go"))).not_to_have_text(
        before, timeout=60_000
    )


def test_a_missing_run_is_one_line(tmp_path, capsys):
    assert view.main([str(tmp_path / "none")]) == 1
    assert (
        f"there is no run or bundle in {tmp_path / 'none'}" in capsys.readouterr().err
    )
