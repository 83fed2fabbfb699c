"""Renderers draw what they are asked to, the same for any number of workers."""

import os
import signal
import subprocess
import sys
import threading
import time

import mujoco
import numpy as np
import pytest

from mjx_dex.vision import appearance
from mjx_dex.vision.config import AppearanceConfig, Interval
from mjx_dex.vision.rendering import Farm, RenderingError, make_renderer
from mjx_dex.vision.rendering.farm import environment_of

SIZE = 64
ROWS = tuple(appearance.ROWS)


@pytest.fixture(scope="module", params=["gl", "warp", "filament"])
def renderer(request, scene):
    renderer = make_renderer(request.param, scene.model, SIZE)
    yield renderer
    renderer.close()


@pytest.fixture(scope="module")
def gl(scene):
    with make_renderer("gl", scene.model, SIZE) as farm:
        yield farm


def fields_of(sample_looks, row, wide):
    """Four looks in which nothing but one row is drawn."""
    off = tuple(name for name in ROWS if name != row)
    return sample_looks(4, AppearanceConfig(off=off, **wide))[1]


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_table_9_changes_pixels(row, renderer, sample_looks, poses):
    # Its millimetres are less than a pixel.
    wide = (
        {"camera_position": Interval(-0.02, 0.02)} if row == "camera_position" else {}
    )
    qpos = np.repeat(poses(1), 4, 0)
    nominal = renderer.render(qpos, sample_looks(4, AppearanceConfig(off=ROWS))[1])
    changed = renderer.render(qpos, fields_of(sample_looks, row, wide))
    difference = np.abs(np.asarray(changed, int) - np.asarray(nominal, int))
    # Filament dithers: two renders of one scene differ by one.
    least = 3 if renderer.name == "filament" else 0
    assert (difference.max((1, 2, 3, 4)) > least).sum() >= 3


def test_hand_and_block_are_seen_before_a_white_table(renderer, sample_looks, poses):
    looks = sample_looks(4, AppearanceConfig(off=ROWS))[1]
    images = np.asarray(renderer.render(poses(4), looks), int)
    assert images.shape == (4, 3, SIZE, SIZE, 3)
    # The upper edge has no colour, and brightness that changes slowly.
    edge = images[:, :, :3]
    assert (edge.max(-1) - edge.min(-1)).max() <= 4
    assert edge.min() > 20 and edge.mean() > 60
    assert np.abs(np.diff(edge, axis=3)).max() < 12
    # Faces of the block have.
    assert ((images.max(-1) - images.min(-1)) > 15).mean((2, 3)).min() > 0.004


def test_the_block_is_drawn_where_it_is(renderer, scene, sample_looks, poses):
    """What changes when it is taken away, against a pinhole camera."""
    looks = sample_looks(6, AppearanceConfig(off=ROWS))[1]
    qpos = poses(6, seed=3)
    gone = qpos + np.where(np.arange(31) == 26, 9.0, 0.0)
    images, without = (np.asarray(renderer.render(x, looks), int) for x in (qpos, gone))
    changed = np.abs(images - without).max(-1) > 8
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    for camera in range(3):
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, scene.model.cam_quat[camera])
        local = (qpos[:, 24:27] - scene.model.cam_pos[camera]) @ rotation.reshape(3, 3)
        scale = SIZE / 2 / np.tan(np.deg2rad(scene.model.cam_fovy[camera]) / 2)
        expected = SIZE / 2 + scale * local[:, :2] / np.abs(local[:, 2:]) * (1, -1)
        weight = changed[:, camera] / changed[:, camera].sum((1, 2), keepdims=True)
        found = np.stack([(weight * x).sum((1, 2)) for x in (columns, rows)], 1)
        # Not to the pixel: fingers hide a part.
        assert np.median(np.abs(found - expected)) < 1.5


def test_more_light_is_brighter(renderer, sample_looks, poses):
    off = tuple(name for name in ROWS if name != "light_total_intensity")
    qpos = np.repeat(poses(1), 4, 0)

    def brightness(total):
        config = AppearanceConfig(off=off, light_total_intensity=Interval(total, total))
        return np.asarray(renderer.render(qpos, sample_looks(4, config)[1])).mean()

    assert brightness(0.5) < brightness(5) < brightness(15)


