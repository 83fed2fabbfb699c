"""The exported policy: a folder that is checked before anything in it is used.

``manifest.json`` says what the numbers mean, ``weights.npz`` holds them,
``golden.npz`` what they must give, ``policy.onnx`` the same network for other runtimes,
``SHA256SUMS`` what all of them are (``sha256sum --check`` reads it, too).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robot_bridge.policy import Policy

SUMS = "SHA256SUMS"

FILES = ("manifest.json", "weights.npz", "golden.npz", "policy.onnx")
"""Of every bundle, beside ``SUMS``."""

TRAINING = "training.npz"
"""With which training continues (``mjx_dex.sources``). It is never loaded here, and
need not be copied to a robot."""

FORMAT = 2
"""Of the manifest, as it is written."""

READABLE = (1, 2)
"""Formats that are read. Format 1 has no least deviation of actions, lineage or
``TRAINING``."""

TOLERANCE = 1e-5
"""Largest difference of golden outputs."""

REQUIRED = {
    "hand": {
        "side",
        "base_markers",
        "world_position",
        "world_rotation",
        "chain",
        "tips",
    },
    "control": {"period", "targets", "bins", "smoothing", "locked"},
    "network": {"memory", "deviation"},
    "goal": {"distribution", "angles", "tolerance", "seconds", "count", "drop_height"},
    "training": {"run", "env_steps", "object", "stale_markers", "pose_age"},
}
"""Parts of a manifest and what each must say."""


class BundleError(ValueError):
    """A bundle that must not be run; the message names it and what is wrong."""


@dataclass(frozen=True)
class Bundle:
    """A policy and what is needed to run it on a hand."""

    path: Path
    manifest: dict[str, Any]
    policy: Policy
    golden: dict[str, np.ndarray]

    @property
    def digest(self) -> str:
        """SHA-256 of the list of all files' own."""
        return hash_of(self.path / SUMS)

    @property
    def deviations(self) -> tuple[float, float]:
        """Standard deviation of actions that are numbers: first and least.

        See ``mjx_dex.learning.distributions.Gaussian``.
        """
        network, has_least = self.manifest["network"], self.manifest["format"] > 1
        return network["deviation"], network["least_deviation"] if has_least else 0.0

    @property
    def joints(self) -> list[str]:
        """Shadow's names of the 24 joints, in the policy's order."""
        return [joint["name"] for joint in self.manifest["joints"]]

    @property
    def actuators(self) -> list[str]:
        """Shadow's names of the 20 actuators, in the policy's order."""
        return [actuator["name"] for actuator in self.manifest["actuators"]]


def load(path: Path) -> Bundle:
    """Read a bundle, check all of it and recompute its golden vectors.

    Raises:
        BundleError: if a file is missing or was changed, the manifest is not of this
            format, or this machine computes something else.
    """
    path = Path(path)
    _check_sums(path)
    manifest = _read_manifest(path)
    weights = _arrays(path / "weights.npz")
    golden = _arrays(path / "golden.npz")
    try:
        policy = Policy(weights, manifest["network"]["memory"])
        bundle = Bundle(path, manifest, policy, golden)
        difference, bins = compare_golden(bundle)
    except (KeyError, ValueError) as error:
        raise BundleError(f"{path}: weights do not fit: {error}") from error
    if not difference <= TOLERANCE or bins:
        raise BundleError(
            f"{path}: this machine computes other outputs than the exporter did (by "
            f"{difference:.1e}, {bins} bins differ); do not run it here"
        )
    return bundle


def compare_golden(bundle: Bundle) -> tuple[float, int]:
    """Largest difference from the golden outputs, and how many bins differ."""
    golden, carry = bundle.golden, None
    difference, bins = 0.0, 0
    for observation, first, outputs in zip(
        golden["observations"], golden["first"], golden["outputs"]
    ):
        carry = bundle.policy.initial_carry() if first else carry
        carry, found = bundle.policy.step(carry, observation)
        if found.shape != outputs.shape:
            raise ValueError(f"outputs of shape {found.shape}, not {outputs.shape}")
        difference = max(difference, float(np.abs(found - outputs).max()))
        bins += int((found.argmax(-1) != outputs.argmax(-1)).sum())
    return difference, bins


def hash_of(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sums_of(path: Path) -> str:
    """The list of a folder's files and their SHA-256, as ``sha256sum`` writes it."""
    names = [name for name in (*FILES, TRAINING) if (path / name).exists()]
    return "".join(f"{hash_of(path / name)}  {name}\n" for name in names)


def _check_sums(path: Path) -> None:
    try:
        lines = (path / SUMS).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BundleError(
            f"there is no bundle in {path} ({SUMS}: {error.strerror}); make one: "
            "python -m robot_bridge.export RUN OUT"
        ) from error
    sums = {name: digest for digest, _, name in (s.partition("  ") for s in lines)}
    for name in FILES:
        if not (path / name).is_file():
            raise BundleError(f"{path}: {name} is missing; export the run again")
        if hash_of(path / name) != sums.get(name):
            raise BundleError(
                f"{path / name} is not what was exported (its SHA-256 is not that in "
                f"{SUMS}): it was changed or copied badly; export the run again"
            )


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / "manifest.json"
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{file} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") not in READABLE:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise BundleError(
            f"{file} has format {found}, and this bridge reads "
            f"{' and '.join(map(str, READABLE))}; export the "
            "run with the same version of mjx_dex"
        )
    for part, keys in REQUIRED.items():
        missing = sorted(keys - set(manifest.get(part, {})))
        if missing:
            raise BundleError(f"{file} lacks {part}.{missing[0]}")
    if manifest["format"] > 1 and "least_deviation" not in manifest["network"]:
        raise BundleError(f"{file} lacks network.least_deviation")
    for part in ("joints", "actuators", "inputs"):
        if part not in manifest:
            raise BundleError(f"{file} lacks {part}")
    return manifest


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
