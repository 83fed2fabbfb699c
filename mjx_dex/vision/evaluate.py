"""``python -m mjx_dex.vision.evaluate RUN``: how far a pose net is off (Table 6)."""

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

from mjx_dex import rotations, runs, settings
from mjx_dex.ranges import Checked, Count
from mjx_dex.vision import dataset, nets, testset
from mjx_dex.vision.config import RendererName
from mjx_dex.vision.learner import errors
from mjx_dex.vision.losses import Pose
from mjx_dex.vision.rendering import RENDERERS
from robot_bridge.files import Output, check_outputs, write_at_once

PER_BATCH = 64
"""Scenes that the net looks at together."""


@dataclass(frozen=True)
class EvaluateCommand(Checked):
    """What is tested, and on what."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the net."""
    renderers: tuple[RendererName, ...] = RENDERERS
    """That draw the test sets; each is rendered once and kept."""
    scenes: Count = testset.SCENES
    """In each test set."""
    testsets: tuple[Path, ...] = ()
    """Folders of ``python -m mjx_dex.vision.testset``, in place of the above."""
    json: Path | None = None
    """The figures are saved to this file, too."""


@dataclass(frozen=True)
class Result:
    """Errors on one test set."""

    renderer: str
    rotation: np.ndarray
    """[scenes] [deg]."""
    position: np.ndarray
    """[scenes] [mm]."""
    mean_predictor: tuple[float, float]
    """Mean errors of always saying the mean pose [deg, mm]."""

    def __str__(self):
        cells = [
            f"{values.mean():.2f} ± {values.std():.2f} {unit} | {np.median(values):.2f}"
            for values, unit in ((self.rotation, "deg"), (self.position, "mm"))
        ]
        return f"| {self.renderer} | {' | '.join(cells)} | {len(self.rotation)} |"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return runs.command_line(_main, arguments)


def _main(arguments: list[str]) -> None:
    command = settings.parse_arguments(EvaluateCommand, arguments, __doc__)
    check_outputs(Output("--json", command.json))
    net = nets.load(command.run)
    sets = [dataset.load(folder) for folder in command.testsets] or [
        testset.get(dataclasses.replace(net.config, renderer=name), command.scenes)
        for name in command.renderers
    ]
    results = [measure(net, scenes) for scenes in sets]
    try:
        if command.json:
            rows = [dataclasses.asdict(result) for result in results]
            write_at_once(command.json, json.dumps(rows, default=np.ndarray.tolist))
    finally:  # also where the disk is full by now
        print(report(net, results))
    if command.json:
        print(f"saved {command.json}")


def measure(net: nets.Net, scenes: dataset.Dataset) -> Result:
    """Errors of a net on a test set."""
    rotation, position = [], []
    for batch in scenes.batches(PER_BATCH):
        found = net.predict(batch.images)
        degrees, millimetres = errors(found, batch.poses)
        rotation.append(degrees)
        position.append(millimetres)
    scales = net.learner.scales
    always = Pose(scales.position_mean, rotations.normalize(scales.quaternion_mean))
    number = len(scenes.images)
    same = jax.tree.map(lambda x: np.broadcast_to(x, (number, *x.shape)), always)
    blind = errors(same, scenes.poses)
    return Result(
        scenes.about["renderer"],
        np.concatenate(rotation),
        np.concatenate(position),
        (float(blind[0].mean()), float(blind[1].mean())),
    )


def report(net: nets.Net, results: list[Result]) -> str:
    """Table 6's layout, for people."""
    own = net.config.renderer
    lines = [
        f"{net.batches:,} batches of {net.config.learning.batch_size}, images of "
        f"{net.config.rig.size} pixels; renderer of training: {own}",
        "",
        "| test set | rotation error | median | position error | median | scenes |",
        "|---|---|---|---|---|---|",
        *map(str, results),
    ]
    degrees, millimetres = results[0].mean_predictor
    lines += ["", f"Always the mean pose: {degrees:.1f} deg, {millimetres:.1f} mm."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
