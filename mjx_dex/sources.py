"""What training can continue from: another run, or a bundle (``.dex``)."""

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mjx_dex import lineage, settings
from mjx_dex.checkpoints import CheckpointError
from mjx_dex.config import Config, GoalConfig, replace
from mjx_dex.learning.checkpoints import Checkpoints
from mjx_dex.lineage import Session
from robot_bridge import policies

FORMATS = (1, 2)
"""Of bundles that can be continued."""
TRAINING = "training.npz"
"""In a bundle: leaves of a ``Learned`` by dotted name (``robot_bridge.export``)."""


@dataclass(frozen=True)
class Source:
    """What was learned in a run, or came with a bundle."""

    path: Path
    config: Config
    """It was trained with."""
    origin: str
    """The run or bundle that it continued itself; empty if it began from nothing."""
    sessions: tuple[Session, ...]
    """In which it was learned, the oldest first."""
    iteration: int
    env_steps: int
    """It has learned from."""
    arrays: dict[str, np.ndarray]
    """Leaves of a ``Learned`` by dotted name; of a bundle not all of them."""


def config_of(path: Path) -> Config:
    """The configuration of a run or a bundle.

    Args:
        path: of its folder, or the name of a packaged policy.

    Raises:
        ValueError: if there is neither in that folder, or it is damaged.
    """
    path = policies.find(path)
    if (path / "config.yaml").exists():
        return settings.load(path / "config.yaml")
    if (path / "manifest.json").exists():
        return _config_of_bundle(path, _manifest(path))
    raise ValueError(
        f"there is no run or bundle in {path} (it would hold a config.yaml or a "
        "manifest.json)"
    )


def read(path: Path) -> Source:
    """Read a run's latest checkpoint, or a bundle.

    Args:
        path: as of ``config_of``.

    Raises:
        ValueError: as ``config_of`` does.
        CheckpointError: if the run's checkpoint is damaged or not there.
    """
    path, config = policies.find(path), config_of(path)
    if (path / "config.yaml").exists():
        return _read_run(path, config)
    return _read_bundle(path, config)


def _read_run(path: Path, config: Config) -> Source:
    if not (path / "checkpoints").exists():
        raise CheckpointError(f"there is no checkpoint in {path}")
    checkpoints = Checkpoints(path / "checkpoints")
    try:
        arrays, iteration = checkpoints.learned(), checkpoints.latest()
    finally:
        checkpoints.close()
    line = lineage.read(path)
    return Source(
        path=path,
        config=config,
        origin=line.origin,
        sessions=line.up_to(iteration),
        iteration=iteration,
        env_steps=line.env_steps(iteration),
        arrays=arrays,
    )


def _read_bundle(path: Path, config: Config) -> Source:
    training = _manifest(path)["training"]
    if (path / TRAINING).exists():
        arrays = _arrays(path, TRAINING)
    else:
        arrays = _policy_alone(_arrays(path, "weights.npz"), training["env_steps"])
    return Source(
        path=path,
        config=config,
        origin=training.get("origin", ""),
        sessions=_sessions(path, training),
        iteration=int(arrays.get("iteration", 0)),
        env_steps=training["env_steps"],
        arrays=arrays,
    )


def _sessions(path: Path, training: dict[str, Any]) -> tuple[Session, ...]:
    try:
        return lineage.sessions(training.get("lineage", []))
    except ValueError as error:
        raise ValueError(f"{path}/manifest.json: {error}") from error


def _manifest(path: Path) -> dict[str, Any]:
    _check_sum(path, "manifest.json")
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    for part in ("format", "training"):
        if part not in manifest:
            raise ValueError(f"{path}/manifest.json lacks {part}")
    if manifest["format"] not in FORMATS:
        raise ValueError(
            f"{path} is of format {manifest['format']}, and this version of mjx_dex "
            f"reads {' and '.join(map(str, FORMATS))}"
        )
    for part in ("config", "env_steps"):
        if part not in manifest["training"]:
            raise ValueError(f"{path}/manifest.json lacks training.{part}")
    return manifest


def _config_of_bundle(path: Path, manifest: dict[str, Any]) -> Config:
    config = settings.parse(manifest["training"]["config"], f"{path}/manifest.json")
    if manifest["format"] > 1:
        return config
    # Format 1 has the limits of an evaluation's trials in the place of training's.
    goal = {name: getattr(GoalConfig(), name) for name in ("seconds", "count")}
    return replace(config, **{f"task.goal.{name}": x for name, x in goal.items()})


def _arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    _check_sum(path, name)
    try:
        with open(path / name, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path / name} cannot be read: {error}") from error


def _check_sum(path: Path, name: str) -> None:
    """Raise ValueError unless a bundle's file is what was exported."""
    if not (path / name).exists():
        raise ValueError(f"{path / name} is not there: export the run again")
    sums = path / "SHA256SUMS"
    lines = sums.read_text(encoding="utf-8").splitlines() if sums.exists() else []
    digest = hashlib.sha256((path / name).read_bytes()).hexdigest()
    if f"{digest}  {name}" not in lines:
        raise ValueError(
            f"{path / name} is not what was exported (its SHA-256 is not in {sums}): "
            "export the run again"
        )


def _policy_alone(
    weights: dict[str, np.ndarray], env_steps: int
) -> dict[str, np.ndarray]:
    """The policy of a bundle of format 1, from the weights that a robot runs."""
    layers = {"dense": "dense", "head": "head", "no_memory": "no_memory"}
    layers["lstm_input"] = "lstm.input"
    params = "parameters.policy.params"
    arrays = {
        f"{params}.{name}.{kind}": weights[f"{layer}/{kind}"]
        for layer, name in layers.items()
        for kind in ("kernel", "bias")
        if f"{layer}/{kind}" in weights
    }
    if "lstm_recurrent" in weights:
        arrays[f"{params}.lstm.recurrent"] = weights["lstm_recurrent"]
        # The robot's holds the 1 that the network adds to the forget gate, the second.
        units = len(weights["lstm_recurrent"])
        bias = weights["lstm_input/bias"].copy()
        bias[units : 2 * units] -= 1.0
        arrays[f"{params}.lstm.input.bias"] = bias
    return arrays | {
        "statistics.policy.mean": weights["mean"],
        "statistics.policy.variance": np.square(weights["deviation"]),
        "statistics.policy.count": np.float32(env_steps),
    }
