"""``python -m mjx_dex.grasps RUN``: how a policy holds its object.

Section 6.1 and Figure 7 of the paper, counted.
States of rollouts are looked at by MuJoCo's C engine: what touches the object, whatever
engine they came from. Worlds are nominal, so that its geometry is theirs.
"""

import collections
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import matplotlib
import mujoco
import numpy as np

from mjx_dex import runs, settings, startup
from mjx_dex.config import Config
from mjx_dex.hand import build_hand
from mjx_dex.hand.names import FINGERS
from mjx_dex.play import Play
from mjx_dex.randomization.menu import enabled_effects
from mjx_dex.ranges import Count, Positive
from robot_bridge.files import (
    Output,
    check_outputs,
    picture_formats,
    save_figure,
    write_at_once,
)

matplotlib.use("agg")
import matplotlib.pyplot as plt

NOMINAL = {"randomization.preset": "none", "randomization.on": ()}

PHALANGES = ("proximal", "middle", "distal")
THUMB = FINGERS.index("TH")

GRASPS = {
    "tip pinch": "thumb and one finger, with the ends of both",
    "palmar pinch": "thumb and one finger, with the pad of one at least",
    "tripod": "thumb and two fingers",
    "quadpod": "thumb and three fingers",
    "5-finger precision": "thumb and four fingers",
    "power": "thumb and one finger at least, and the palm",
    "unopposed": "no finger against the thumb: it lies on the hand",
    "in the air": "nothing touches it",
}
"""Figure 7's grasps, which are of the taxonomy of Feix et al., told by what touches the
object: none but 'power' and 'unopposed' with the palm."""


@dataclass(frozen=True)
class GraspsCommand(Config):
    """Options of the command itself; configuration options change the run's own."""

    worlds: Count = 64
    """Played in parallel."""
    minutes: Positive = 1.0
    """Played in each world, one episode after another."""
    every: Count = 5
    """Look at every so-manieth control step."""
    untrained: bool = False
    """Look at the policy as it was before training, for comparison."""
    json: Path | None = None
    """Write every figure to this file."""
    plot: Path | None = None
    """Draw a sample of each grasp to this file."""


@dataclass(frozen=True)
class Touch:
    """What touches the object in one state."""

    phalanges: np.ndarray
    """[5, 3] bool: of each finger (``FINGERS``), proximal, middle and distal."""
    ends: np.ndarray
    """[5] bool: the finger touches with the round end of its distal phalanx, and with
    nothing else."""
    palm: bool
    """Palm, or the metacarpal bone of the little finger."""
    wrist: bool
    """Wrist or forearm."""


class Observer:
    """Finds what touches the object of a scene."""

    def __init__(self, model: mujoco.MjModel):
        self._model, self._data = model, mujoco.MjData(model)
        self._object = model.geom_bodyid == model.nbody - 1
        self._phalanx = {
            model.body(f"robot0:{finger.lower()}{name}").id: (k, j)
            for k, finger in enumerate(FINGERS)
            for j, name in enumerate(PHALANGES)
        }
        self._palm, self._wrist = (
            {model.body(f"robot0:{name}").id for name in names}
            for names in (("palm", "lfmetacarpal"), ("wrist", "forearm"))
        )

    def touch(self, qpos: np.ndarray) -> Touch:
        """What touches the object at [nq] ``qpos``."""
        model, data = self._model, self._data
        data.qpos[:] = qpos
        mujoco.mj_fwdPosition(model, data)
        phalanges = np.zeros((len(FINGERS), len(PHALANGES)), bool)
        elsewhere, bodies = np.zeros(len(FINGERS), bool), set()
        for contact in data.contact:
            geoms = contact.geom
            ours = self._object[geoms]
            if ours.sum() != 1 or contact.dist > 0:
                continue
            geom = int(geoms[~ours][0])
            body = int(model.geom_bodyid[geom])
            bodies.add(body)
            if body in self._phalanx:
                finger, phalanx = self._phalanx[body]
                phalanges[finger, phalanx] = True
                elsewhere[finger] |= not self._is_at_end(geom, phalanx, contact.pos)
        return Touch(
            phalanges,
            ends=phalanges.any(axis=1) & ~elsewhere,
            palm=not bodies.isdisjoint(self._palm),
            wrist=not bodies.isdisjoint(self._wrist),
        )

    def _is_at_end(self, geom: int, phalanx: int, position: np.ndarray) -> bool:
        """Whether a point is on the half sphere that ends a distal capsule."""
        if PHALANGES[phalanx] != "distal":
            return False
        rotation = self._data.geom_xmat[geom].reshape(3, 3)
        along = rotation[:, 2] @ (position - self._data.geom_xpos[geom])
        return bool(along > self._model.geom_size[geom, 1])


