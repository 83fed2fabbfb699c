"""``python -m mjx_dex.vision.testset``: render scenes once, to be tested on always."""

import contextlib
import dataclasses
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import mujoco
import numpy as np

from mjx_dex import runs, settings
from mjx_dex.physics.native import available_cores
from mjx_dex.ranges import Count
from mjx_dex.vision import dataset
from mjx_dex.vision.config import VisionConfig
from mjx_dex.vision.rendering import make_renderer
from mjx_dex.vision.scene import VisionScene, build_scene
from mjx_dex.vision.stream import make_draw
from mjx_dex.vision.train import over_preset
from robot_bridge.files import Output, check_outputs

FOLDER = Path("runs/vision/testsets")

SEED = 992_992
"""Far from those of training."""

SCENES = 992
"""As many as the paper's real samples (section 6.6)."""

PER_BATCH = 16
"""Scenes that are drawn at a time."""


@dataclass(frozen=True)
class TestsetCommand(VisionConfig):
    """Options of the command itself, beside the configuration's."""

    config: str = "cpu"
    """A YAML file or a preset, of the net that is to be tested."""
    scenes: Count = SCENES
    """How many."""
    out: Path | None = None
    """Folder to write; by default one under runs/vision/testsets/ whose name says the
    renderer and is another for every other scene."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return runs.command_line(_main, arguments)


def _main(arguments: list[str]) -> None:
    command = over_preset(TestsetCommand, arguments, "cpu", __doc__)
    config = settings.config_of(command, VisionConfig)
    if command.out and (command.out / dataset.ABOUT).exists():
        raise ValueError(f"--out: {command.out} holds a test set already")
    check_outputs(Output("--out", command.out, is_folder=True))
    scene = build_scene(config.hand, config.object, config.rig)
    if config.renderer == "auto":
        with contextlib.closing(make_renderer("auto", scene.model, 64)) as found:
            config = dataclasses.replace(config, renderer=found.name)
    about = _about(config, scene, command.scenes)
    folder = command.out or _folder_of(about)
    if (folder / dataset.ABOUT).exists():
        print(f"there are {command.scenes} scenes in {folder} already")
        return
    make(config, scene, about, folder)
    print(f"saved {command.scenes} scenes to {folder}")


def get(config: VisionConfig, scenes: int) -> dataset.Dataset:
    """The test set of a configuration, from disk or else rendered now.

    Raises:
        RenderingError: if the renderer does not work here.
    """
    scene = build_scene(config.hand, config.object, config.rig)
    about = _about(config, scene, scenes)
    folder = _folder_of(about)
    if (folder / dataset.ABOUT).exists():
        return dataset.load(folder)
    return make(config, scene, about, folder)


def make(
    config: VisionConfig, scene: VisionScene, about: dict, folder: Path
) -> dataset.Dataset:
    """Render a test set and write it."""
    check_outputs(Output("test set", folder, is_folder=True))
    workers = config.workers or available_cores()
    renderer = make_renderer(config.renderer, scene.model, config.rig.size, workers)
    label, number = f"{renderer.name} test set", about["scenes"]
    with contextlib.closing(renderer):
        rendered = dataset.render(
            _draw(config, scene), renderer, SEED, number, PER_BATCH, label
        )
    rendered = dataclasses.replace(rendered, about=about)
    dataset.save(rendered, folder)
    return rendered


def _draw(config: VisionConfig, scene: VisionScene):
    looks = config.appearance
    return make_draw(scene, config.states, looks, PER_BATCH, held_out=True)


def _about(config: VisionConfig, scene: VisionScene, scenes: int) -> dict:
    """All that the images follow from: options, and a digest of what they come to."""
    parts = ("renderer", "hand", "object", "rig", "states", "appearance")
    values = {name: settings.plain(config)[name] for name in parts}
    model = np.empty(mujoco.mj_sizeModel(scene.model), np.uint8)
    mujoco.mj_saveModel(scene.model, None, model)
    digest = hashlib.sha256(model)
    for x in jax.tree.leaves(_draw(config, scene)(jax.random.key(SEED))):
        digest.update(np.asarray(x).tobytes())
    return values | {
        "scenes": scenes,
        "seed": SEED,
        "mujoco": mujoco.__version__,
        "digest": digest.hexdigest(),
    }


def _folder_of(about: dict) -> Path:
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    return FOLDER / f"{about['renderer']}_{about['rig']['size']}_{digest[:8]}"


if __name__ == "__main__":
    sys.exit(main())
