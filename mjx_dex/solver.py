"""``python -m mjx_dex.solver``: speed and accuracy of solver settings and buffers.

Every variant advances the same recorded states by one control step, in turns with the
configured settings. The results are compared with MuJoCo's C engine: the distance of
joints and object from their positions there, and the penetration of contacts.
"""

import copy
import dataclasses
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import jax
import mujoco
import numpy as np

from mjx_dex import costs, mujoco_warnings, settings, startup
from mjx_dex.config import Config, PhysicsConfig
from mjx_dex.hand import Hand, build_hand
from mjx_dex.hand.model import NUM_JOINTS
from mjx_dex.physics import Engine, choose_engine, make_engine
from mjx_dex.physics.contacts import measure_contacts
from mjx_dex.ranges import Count, NotNegative
from mjx_dex.task import with_buffers
from robot_bridge.files import Output, check_outputs, write_at_once


@dataclass(frozen=True)
class Variant:
    """What differs from the configured physics."""

    physics: dict[str, int] = field(default_factory=dict)
    """Fields of ``PhysicsConfig``."""
    options: dict[str, int] = field(default_factory=dict)
    """Fields of MuJoCo's ``opt``."""
    disabled: int = 0
    """Bits added to ``opt.disableflags``."""


SPARSE = {"jacobian": int(mujoco.mjtJacobian.mjJAC_SPARSE)}
NO_CCD = int(mujoco.mjtDisableBit.mjDSBL_NATIVECCD)
FEW_ITERATIONS = {"iterations": 5, "ls_iterations": 10}
FEW_BUFFERS = {"max_contacts": 16, "max_constraints": 144}

VARIANTS = {
    "configured": Variant(),
    "few_iterations": Variant(physics=FEW_ITERATIONS),
    "small_buffers": Variant(physics=FEW_BUFFERS),
    "sparse_jacobian": Variant(options=SPARSE),
    "separating_axes": Variant(disabled=NO_CCD),
    "all": Variant(FEW_ITERATIONS | FEW_BUFFERS, SPARSE, NO_CCD),
}
"""Compared; the first is the baseline of the ratios. ``separating_axes``: contacts of
boxes by the separating axis theorem, not by convex collision detection."""


@dataclass(frozen=True)
class SolverCommand(Config):
    """Options of the command itself, beside the configuration's."""

    config: str | None = None
    """Configuration whose environments are stepped; by default quickstart on a CPU,
    single_gpu on an accelerator."""
    variants: tuple[str, ...] = ()
    """Of configured, few_iterations, small_buffers, sparse_jacobian, separating_axes
    and all: only these. Each is measured in turns with 'configured'."""
    envs: tuple[Count, ...] = ()
    """Numbers of environments; by default the configured one."""
    repeats: Count = 5
    """Timed runs of each variant, each beside one of the baseline."""
    max_minutes: NotNegative | None = None
    """Time limit: variants that have not begun by then are left out and listed."""
    json: Path = Path("solver.json")
    """The table is saved to this file."""


@dataclass(frozen=True)
class Row:
    """One variant at one number of environments."""

    variant: str
    environments: int
    env_steps_per_second: float
    ratio: float
    """Of its pace to the baseline's, in pairs."""
    overflowed: int
    """Environment steps with a full buffer, in one run."""
    joints: float
    """RMS distance from the C engine's joint angles after a control step [rad]."""
    position: float
    """RMS distance of the object's centre [m]."""
    penetration: float
    """Mean depth of contacts after the step [m]."""
    deepest_1_percent: float
    """99th percentile of it [m]."""

    def __str__(self):
        return (
            f"{self.variant:25} {self.environments:8,} "
            f"{self.env_steps_per_second:12,.0f} {self.ratio:6.2f} "
            f"{self.overflowed:10,} {self.joints:9.1e} {1e3 * self.position:9.3f} "
            f"{1e3 * self.penetration:8.3f} {1e3 * self.deepest_1_percent:8.3f}"
        )


