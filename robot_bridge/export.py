"""``python -m robot_bridge.export RUN OUT``: a trained policy as a checked folder."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mjx_dex import lineage, runs, settings
from mjx_dex.config import Config
from mjx_dex.hand import Hand, build_hand, names
from mjx_dex.learning.agent import Agent
from mjx_dex.learning.distributions import Gaussian
from mjx_dex.learning.statistics import CLIP
from mjx_dex.randomization.menu import enabled_effects
from mjx_dex.sources import Source
from mjx_dex.task.actions import WRIST_PITCH
from robot_bridge import bundle, onnx_graph, terminal
from robot_bridge.files import (
    Output,
    check_outputs,
    write_at_once,
    written_at_once,
)
from robot_bridge.rotations import from_matrix, to_matrix
from robot_bridge.task import SENSED

GOLDEN_STEPS = 64
"""Length of the golden sequence; memory is cleared every ``GOLDEN_EPISODE`` steps."""
GOLDEN_EPISODE = 16


@dataclass(frozen=True)
class ExportCommand(Config):
    """Options of the command itself; configuration options change the run's own."""

    overwrite: bool = False
    """Replace a bundle that is there."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return runs.command_line(_main, arguments)


def _main(arguments: list[str]) -> None:
    folders = [a for a in arguments[:2] if not a.startswith("-")]
    if len(folders) < 2 and not {"-h", "--help"} & set(arguments):
        raise ValueError("give two folders: python -m robot_bridge.export RUN OUT")
    run, command = runs.from_command_line(
        ExportCommand, folders[:1] + arguments[2:] if folders else arguments, __doc__
    )
    out = Path(folders[1])
    check_outputs(Output("OUT", out, is_folder=True), inputs=[run])
    export(run, settings.config_of(command), out, command.overwrite)
    exported = bundle.load(out)
    difference, _ = bundle.compare_golden(exported)
    size = sum(file.stat().st_size for file in out.iterdir()) / 2**20
    print(f"exported to {out} ({size:.1f} MB, {exported.digest[:12]})")
    print(f"NumPy agrees with JAX to {difference:.1e} over {GOLDEN_STEPS} steps")
    print(f"rehearse it: {terminal.shell_command('robot_bridge.run', out)}")


def export(run: Path, config: Config, out: Path, overwrite: bool = False) -> None:
    """Write a bundle, all of it or nothing.

    Args:
        run: folder of a training run.
        config: the run's; goals and limits may differ.
        out: the bundle's folder.
        overwrite: replace a bundle that is there.

    Raises:
        ValueError: if the policy needs what no hand can sense, or ``out`` is there.
        CheckpointError: if the run has no policy.
    """
    blind = [name for name in config.task.policy_inputs if name not in SENSED]
    if blind:
        raise ValueError(
            f"{run}: its policy sees {blind[0]}, which no hand can sense; train with "
            f"--task.policy-inputs of {', '.join(SENSED)}"
        )
    if out.exists() and not (overwrite and (out / "manifest.json").exists()):
        hint = (
            "add --overwrite" if (out / "manifest.json").exists() else "it is no bundle"
        )
        raise ValueError(f"{out} is there; give another folder ({hint})")
    policy = runs.load_policy(run, config)
    source = policy.source
    weights = weights_of(policy.agent)
    hand = build_hand(config.hand, config.object, config.physics)
    manifest = manifest_of(config, hand, source)
    metadata = {
        key: json.dumps(manifest[key]) for key in ("inputs", "joints", "actuators")
    }
    model = onnx_graph.make_model(weights, config.network.policy_memory, metadata)
    golden, training = golden_of(policy.agent), training_of(source)
    with written_at_once(out) as unfinished:
        unfinished.mkdir()
        np.savez(unfinished / "weights.npz", **weights)
        np.savez(unfinished / "golden.npz", **golden)
        np.savez(unfinished / bundle.TRAINING, **training)
        (unfinished / "policy.onnx").write_bytes(model.SerializeToString())
        write_at_once(unfinished / "manifest.json", json.dumps(manifest, indent=1))
        write_at_once(unfinished / bundle.SUMS, bundle.sums_of(unfinished))
        if out.exists():
            shutil.rmtree(out)


def weights_of(agent: Agent) -> dict[str, np.ndarray]:
    """The policy's weights as ``Policy`` takes them."""
    parameters = jax.device_get(agent.parameters["policy"]["params"])
    statistics = agent.statistics["policy"]
    weights = {
        "mean": np.asarray(statistics.mean),
        "deviation": np.asarray(statistics.deviation),
        "clip": np.float32(CLIP),
        "output_shape": np.array(agent.networks.policy.outputs),
    }
    layers = {"dense": parameters["dense"], "head": parameters["head"]}
    if "lstm" in parameters:
        layers["lstm_input"] = parameters["lstm"]["input"]
        weights["lstm_recurrent"] = parameters["lstm"]["recurrent"]
    else:
        layers["no_memory"] = parameters["no_memory"]
    for name, layer in layers.items():
        weights[f"{name}/kernel"] = layer["kernel"]
        weights[f"{name}/bias"] = layer["bias"]
    if "lstm" in parameters:
        # The network adds 1 to the forget gate, the second of four.
        units = len(weights["lstm_recurrent"])
        bias = weights["lstm_input/bias"].copy()
        bias[units : 2 * units] += 1.0
        weights["lstm_input/bias"] = bias
    return {name: np.asarray(array) for name, array in weights.items()}


