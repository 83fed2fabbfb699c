"""``python -m mjx_dex.vision.train``: train a pose net, or go on with one."""

import contextlib
import dataclasses
import itertools
import logging
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from tqdm import tqdm

from mjx_dex import mujoco_warnings, run_folder, settings, startup
from mjx_dex.board import Board
from mjx_dex.checkpoints import (
    ONLY,
    CheckpointError,
    CheckpointFolder,
    check_shapes,
    shapes,
)
from mjx_dex.physics.native import available_cores
from mjx_dex.ranges import NotNegative
from mjx_dex.report import append_rows, close_quietly, read_metrics, write_row
from mjx_dex.run_folder import RunFolder
from mjx_dex.train import StopOnInterrupt, ended_by_signals
from mjx_dex.vision import dataset, pictures
from mjx_dex.vision.config import VisionConfig
from mjx_dex.vision.learner import PoseLearner, PoseTrainer
from mjx_dex.vision.losses import Scales
from mjx_dex.vision.rendering import make_renderer
from mjx_dex.vision.scene import VisionScene, build_scene
from mjx_dex.vision.stream import Batch, make_draw, stream
from robot_bridge import terminal
from robot_bridge.files import save_figure

matplotlib.use("agg")
import matplotlib.pyplot as plt

log = logging.getLogger("mjx_dex")

C = TypeVar("C", bound=VisionConfig)

RUNS = Path("runs/vision")
PRESETS = settings.PRESETS / "vision"
"""smoke, cpu, gpu and paper."""

STATISTICS_SCENES = 4096
"""Poses from which the scales of targets are taken."""

LOOK_EVERY = 200
"""Batches between two pictures of what the net says, in TensorBoard."""


@dataclass(frozen=True)
class TrainCommand(VisionConfig):
    """Options of the command itself, beside the configuration's."""

    config: str | None = None
    """A YAML file or a preset (smoke, cpu, gpu, paper). By default cpu on a CPU, gpu on
    an accelerator, and a resumed run's own."""
    run_dir: Path | None = None
    """Folder of the run; a new one under runs/vision/ by default."""
    resume: bool = False
    """Go on from the latest checkpoint of --run-dir."""
    max_minutes: NotNegative | None = None
    """Stop, with a checkpoint, after so many minutes."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    started = time.monotonic()
    startup.set_up()
    try:
        startup.check_jax()
        command = parse(sys.argv[1:] if arguments is None else arguments)
        with ended_by_signals(), _claim(command) as folder:
            train(command, folder, started)
    except (ValueError, OSError, ImportError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return 130
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        if "RESOURCE_EXHAUSTED" in reason:
            reason += "; lower --learning.batch-size"
        print(f"error: {reason}", file=sys.stderr, flush=True)
        return 1
    finally:
        mujoco_warnings.report()
    return 0


def parse(arguments: list[str]) -> TrainCommand:
    """Parse the command line over the configuration that it starts from."""
    base = settings.early_option(arguments, "--config")
    run_dir = settings.early_option(arguments, "--run-dir")
    if "--resume" in arguments:
        if run_dir is None or not run_folder.is_run(Path(run_dir)):
            raise ValueError(f"--resume: there is no run in --run-dir {run_dir}")
        base = base or Path(run_dir) / run_folder.CONFIG
    if base is None:
        base = "cpu" if jax.default_backend() == "cpu" else "gpu"
        log.info("configuration: %s (JAX runs on %s)", base, jax.default_backend())
    return settings.from_command_line(
        TrainCommand,
        settings.load(base, VisionConfig, PRESETS),
        arguments,
        description=__doc__,
    )


def over_preset(
    command: type[C], arguments: list[str], preset: str, description: str
) -> C:
    """Parse a command line over ``--config``, or else a preset."""
    base = settings.early_option(arguments, "--config") or preset
    config = settings.load(base, VisionConfig, PRESETS)
    return settings.from_command_line(command, config, arguments, description)


def _claim(command: TrainCommand) -> contextlib.AbstractContextManager[RunFolder]:
    """The run's folder while it is trained, for no other process."""
    if command.resume:
        return run_folder.resume(command.run_dir)
    return run_folder.begin(command.run_dir, RUNS)