HEADER = (
    f"{'variant':25} {'envs':>8} {'env steps/s':>12} {'ratio':>6} {'overflowed':>10} "
    f"{'joints':>9} {'object mm':>9} {'depth mm':>8} {'99% mm':>8}"
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    started = time.monotonic()
    startup.set_up()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        startup.check_jax()
        preset = "quickstart" if jax.default_backend() == "cpu" else "single_gpu"
        base = settings.early_option(arguments, "--config") or preset
        command = settings.from_command_line(
            SolverCommand, settings.load(base), arguments, description=__doc__
        )
        check_outputs(Output("--json", command.json))
        minutes = np.inf if command.max_minutes is None else command.max_minutes
        compare(command, started + 60 * minutes)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        mujoco_warnings.report()
    print(f"saved {command.json}")
    return 0


def compare(command: SolverCommand, deadline: float) -> list[Row]:
    """Measure, print and save every variant that there is time for.

    Raises:
        ValueError: if a variant is unknown, or the engine chooses settings itself.
    """
    if choose_engine(command.engine)[0] == "native":
        raise ValueError(
            "the native engine has solver settings of its own (physics/native.py); "
            "give --engine warp or mjx"
        )
    unknown = [name for name in command.variants if name not in VARIANTS]
    if unknown:
        raise ValueError(f"--variants: {unknown[0]} is none of {', '.join(VARIANTS)}")
    config, rows = settings.config_of(command), []
    print(HEADER)
    for envs in command.envs or (config.num_envs,):
        stage = None
        for name in command.variants or VARIANTS:
            if time.monotonic() > deadline:
                print(f"left out, for the time is over: {name}, {envs} environments")
                continue
            gc.collect()  # what was kept on a GPU before, which JAX does not see
            stage = stage or Stage(_sized(config, envs), command.repeats)
            rows.append(stage.measure(name))
            write_at_once(command.json, json.dumps([vars(row) for row in rows]))
            print(rows[-1], flush=True)
    return rows


def _sized(config: Config, envs: int) -> Config:
    engine, _ = choose_engine(config.engine)
    preset = config.randomization.preset
    return with_buffers(costs.with_worlds(config, engine, envs, preset))


class Stage:
    """Recorded states of one number of environments, and the baseline on them."""

    def __init__(self, config: Config, repeats: int):
        self._config, self._repeats = config, repeats
        self._hand = build_hand(config.hand, config.object, config.physics)
        self._inputs, self._originals = costs.recorded_inputs(config)
        native = make_engine("native", self._hand, config.physics)
        originals = jax.tree.map(lambda x: x[:, : self._originals], self._inputs)
        truth, _ = jax.block_until_ready(_program(native, originals)())
        self._truth = np.asarray(truth.qpos, float)
        self._baseline = self._make(Variant())

    def measure(self, name: str) -> Row:
        """One variant, in turns with the baseline."""
        run = self._make(VARIANTS[name])
        seconds, ratios = [], []
        for _ in range(self._repeats):
            before, after = _seconds(self._baseline), _seconds(run)
            seconds.append(after)
            ratios.append(before / after)
        state, overflowed = run()
        # Copies of environments are there for the pace, and end alike.
        qpos, qvel = (
            np.asarray(x[:, : self._originals], float).reshape(-1, x.shape[-1])
            for x in (state.qpos, state.qvel)
        )
        contacts = measure_contacts(self._hand.model, qpos, qvel)
        moved = qpos - self._truth.reshape(qpos.shape)
        position = moved[:, NUM_JOINTS : NUM_JOINTS + 3]
        return Row(
            variant=name,
            environments=self._config.num_envs,
            env_steps_per_second=overflowed.size / statistics.median(seconds),
            ratio=statistics.median(ratios),
            overflowed=int((np.asarray(overflowed) > 0).sum()),
            joints=float(np.sqrt(np.square(moved[:, :NUM_JOINTS]).mean())),
            position=float(np.sqrt(np.square(position).sum(1).mean())),
            penetration=contacts.mean_penetration,
            deepest_1_percent=contacts.deepest_1_percent,
        )

    def _make(self, variant: Variant) -> Callable:
        physics = dataclasses.replace(self._config.physics, **variant.physics)
        hand = _with_options(self._hand, variant, physics)
        engine = make_engine(self._config.engine, hand, physics)
        return _program(engine, self._inputs)


def _with_options(hand: Hand, variant: Variant, physics: PhysicsConfig) -> Hand:
    model = copy.copy(hand.model)
    options = {"iterations": physics.iterations, "ls_iterations": physics.ls_iterations}
    for name, value in (options | variant.options).items():
        setattr(model.opt, name, value)
    model.opt.disableflags |= variant.disabled
    return dataclasses.replace(hand, model=model)


def _program(engine: Engine, inputs) -> Callable:
    """Steps all recorded states, one control step after another, once compiled."""

    def run(inputs):
        return jax.lax.map(lambda arguments: jax.vmap(engine.step)(*arguments), inputs)

    compiled = jax.jit(run).lower(inputs).compile()
    jax.block_until_ready(compiled(inputs))
    # Programs of the warp engine call it, and do not keep it.
    return lambda _keep=engine: compiled(inputs)


def _seconds(run: Callable) -> float:
    begun = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main())
