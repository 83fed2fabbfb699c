"""``python -m mjx_dex.vision.probe``: which renderers work here, or why they do not."""

import contextlib
import sys
import time
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from mjx_dex import runs, settings
from mjx_dex.config import HandConfig, ObjectConfig
from mjx_dex.ranges import Checked, Count, whole
from mjx_dex.vision.config import AppearanceConfig, RigConfig, StatesConfig
from mjx_dex.vision.rendering import RENDERERS, RenderingError, make_renderer
from mjx_dex.vision.scene import build_scene
from mjx_dex.vision.stream import make_draw


@dataclass(frozen=True)
class ProbeCommand(Checked):
    """What is tried."""

    size: whole(1, 4096) = 64
    """Height and width of images [pixels]."""
    scenes: Count = 16
    """Rendered after a first time, to tell the speed."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 if no renderer works."""
    works = []
    status = runs.command_line(
        lambda arguments: works.extend(_main(arguments)), arguments
    )
    return status or int(not works)


def _main(arguments: list[str]) -> list[str]:
    command = settings.parse_arguments(ProbeCommand, arguments, __doc__)
    works = []
    for name in RENDERERS:
        try:
            description, speed = probe(name, command.size, command.scenes)
        except RenderingError as error:
            print(f"{name:9} no    {error}")
            continue
        print(f"{name:9} yes   {description}; {speed:,.0f} images/s by one process")
        works.append(name)
    return works


def probe(name: str, size: int, number: int, workers: int = 1) -> tuple[str, float]:
    """What draws, and images per second.

    Raises:
        RenderingError: if it does not work here.
    """
    scene = build_scene(HandConfig(), ObjectConfig(), RigConfig(size=size))
    draw = make_draw(scene, StatesConfig(), AppearanceConfig(), number)
    scenes = draw(jax.random.key(0))
    with contextlib.closing(
        make_renderer(name, scene.model, size, workers)
    ) as renderer:
        draw_all = partial(renderer.submit, scenes.qpos, scenes.fields)
        # Once for each worker, which has to start.
        for pending in [draw_all() for _ in range(workers)]:
            pending.result()
        begun = time.perf_counter()
        images = np.asarray(draw_all().result())
        seconds = time.perf_counter() - begun
        if images.std() == 0:
            raise RenderingError(f"renderer {name} draws nothing")
        return renderer.description, len(images) * images.shape[1] / seconds


if __name__ == "__main__":
    sys.exit(main())