def train(command: TrainCommand, folder: RunFolder, started: float) -> None:
    """Train until all batches are learned from, ``max_minutes`` or Ctrl-C."""
    config, run_dir = settings.config_of(command, VisionConfig), folder.path
    scene = build_scene(config.hand, config.object, config.rig)
    workers = config.workers or available_cores()
    renderer = make_renderer(config.renderer, scene.model, config.rig.size, workers)
    log.info("run: %s; images by %s", run_dir, renderer.description)
    config = dataclasses.replace(config, renderer=renderer.name)
    with contextlib.closing(renderer):
        trainer = PoseTrainer(config)
        learner = trainer.init(jax.random.key(config.seed), scales_of(scene, config))
        # Not before all that may be wrong with the options: it makes the folder.
        checkpoints = CheckpointFolder(run_dir / run_folder.CHECKPOINTS)
        if command.resume:
            learner = _resumed(checkpoints, learner, config, run_dir)
        else:
            checkpoints.save(0, {ONLY: learner})
        # A run that has a configuration has a checkpoint, too, and can be resumed.
        settings.save(config, run_dir / run_folder.CONFIG)
        folder.begun()
        minutes = np.inf if command.max_minutes is None else command.max_minutes
        deadline = started + 60 * minutes
        batches = batches_of(scene, config, renderer, int(learner.batches))
        with TrainLog(run_dir, config, scene, int(learner.batches)) as run_log:
            done = learn(
                config, trainer, learner, batches, checkpoints, run_log, deadline
            )
        checkpoints.close()
    plot_learning_curve(run_dir)
    print(f"saved {run_dir} after {done:,} batches")
    train = "mjx_dex.vision.train"
    again = terminal.shell_command(train, "--resume", "--run-dir", run_dir)
    print(f"  continue: {again}")
    print(f"  evaluate: {terminal.shell_command('mjx_dex.vision.evaluate', run_dir)}")


def learn(
    config: VisionConfig,
    trainer: PoseTrainer,
    learner: PoseLearner,
    batches: Iterator[Batch],
    checkpoints: CheckpointFolder,
    run_log: "TrainLog",
    deadline: float,
) -> int:
    """Learn from batch after batch; returns how many there were in all."""
    number, saved = int(learner.batches), time.monotonic()
    if number >= config.learning.batches:
        return number
    seconds_between = 60 * config.learning.checkpoint_minutes
    with StopOnInterrupt() as interrupt:
        for latest, batch, metrics in steps(trainer, learner, batches, config.seed):
            number += 1
            for name in ("loss", "gradient_norm"):
                if not np.isfinite(metrics[name]):
                    raise ValueError(
                        f"{name} became {metrics[name]} in batch {number}; a lower "
                        "--learning.learning-rate may help. --resume continues from "
                        f"the checkpoint of batch {checkpoints.latest()}"
                    )
            run_log.write(number, metrics)
            if number % LOOK_EVERY == 1:
                run_log.look(number, trainer, latest, batch)
            is_over = number >= config.learning.batches or time.monotonic() > deadline
            is_over |= interrupt.asked
            if is_over or time.monotonic() - saved > seconds_between:
                checkpoints.save(number, {ONLY: latest})
                saved = time.monotonic()
            if is_over:
                return number


def steps(
    trainer: PoseTrainer, learner: PoseLearner, batches: Iterator[Batch], seed: int
) -> Iterator[tuple[PoseLearner, Batch, dict[str, float]]]:
    """Learner, batch and metrics of one batch after another, without end.

    The next batch is fetched while the device learns from one. Metrics are those of
    ``PoseTrainer.step``, ``seconds``, and the share of them in which the device had
    learned and was ``waiting`` for images of others. A learner is given away when the
    next is asked for.
    """
    key, number = jax.random.key(seed + 1), int(learner.batches)
    batch = jax.device_put(next(batches))
    with ThreadPoolExecutor(1) as watch:
        while True:
            begun = time.monotonic()
            learner, metrics = trainer.step(
                learner, batch.images, batch.poses, jax.random.fold_in(key, number)
            )
            learned = watch.submit(_moment_when_ready, metrics)
            following = jax.device_put(next(batches))
            came = time.monotonic()
            waited = max(0.0, came - learned.result())
            seconds = time.monotonic() - begun
            metrics = {name: float(x) for name, x in jax.device_get(metrics).items()}
            metrics |= {"seconds": seconds, "waiting": waited / seconds}
            yield learner, batch, metrics
            batch, number = following, number + 1


def _moment_when_ready(x) -> float:
    jax.block_until_ready(x)
    return time.monotonic()


def scales_of(scene: VisionScene, config: VisionConfig) -> Scales:
    """Of the poses that training draws."""
    draw = make_draw(scene, config.states, config.appearance, STATISTICS_SCENES)
    poses = draw(jax.random.key(config.seed + 2)).poses
    return Scales.of(poses, config.object.size / 2)


