"""Rendered scenes on disk: fixed test sets, and pools that training goes over again.

A folder of ``images.npy`` [n, cameras, H, W, 3] uint8, ``positions.npy`` [n, 3],
``quaternions.npy`` [n, 4] and ``about.json``.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from mjx_dex.vision.losses import Pose
from mjx_dex.vision.scene import CAMERAS
from mjx_dex.vision.stream import Batch, stream
from robot_bridge.files import write_at_once, written_at_once

ABOUT = "about.json"
"""Written last: a folder without it was cut off."""


@dataclass(frozen=True)
class Dataset:
    """Scenes that were rendered."""

    images: np.ndarray
    """[n, cameras, H, W, 3] uint8, perhaps still on disk."""
    poses: Pose
    """[n, ...]."""
    about: dict[str, Any]
    """Renderer, seed and configuration that they are from."""

    def batches(self, size: int):
        """All scenes in order; the last batch may be smaller."""
        for begin in range(0, len(self.images), size):
            rows = slice(begin, begin + size)
            poses = jax.tree.map(lambda x, rows=rows: x[rows], self.poses)
            yield Batch(self.images[rows], poses)


def render(
    draw, renderer, seed: int, number: int, per_batch: int, show: str
) -> Dataset:
    """Render scenes into memory.

    Args:
        draw: of ``per_batch`` scenes; see ``stream``.
        renderer: draws them.
        seed: they follow from.
        number: of scenes.
        per_batch: how many are drawn at a time.
        show: label of the progress bar.
    """
    images, positions, quaternions = None, [], []
    with tqdm(total=number, desc=show, unit=" scenes", disable=None) as bar:
        for k, batch in enumerate(stream(draw, renderer, seed)):
            rows = slice(k * per_batch, min((k + 1) * per_batch, number))
            count = rows.stop - rows.start
            if images is None:
                images = np.empty((number, *batch.images.shape[1:]), np.uint8)
            images[rows] = np.asarray(batch.images)[:count]
            positions.append(np.asarray(batch.poses.position)[:count])
            quaternions.append(np.asarray(batch.poses.quaternion)[:count])
            bar.update(count)
            if rows.stop == number:
                break
    poses = Pose(np.concatenate(positions), np.concatenate(quaternions))
    return Dataset(images, poses, {"seed": seed, "renderer": renderer.name})


def save(dataset: Dataset, folder: Path) -> None:
    """Write a data set; its folder must not hold another."""
    if (folder / ABOUT).exists():
        raise ValueError(f"{folder} holds a data set already; give another folder")
    arrays = {
        "images": dataset.images,
        "positions": dataset.poses.position,
        "quaternions": dataset.poses.quaternion,
    }
    for name, array in arrays.items():
        with written_at_once(folder / f"{name}.npy") as unfinished:
            np.save(unfinished, np.asarray(array))
    write_at_once(folder / ABOUT, json.dumps(dataset.about))


def load(folder: Path) -> Dataset:
    """Read a data set; its images stay on disk until they are looked at.

    Raises:
        ValueError: if there is none, or a file of it is missing, cut off or of
            something else.
    """
    if not (folder / ABOUT).exists():
        raise ValueError(f"there is no data set in {folder}: it would hold {ABOUT}")
    arrays = {}
    for name in ("images", "positions", "quaternions"):
        path = folder / f"{name}.npy"
        try:
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(
                f"{path} is missing, cut off or damaged: {error}"
            ) from error
    number, size = len(arrays["positions"]), arrays["images"].shape[-2]
    for name, shape in (
        ("images", (number, len(CAMERAS), size, size, 3)),
        ("positions", (number, 3)),
        ("quaternions", (number, 4)),
    ):
        if arrays[name].shape != shape:
            raise ValueError(
                f"{folder}/{name}.npy is of shape {arrays[name].shape}, not {shape}"
            )
    poses = Pose(jnp.asarray(arrays["positions"]), jnp.asarray(arrays["quaternions"]))
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return Dataset(arrays["images"], poses, about)
