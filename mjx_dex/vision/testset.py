"""``python -m mjx_dex.vision.testset``: render scenes once, to be tested on always."""

import contextlib
import dataclasses
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from mjx_dex import runs, settings
from mjx_dex.physics.native import available_cores
from mjx_dex.vision import dataset
from mjx_dex.vision.config import VisionConfig
from mjx_dex.vision.rendering import make_renderer
from mjx_dex.vision.scene import build_scene
from mjx_dex.vision.stream import make_draw
from mjx_dex.vision.train import over_preset

FOLDER = Path("runs/vision/testsets")

SEED = 992_992
"""Far from those of training."""

SCENES = 992
"""As many as the paper's real samples (section 6.6)."""

PER_BATCH = 16
"""Scenes that are drawn at a time, so that all workers have some."""


@dataclass(frozen=True)
class TestsetCommand(VisionConfig):
    """Options of the command itself, beside the configuration's."""

    config: str = "cpu"
    """A YAML file or a preset, of the net that is to be tested."""
    scenes: int = SCENES
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
    folder = command.out or folder_of(config, command.scenes)
    make(config, command.scenes, folder)
    print(f"saved {command.scenes} scenes to {folder}")


def folder_of(config: VisionConfig, scenes: int) -> Path:
    """Where the test set of a configuration is, by all that its images follow from."""
    digest = hashlib.sha256(json.dumps(_about(config, scenes)).encode()).hexdigest()
    return FOLDER / f"{config.renderer}_{config.rig.size}_{digest[:8]}"


def make(config: VisionConfig, scenes: int, folder: Path) -> dataset.Dataset:
    """Render a test set and write it.

    Raises:
        ValueError: if the folder holds one already.
        RenderingError: if the renderer does not work here.
    """
    if (folder / dataset.ABOUT).exists():
        raise ValueError(f"--out: {folder} holds a test set already")
    scene = build_scene(config.hand, config.object, config.rig)
    draw = make_draw(scene, config.states, config.appearance, PER_BATCH)
    workers = config.workers or available_cores()
    renderer = make_renderer(config.renderer, scene.model, config.rig.size, workers)
    with contextlib.closing(renderer):
        rendered = dataset.render(
            draw, renderer, SEED, scenes, PER_BATCH, f"{renderer.name} test set"
        )
    about = rendered.about | _about(config, scenes) | {"renderer": renderer.name}
    rendered = dataclasses.replace(rendered, about=about)
    dataset.save(rendered, folder)
    return rendered


def get(config: VisionConfig, scenes: int) -> dataset.Dataset:
    """The test set of a configuration, from disk or else rendered now."""
    folder = folder_of(config, scenes)
    if (folder / dataset.ABOUT).exists():
        return dataset.load(folder)
    return make(config, scenes, folder)


def _about(config: VisionConfig, scenes: int) -> dict:
    parts = ("renderer", "hand", "object", "rig", "states", "appearance")
    values = settings.plain(config)
    return {name: values[name] for name in parts} | {"scenes": scenes, "seed": SEED}


if __name__ == "__main__":
    sys.exit(main())