def classify(touch: Touch) -> str:
    """A grasp's name: a key of ``GRASPS``."""
    digits = touch.phalanges.any(axis=1)
    fingers = int(digits.sum() - digits[THUMB])
    if not (digits.any() or touch.palm or touch.wrist):
        return "in the air"
    if not digits[THUMB] or not fingers:
        return "unopposed"
    if touch.palm:
        return "power"
    if fingers == 1:
        return "tip pinch" if touch.ends[digits].all() else "palmar pinch"
    return {2: "tripod", 3: "quadpod", 4: "5-finger precision"}[fingers]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return runs.command_line(_main, arguments)


def _main(arguments: list[str]) -> None:
    run, command = runs.from_command_line(GraspsCommand, arguments, __doc__, NOMINAL)
    check_outputs(
        Output("--json", command.json),
        Output("--plot", command.plot, picture_formats()),
    )
    config = settings.config_of(command)
    policy = runs.load_policy(run, config, command.untrained)
    unknown = enabled_effects(config.randomization) & {"object_size", "object_shape"}
    if unknown:
        raise ValueError(
            f"--randomization: {', '.join(sorted(unknown))} gives each world an object "
            "of its own, and what touches it is told of the nominal one; leave it off"
        )
    if command.plot:
        startup.check_drawing()  # before hours of play
    if command.every < 1:
        raise ValueError(f"--every: {command.every} is not 1 or more")
    model = build_hand(config.hand, config.object, config.physics).model
    if command.plot:
        mujoco.Renderer(model).close()  # where nothing can be drawn, fail now
    states = sample(Play(config, policy.agent, command.worlds), command)
    observer = Observer(model)
    touches = [observer.touch(qpos) for qpos in states]
    figures = count(touches)
    try:
        if command.json:
            write_at_once(command.json, json.dumps(figures, indent=1))
        if command.plot:
            draw(config, states, touches, command.plot)
    finally:  # also where the disk is full by now
        print(report(figures))
        print(f"object {config.object.shape}; {policy.history}")


def sample(play: Play, command: GraspsCommand) -> np.ndarray:
    """[n, nq] states, evenly over the time that was played."""
    steps = play.steps(jax.random.key(play.config.seed))
    period = play.config.physics.control_period
    number = max(1, round(60 * command.minutes / period))
    states = []
    for k in range(number):
        _, after, _ = next(steps)
        if k % command.every == 0:
            states.append(np.asarray(after.state.worlds.physics.qpos))
    return np.concatenate(states)


def count(touches: list[Touch]) -> dict:
    """Shares of the time, by name."""
    names = collections.Counter(map(classify, touches))
    phalanges = np.array([touch.phalanges for touch in touches])
    digits = phalanges.any(axis=2)
    return {
        "states": len(touches),
        "grasps": {name: names[name] / len(touches) for name in GRASPS},
        "digits": dict(zip(FINGERS, digits.mean(axis=0).tolist(), strict=True)),
        "palm": float(np.mean([touch.palm for touch in touches])),
        "phalanges": {
            name: float(phalanges[:, :, j].sum() / max(phalanges.sum(), 1))
            for j, name in enumerate(PHALANGES)
        },
    }


def report(figures: dict) -> str:
    """Markdown tables."""
    lines = [
        f"| grasp ({figures['states']:,} states) | of the time | what touches |",
        "|---|---|---|",
    ]
    for name, share in figures["grasps"].items():
        lines.append(f"| {name} | {share:.1%} | {GRASPS[name]} |")
    touching = figures["digits"] | {"palm": figures["palm"]}
    lines += ["", f"| {' | '.join(touching)} |", "|---" * len(touching) + "|"]
    lines.append(f"| {' | '.join(f'{share:.1%}' for share in touching.values())} |")
    parts = ", ".join(f"{n} {share:.1%}" for n, share in figures["phalanges"].items())
    lines += ["", f"Of all phalanges that touch: {parts}."]
    return "\n".join(lines)


def draw(config: Config, states: np.ndarray, touches: list[Touch], path: Path) -> None:
    """Draw one page: the middle one of the states of each grasp, as in Figure 7."""
    model = build_hand(config.hand, config.object, config.physics, visuals=True).model
    data = mujoco.MjData(model)
    by_name = collections.defaultdict(list)
    for state, touch in zip(states, touches, strict=True):
        by_name[classify(touch)].append(state)
    figure, axes = plt.subplots(2, 4, figsize=(12, 5), layout="constrained")
    with mujoco.Renderer(model, 360, 480) as renderer:
        for axis, name in zip(axes.flat, GRASPS, strict=True):
            found = by_name[name]
            axis.axis("off")
            axis.set_title(f"{name}, {len(found) / len(states):.1%}")
            if found:
                data.qpos[:] = found[len(found) // 2]
                mujoco.mj_forward(model, data)
                renderer.update_scene(data, "overview")
                axis.imshow(renderer.render())
    save_figure(figure, path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