def golden_of(agent: Agent) -> dict[str, np.ndarray]:
    """Observations, and what JAX makes of them, for runtimes to compare with."""
    statistics = agent.statistics["policy"]
    noise = np.random.default_rng(0).standard_normal(
        (GOLDEN_STEPS, *statistics.mean.shape)
    )
    observations = np.float32(statistics.mean + 1.5 * noise * statistics.deviation)
    first = np.arange(GOLDEN_STEPS) % GOLDEN_EPISODE == 0
    act = jax.jit(agent.in_float32().act)
    carry, outputs = agent.networks.policy.initial_carry(), []
    for observation, is_first in zip(observations, first, strict=True):
        carry, output = act(carry, jnp.asarray(observation), jnp.asarray(is_first))
        outputs.append(np.asarray(output))
    return {"observations": observations, "first": first, "outputs": np.array(outputs)}


def training_of(source: Source) -> dict[str, np.ndarray]:
    """What training continues with: all that was learned, but for the optimizer.

    Adam's moments would be two thirds of it, and are found again within an iteration.
    """
    return {
        name: array
        for name, array in source.arrays.items()
        if not name.startswith("optimizer_state.")
    }


def manifest_of(config: Config, hand: Hand, source: Source) -> dict[str, Any]:
    """What the numbers mean. Angles are in Shadow's names, signs and zeros."""
    task, goal = config.task, config.task.goal
    effects = enabled_effects(config.randomization)
    dropout = config.randomization.marker_dropout
    tracking_loss = config.randomization.object_tracking_loss
    return {
        "format": bundle.FORMAT,
        "joints": [
            {"name": joint.shadow, "sign": joint.menagerie_sign}
            for joint in names.JOINTS
        ],
        "actuators": [
            _actuator(row, *limits)
            for row, limits in zip(names.ACTUATORS, hand.ctrl_range, strict=True)
        ],
        "inputs": list(task.policy_inputs),
        "network": {
            "memory": config.network.policy_memory,
            "hidden": config.network.hidden,
            "units": config.network.memory,
            # Of actions that are numbers: where the second output is 0, and at least.
            "deviation": Gaussian.FIRST_DEVIATION,
            "least_deviation": Gaussian.LEAST_DEVIATION,
        },
        "control": {
            "period": config.physics.control_period,
            "targets": task.action_targets,
            "bins": task.action_bins,
            "smoothing": config.smoothing_weight,
            "locked": [names.ACTUATORS[WRIST_PITCH].shadow] * task.locked_wrist,
        },
        "goal": {
            "distribution": goal.distribution,
            "angles": list(goal.angles),
            "tolerance": goal.tolerance,
            "seconds": goal.seconds,
            "count": goal.count,
            "drop_height": task.drop_height,
        },
        "hand": {
            "side": "right",
            "base_markers": hand.base_markers.tolist(),
            "world_position": hand.frame_position.tolist(),
            "world_rotation": hand.frame_rotation.tolist(),
            **_kinematics(hand),
        },
        "training": {
            "run": source.path.resolve().name,
            "origin": source.origin,
            "env_steps": source.env_steps,
            "lineage": lineage.plain(source.sessions),
            "object": settings.plain(config.object),
            "effects": sorted(effects),
            "stale_markers": dropout.seconds if "marker_dropout" in effects else 0.0,
            "pose_age": (
                tracking_loss.seconds if "object_tracking_loss" in effects else 0.0
            ),
            "start_steps": task.start_steps,
            # Its own: ``config`` has the limits of a trial.
            "config": settings.plain(source.config),
        },
        "units": {"angles": "rad", "lengths": "m", "times": "s", "quaternions": "wxyz"},
        "versions": {
            **{name: _version(name) for name in ("mjx_dex", "jax", "flax", "mujoco")},
            "commit": lineage.commit(),
        },
    }


