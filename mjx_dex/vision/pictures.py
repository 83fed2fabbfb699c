"""Contact sheets, and poses drawn on the images that they were read from."""

import jax
import numpy as np
from PIL import Image, ImageDraw

from mjx_dex import rotations
from mjx_dex.vision.losses import Pose
from mjx_dex.vision.scene import VisionScene

TRUTH, FOUND = (0, 160, 0), (220, 0, 0)
"""Colours of the boxes' outlines."""


def sheet(images: np.ndarray, columns: int = 4, gap: int = 2) -> np.ndarray:
    """Scenes [n, cameras, H, W, 3] in a grid, cameras side by side: [rows, cols, 3]."""
    n, cameras, height, width, _ = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    shape = rows * (height + gap) - gap, columns * (cameras * width + gap) - gap, 3
    canvas = np.full(shape, 120, np.uint8)
    for i, scene in enumerate(images):
        top = i // columns * (height + gap)
        left = i % columns * (cameras * width + gap)
        strip = scene.transpose(1, 0, 2, 3).reshape(height, -1, 3)
        canvas[top : top + height, left : left + cameras * width] = strip
    return canvas


def with_poses(
    images: np.ndarray, found: Pose, truth: Pose, scene: VisionScene
) -> np.ndarray:
    """A sheet on which the object's box is drawn, true in green and found in red.

    Cameras are taken to be nominal: what appearance moves them is hardly seen.
    """
    drawn = []
    for i in range(len(images)):
        cameras = []
        for camera, image in enumerate(images[i]):
            picture = Image.fromarray(image)
            for pose, color in ((truth, TRUTH), (found, FOUND)):
                one = jax.tree.map(lambda x, i=i: np.asarray(x[i]), pose)
                _draw_box(picture, one, scene, camera, color)
            cameras.append(np.asarray(picture))
        drawn.append(np.stack(cameras))
    return sheet(np.stack(drawn), columns=2)


def project(points: np.ndarray, scene: VisionScene, camera: int, size: int):
    """[n, 2] columns and rows [pixels] of points [n, 3] in the world [m]."""
    model = scene.model
    axes = np.asarray(rotations.to_matrix(np.asarray(model.cam_quat[camera])))
    local = (points - model.cam_pos[camera]) @ axes
    scale = size / 2 / np.tan(np.deg2rad(model.cam_fovy[camera]) / 2)
    return size / 2 + scale * local[:, :2] / -local[:, 2:] * (1, -1)


def _draw_box(
    picture: Image.Image, pose: Pose, scene: VisionScene, camera: int, color
) -> None:
    hand, half = scene.hand, scene.half_size
    center = hand.frame_position + hand.frame_rotation.T @ pose.position
    axes = np.asarray(rotations.to_matrix(pose.quaternion))
    corners = np.array(np.meshgrid(*[[-1, 1]] * 3, indexing="ij")).reshape(3, 8).T
    places = project(center + half * corners @ axes.T, scene, camera, picture.width)
    draw = ImageDraw.Draw(picture)
    for a in range(8):
        for bit in (1, 2, 4):
            if not a & bit:
                draw.line([*places[a], *places[a | bit]], fill=color)