def _resumed(
    checkpoints: CheckpointFolder,
    like: PoseLearner,
    config: VisionConfig,
    run_dir: Path,
) -> PoseLearner:
    """The run's latest learner; another net than it has is refused by name."""
    try:
        return restore(checkpoints, like)
    except CheckpointError as error:
        before = settings.load(run_dir / run_folder.CONFIG, VisionConfig)
        different = [
            x for x in settings.differences(before, config) if x.startswith("net.")
        ]
        if not different:
            raise
        raise CheckpointError(
            f"{run_dir}: its net is another: {'; '.join(different)}; give its values, "
            "or begin a new net in another --run-dir"
        ) from error


def restore(checkpoints: CheckpointFolder, like: PoseLearner) -> PoseLearner:
    """The latest checkpoint of a net of the same configuration, on JAX's first device.

    Wherever it was written: a net that a GPU trained is used on CPUs.
    """
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), like
    )
    with checkpoints.reading() as (step, written):
        check_shapes(written[ONLY], shapes(like))
        return checkpoints.restore(step, ONLY, target)


def batches_of(
    scene: VisionScene, config: VisionConfig, renderer, first: int
) -> Iterator[Batch]:
    """Batches to learn from, from number ``first`` on."""
    learning, size = config.learning, config.learning.batch_size
    draw = make_draw(scene, config.states, config.appearance, size)
    if not learning.pool:
        return stream(draw, renderer, config.seed, first)
    pool = dataset.render(draw, renderer, config.seed, learning.pool, size, "pool")
    return _from_pool(pool, config, first)


def _from_pool(
    pool: dataset.Dataset, config: VisionConfig, first: int
) -> Iterator[Batch]:
    for number in itertools.count(first):
        rng = np.random.default_rng([config.seed, number])
        size = config.learning.batch_size
        rows = np.sort(rng.choice(len(pool.images), size, replace=False))
        poses = jax.tree.map(lambda x, rows=rows: x[rows], pool.poses)
        yield Batch(pool.images[rows], poses)


class TrainLog:
    """Metrics of one run: metrics.jsonl, TensorBoard, a progress bar."""

    def __init__(
        self, folder: Path, config: VisionConfig, scene: VisionScene, done: int
    ):
        # Those after the checkpoint, before the run was cut off, come again.
        self._file = append_rows(folder, lambda row: row["batch"] <= done)
        self._board = Board(folder / "tensorboard", done + 1)
        self._bar = tqdm(
            total=config.learning.batches,
            initial=done,
            unit=" batches",
            dynamic_ncols=True,
            disable=None,
        )
        self._last_line = time.monotonic()
        self._total, self._scene = config.learning.batches, scene

    def write(self, number: int, metrics: dict[str, float]) -> None:
        """Log one batch."""
        write_row(self._file, {"batch": number} | metrics)
        self._board.scalars(metrics, number)
        self._bar.update()
        text = (
            f"{metrics['rotation_degrees']:.1f} deg, {metrics['position_mm']:.1f} mm, "
            f"{100 * metrics['waiting']:.0f}% waiting"
        )
        self._bar.set_postfix_str(text)
        if self._bar.disable and time.monotonic() - self._last_line > 60:
            self._last_line = time.monotonic()
            print(f"{number:,} of {self._total:,} batches, {text}", flush=True)

    def look(
        self, number: int, trainer: PoseTrainer, learner: PoseLearner, batch: Batch
    ) -> None:
        """Put some images into TensorBoard, with true and predicted pose on them."""
        images = np.asarray(batch.images[:4])
        found = trainer.predict(learner, jnp.asarray(images))
        truth = jax.tree.map(lambda x: x[:4], batch.poses)
        sheet = pictures.with_poses(images, found, truth, self._scene)
        self._board.image("poses", sheet, number)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()
        close_quietly(self._file, self._board)


def plot_learning_curve(run_dir: Path) -> None:
    """Errors on training batches over batches, smoothed."""
    rows = read_metrics(run_dir)
    if not rows:
        return
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    window = max(1, len(rows) // 50)
    for axis, name, label in zip(
        axes,
        ("rotation_degrees", "position_mm"),
        ("rotation error [deg]", "position error [mm]"),
        strict=True,
    ):
        values = np.array([row[name] for row in rows])
        smooth = np.convolve(values, np.ones(window) / window, "valid")
        axis.plot([row["batch"] for row in rows][window - 1 :], smooth)
        axis.set(xlabel="batches", ylabel=f"{label}, training images")
        axis.set_ylim(bottom=0)
        axis.locator_params(axis="x", nbins=5)
        axis.grid(alpha=0.3)
    save_figure(figure, run_dir / "learning_curve.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