def _version(package: str) -> str:
    """Of a package; mjx_dex itself may be run from a folder, where it has none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _actuator(row: names.ActuatorName, low: float, high: float) -> dict[str, Any]:
    """One actuator, its range in Shadow's sign."""
    joints = {joint.ours: joint for joint in names.JOINTS}
    moved = [joints[name] for name in row.joints]
    (sign,) = {joint.menagerie_sign for joint in moved}
    low, high = sorted((sign * low, sign * high))
    return {
        "name": row.shadow,
        "joints": [joint.shadow for joint in moved],
        "sign": sign,
        "low": low,
        "high": high,
    }


def _kinematics(hand: Hand) -> dict[str, Any]:
    """Links and fingertip markers in the frame of the base's markers."""
    model, links = hand.model, []
    tip_bodies = model.site_bodyid[hand.fingertip_sites]
    bodies = sorted({body for tip in tip_bodies for body in _ancestors(model, tip)})
    for body in bodies:
        position, quaternion = model.body_pos[body], model.body_quat[body]
        parent = model.body_parentid[body]
        if parent == 0:
            position = hand.frame_rotation @ (position - hand.frame_position)
            quaternion = from_matrix(hand.frame_rotation @ to_matrix(quaternion))
        link = {
            "name": model.body(body).name.removeprefix("robot0:"),
            "parent": model.body(parent).name.removeprefix("robot0:")
            if parent
            else None,
            "position": position.tolist(),
            "quaternion": quaternion.tolist(),
            "joint": None,
            "axis": None,
        }
        if model.body_jntnum[body]:
            joint = names.JOINTS[model.body_jntadr[body]]
            axis = joint.menagerie_sign * model.jnt_axis[model.body_jntadr[body]]
            link |= {"joint": joint.shadow, "axis": axis.tolist()}
        links.append(link)
    tips = [
        {
            "link": model.body(body).name.removeprefix("robot0:"),
            "position": model.site_pos[site].tolist(),
        }
        for body, site in zip(tip_bodies, hand.fingertip_sites, strict=True)
    ]
    return {"chain": links, "tips": tips}


def _ancestors(model, body: int) -> list[int]:
    """A body and those that it hangs on, without the world."""
    found = []
    while body:
        found.append(int(body))
        body = model.body_parentid[body]
    return found


if __name__ == "__main__":
    sys.exit(main())
