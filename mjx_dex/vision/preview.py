"""``python -m mjx_dex.vision.preview``: a contact sheet of random scenes."""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from mjx_dex import runs
from mjx_dex.ranges import Count
from mjx_dex.vision import pictures
from mjx_dex.vision.config import VisionConfig
from mjx_dex.vision.rendering import make_renderer
from mjx_dex.vision.scene import build_scene
from mjx_dex.vision.stream import make_draw
from mjx_dex.vision.train import over_preset
from robot_bridge.files import IMAGES, Output, check_outputs, written_at_once


@dataclass(frozen=True)
class PreviewCommand(VisionConfig):
    """Options of the command itself, beside the configuration's."""

    config: str = "paper"
    """A YAML file or a preset."""
    scenes: Count = 16
    """How many."""
    out: Path = Path("preview.png")
    """The picture."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return runs.command_line(_main, arguments)


def _main(arguments: list[str]) -> None:
    command = over_preset(PreviewCommand, arguments, "paper", __doc__)
    check_outputs(Output("--out", command.out, IMAGES))
    scene = build_scene(command.hand, command.object, command.rig)
    draw = make_draw(scene, command.states, command.appearance, command.scenes)
    scenes = draw(jax.random.key(command.seed))
    renderer = make_renderer(command.renderer, scene.model, command.rig.size)
    with contextlib.closing(renderer):
        images = np.asarray(renderer.render(scenes.qpos, scenes.fields))
    with written_at_once(command.out) as unfinished:
        Image.fromarray(pictures.sheet(images)).save(unfinished)
    print(f"saved {command.out}: {command.scenes} scenes by {renderer.description}")


if __name__ == "__main__":
    sys.exit(main())