def test_gl_and_warp_agree(gl, scene, sample_looks, poses):
    pytest.importorskip("warp")
    looks, qpos = sample_looks(4)[1], poses(4)
    other = make_renderer("warp", scene.model, SIZE)
    first = np.asarray(gl.render(qpos, looks), float)
    second = np.asarray(other.render(qpos, looks), float)
    assert np.abs(first - second).mean() < 4


def test_images_are_the_same_for_any_number_of_workers(gl, scene, sample_looks, poses):
    """Of 20 scenes, in three jobs."""
    asked = poses(20), sample_looks(20)[1]
    alone = gl.render(*asked)
    with make_renderer("gl", scene.model, SIZE, workers=2) as farm:
        together = farm.render(*asked)
        assert len(farm.processes) == 2
    np.testing.assert_array_equal(together, alone)


def test_workers_end_with_their_farm(scene):
    with make_renderer("gl", scene.model, SIZE) as farm:
        (process,) = farm.processes
    assert process.poll() is not None


def test_a_killed_worker_is_replaced(gl, sample_looks, poses):
    job = poses(2), sample_looks(2)[1]
    before = gl.render(*job)
    (process,) = gl.processes
    os.kill(process.pid, signal.SIGKILL)
    np.testing.assert_array_equal(gl.render(*job), before)
    assert gl.processes[0].pid != process.pid


def test_a_worker_that_keeps_dying_is_one_line(scene, sample_looks, poses):
    job = poses(2), sample_looks(2)[1]
    with make_renderer("gl", scene.model, SIZE) as farm:
        over = threading.Event()

        def kill():
            while not over.is_set():
                for process in farm.processes:
                    process.kill()
                time.sleep(0.01)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            with pytest.raises(RenderingError, match="renderer gl"):
                farm.render(*job)
        finally:
            over.set()
            killer.join()


def test_a_silent_worker_is_not_waited_for(scene, sample_looks, poses):
    backend = os.environ.get("MUJOCO_GL", "osmesa")
    with Farm("gl", scene.model, SIZE, 1, backend, seconds=20) as farm:
        (process,) = farm.processes
        next(iter(farm._workers))._seconds = 1.0
        os.kill(process.pid, signal.SIGSTOP)
        assert farm.render(poses(2), sample_looks(2)[1]).shape[0] == 2
        assert farm.processes[0].pid != process.pid


def test_a_worker_that_does_not_read_is_not_waited_for(scene):
    """A pipe holds 64 KB; more waits for its reader."""
    backend = os.environ.get("MUJOCO_GL", "osmesa")
    with Farm("gl", scene.model, SIZE, 1, backend) as farm:
        (worker,) = farm._workers
        worker._seconds = 1.0
        os.kill(worker.process.pid, signal.SIGSTOP)
        with pytest.raises(RuntimeError, match="had not answered after 1 s"):
            worker.ask((np.zeros(100_000), {}))


def test_an_unknown_renderer_is_an_error(scene):
    with pytest.raises(ValueError, match="'unity' is not one of gl, warp, filament"):
        make_renderer("unity", scene.model, SIZE)


def test_a_backend_that_is_not_there_is_one_line(scene, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "glass")
    with pytest.raises(RenderingError, match="renderer gl does not work here"):
        make_renderer("gl", scene.model, SIZE)


def test_filament_without_a_driver_is_one_line(scene, monkeypatch):
    monkeypatch.setenv("VK_DRIVER_FILES", "/nowhere.json")
    with pytest.raises(RenderingError, match="mesa-vulkan-drivers"):
        make_renderer("filament", scene.model, SIZE)


def test_workers_do_without_jax(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    module = "mjx_dex.vision.rendering.worker"
    check = f"import sys, {module}; sys.exit('jax' in sys.modules)"
    environment = environment_of("gl", "osmesa")
    subprocess.run([sys.executable, "-c", check], check=True, env=environment)


def test_wrong_fields_are_one_line(scene):
    with (
        make_renderer("gl", scene.model, SIZE) as farm,
        pytest.raises(
            RenderingError, match=r"renderer gl said .*no attribute 'cam_colour'"
        ),
    ):
        farm.render(np.zeros((1, 31)), {"cam_colour": np.zeros(1)})
