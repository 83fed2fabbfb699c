"""``python -m mjx_dex.vision.bench``: images per second, and how training waits."""

import contextlib
import dataclasses
import itertools
import json
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jax

from mjx_dex import runs, settings
from mjx_dex.physics.native import available_cores
from mjx_dex.ranges import Count, whole
from mjx_dex.vision.config import RendererName, VisionConfig
from mjx_dex.vision.learner import PoseLearner, PoseTrainer
from mjx_dex.vision.probe import probe
from mjx_dex.vision.rendering import RENDERERS, RenderingError, make_renderer
from mjx_dex.vision.scene import build_scene
from mjx_dex.vision.train import batches_of, over_preset, scales_of, steps
from robot_bridge.files import Output, check_outputs, write_at_once

WARM_UP = 3
"""Batches that are not counted: the first are compiled for and rendered ahead."""


@dataclass(frozen=True)
class BenchCommand(VisionConfig):
    """Options of the command itself, beside the configuration's."""

    config: str = "cpu"
    """A YAML file or a preset, whose training steps are timed."""
    renderers: tuple[RendererName, ...] = RENDERERS
    """To compare."""
    sizes: tuple[whole(1, 4096), ...] = (64, 100, 200)
    """Of images [pixels]."""
    scenes: Count = 64
    """Rendered in each measurement."""
    steps: Count = 10
    """Training steps of each measurement; every batch is rendered anew."""
    json: Path = Path("vision_bench.json")
    """The figures are saved to this file."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return runs.command_line(_main, arguments)


def _main(arguments: list[str]) -> None:
    command = over_preset(BenchCommand, arguments, "cpu", __doc__)
    check_outputs(Output("--json", command.json))
    device, workers = jax.devices()[0], command.workers or available_cores()
    print(
        f"JAX {jax.__version__} on {device.platform} ({device.device_kind}), Python "
        f"{platform.python_version()}; {workers} processes render, warp in one"
    )
    print(f"{'renderer':9} {'pixels':>6} {'images/s':>9}")
    rows = []
    for name, size in itertools.product(command.renderers, command.sizes):
        processes = 1 if name == "warp" else workers
        try:
            _, speed = probe(name, size, command.scenes, processes)
        except RenderingError as error:
            print(f"{name:9} {size:6} not measured: {error}")
            continue
        rows.append({"renderer": name, "size": size, "images_per_second": speed})
        write_at_once(command.json, json.dumps(rows))
        print(f"{name:9} {size:6} {speed:9,.0f}", flush=True)
    config = settings.config_of(command, VisionConfig)
    print(f"training, {command.config}: {config.learning.batch_size} scenes a step")
    for name in command.renderers:
        try:
            row = time_training(
                dataclasses.replace(config, renderer=name), command.steps
            )
        except RenderingError as error:
            print(f"{name:9} not measured: {error}")
            continue
        rows.append({"renderer": name} | row)
        write_at_once(command.json, json.dumps(rows))
        print(
            f"{name:9} {row['seconds']:.3f} s a step, {row['waiting']:.0%} of it "
            "waiting for images; "
            f"{row['seconds_without_rendering']:.3f} s if they were there",
            flush=True,
        )
    write_at_once(command.json, json.dumps(rows))
    print(f"saved {command.json}")


def time_training(config: VisionConfig, number: int) -> dict[str, float]:
    """Seconds of a step and of one whose images are there already, share of waiting."""
    learning = dataclasses.replace(config.learning, pool=0)
    config = dataclasses.replace(config, learning=learning)
    scene = build_scene(config.hand, config.object, config.rig)
    trainer = PoseTrainer(config)
    learner = trainer.init(jax.random.key(config.seed), scales_of(scene, config))
    workers = config.workers or available_cores()
    renderer = make_renderer(config.renderer, scene.model, config.rig.size, workers)
    with contextlib.closing(renderer):
        batches = batches_of(scene, config, renderer, first=0)
        learner, batch, rendered = _timed(trainer, learner, batches, number)
    _, _, given = _timed(trainer, learner, itertools.repeat(batch), number)
    return rendered | {"seconds_without_rendering": given["seconds"]}


def _timed(trainer: PoseTrainer, learner: PoseLearner, batches, number: int):
    """Learner and batch after some steps, and means over all but the first of them."""
    waited, begun = [], 0.0
    for latest, batch, metrics in steps(trainer, learner, batches, seed=0):
        waited.append(metrics["waiting"] * metrics["seconds"])
        if len(waited) == WARM_UP:
            begun = time.perf_counter()
        if len(waited) == WARM_UP + number:
            total = time.perf_counter() - begun
            share = sum(waited[WARM_UP:]) / total
            return latest, batch, {"seconds": total / number, "waiting": share}


if __name__ == "__main__":
    sys.exit(main())
