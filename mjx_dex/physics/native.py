"""MuJoCo's C engine, stepping the whole batch on all CPU cores in one call."""

import hashlib
import os
import threading

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco.batch import Batch

from mjx_dex.config import PhysicsConfig
from mjx_dex.hand import Hand
from mjx_dex.physics import host_call
from mjx_dex.physics.contact_pairs import ContactPairs, contact_pairs
from mjx_dex.physics.engine import (
    PARAMETER_FIELDS,
    initial_state,
    nominal_parameters,
)
from mjx_dex.types import PhysicsParameters, PhysicsState

BUFFER_WARNINGS = (
    int(mujoco.mjtWarning.mjWARN_CONTACTFULL),
    int(mujoco.mjtWarning.mjWARN_CNSTRFULL),
)

WARNING_NUMBER = 1
"""How often a warning was raised, in an ``mjWarningStat``; at 0 is its last detail."""


class NativeEngine:
    """``mujoco.batch.Batch``, called by compiled programs.

    From JAX's side a step is a pure function: whatever the batch keeps between calls is
    overwritten from the arguments, except for per-world model fields that are already
    as asked.
    """

    name = "native"

    def __init__(self, hand: Hand, config: PhysicsConfig):
        self._pairs = prepare(hand)
        self._threads = config.threads or available_cores()
        # Number of axes of each argument of ``step`` for a single world.
        world = _primary(nominal_parameters(hand.model)), initial_state(hand.model)
        self._ranks = (*jax.tree.map(np.ndim, world), 1, 1, 1)
        self._structure = jax.tree.structure(self._ranks)
        self._worlds: dict[int, _Worlds] = {}
        self._lock = threading.Lock()
        digest = _digest(self._pairs.model, self._threads)
        self._target = f"mjx_dex_native_{digest}"
        host_call.register(self._target, self._step_arrays)

    def step(self, parameters, state, ctrl, force, timesteps):
        """See ``Engine.step``."""
        arguments = (_primary(parameters), state, ctrl, force, timesteps)
        result = (state, jax.ShapeDtypeStruct((), jnp.int32))
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), result)
        if jax.default_backend() != "cpu":
            return jax.pure_callback(
                self._step_batch, shapes, *arguments, vmap_method="broadcast_all"
            )
        shapes, structure = jax.tree.flatten(shapes)
        stepped = host_call.call(self._target, shapes, *jax.tree.leaves(arguments))
        return jax.tree.unflatten(structure, stepped)

    def _step_arrays(self, arguments: list[np.ndarray], results: list[np.ndarray]):
        """``_step_batch`` as a ``HostFunction``."""
        stepped = self._step_batch(*jax.tree.unflatten(self._structure, arguments))
        for result, value in zip(results, jax.tree.leaves(stepped), strict=True):
            result[...] = value

    def _step_batch(self, parameters, state, ctrl, force, timesteps):
        """Step any number of worlds; leading axes are the worlds'."""
        leading = ctrl.shape[:-1]
        flat = jax.tree.map(
            lambda x, rank: np.asarray(x).reshape(-1, *x.shape[x.ndim - rank :]),
            (parameters, state, ctrl, force, timesteps),
            self._ranks,
        )
        # One Batch serves one call at a time (several JAX devices may share it).
        with self._lock:
            nsim = flat[2].shape[0]
            if nsim not in self._worlds:
                self._worlds[nsim] = _Worlds(self._pairs, nsim, self._threads)
            result = self._worlds[nsim].step(*flat)
        return jax.tree.map(lambda x: x.reshape((*leading, *x.shape[1:])), result)


def prepare(hand: Hand) -> ContactPairs:
    """The scene as this engine steps it: the physics of ``hand.model``, made faster.

    Contacts are explicit pairs where that is faster, and solver settings suit CPUs.
    Parameters and timestep are the float32 ones that every engine is given: an
    environment that was never given others then equals one that got them back, bit for
    bit.

    Raises:
        ValueError: if the scene's contacts cannot be listed, see ``contact_pairs``.
    """
    pairs = contact_pairs(hand)
    model = pairs.model
    # An environment that blows up must be seen, counted and reset by the task, as on
    # the other engines; MuJoCo's C engine would silently put it back to qpos0.
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    # The same forces, found faster (docs/physics.md): finding islands and solving them
    # one by one takes longer than solving all at once, and most of the constraints'
    # Jacobian is zero.
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_ISLAND
    model.opt.jacobian = mujoco.mjtJacobian.mjJAC_SPARSE
    for value in (model.opt.gravity, *(getattr(model, n) for n in PARAMETER_FIELDS)):
        value[:] = np.float32(value)
    model.opt.timestep = np.float32(model.opt.timestep)
    model.pair_friction[pairs.ids] = pairs.friction(model.geom_friction)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return pairs


def available_cores() -> int:
    """CPU cores this process may use: in a container fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Worlds:
    """A ``Batch`` of one size, its bound state and its per-world model fields."""

    def __init__(self, pairs: ContactPairs, nsim: int, threads: int):
        self.pairs = pairs
        self.batch = Batch(pairs.model, nsim=nsim, nthread=min(threads, nsim))
        self.qpos, self.qvel = self.batch.bind("qpos"), self.batch.bind("qvel")
        self.warmstart = self.batch.bind("qacc_warmstart")
        self.ctrl = self.batch.bind("ctrl")
        self.force = self.batch.bind("xfrc_applied")
        self.object_id = pairs.model.nbody - 1
        self.parameters: dict[str, np.ndarray] = {}
        self.timestep: np.ndarray | None = None

    def step(self, parameters, state, ctrl, force, timesteps):
        self._set_parameters(parameters)
        self.qpos[:], self.qvel[:] = state.qpos, state.qvel
        self.warmstart[:], self.ctrl[:] = state.warmstart, ctrl
        self.force[:, self.object_id, :3] = force
        self.batch.warning[:] = 0
        self._advance(timesteps)
        lost = self.batch.warning[:, BUFFER_WARNINGS, WARNING_NUMBER].sum(1)
        new_state = PhysicsState(
            self.qpos.astype(np.float32),
            self.qvel.astype(np.float32),
            self.warmstart.astype(np.float32),
        )
        return new_state, lost.astype(np.int32)

    def _advance(self, timesteps: np.ndarray) -> None:
        """Steps that are equal within each world in one call, others one by one."""
        substeps = timesteps.shape[1]
        if self.timestep is None:
            if (timesteps == np.float32(self.batch.model.opt.timestep)).all():
                self.batch.step(nstep=substeps)
                return
            self.timestep = self.batch.expand("opt.timestep")
        if (timesteps == timesteps[:, :1]).all():
            self.timestep[:] = timesteps[:, 0].reshape(self.timestep.shape)
            self.batch.step(nstep=substeps)
            return
        for k in range(substeps):
            self.timestep[:] = timesteps[:, k].reshape(self.timestep.shape)
            self.batch.step()

    def _set_parameters(self, parameters: dict[str, np.ndarray]) -> None:
        """Write the rows that changed; constants derived from them follow."""
        changed = np.zeros(self.batch.nsim, bool)
        for name, values in parameters.items():
            if name not in self.parameters:
                nominal = np.float32(_model_value(self.batch.model, name))
                self.parameters[name] = np.broadcast_to(nominal, values.shape).copy()
            differs = self.parameters[name] != values
            if differs.any():
                rows = differs.reshape(len(values), -1).any(1)
                self._write(name, rows, values[rows])
                self.parameters[name][rows] = values[rows]
                changed |= rows
        if changed.any():
            self.batch.set_const(changed)

    def _write(self, name: str, rows: np.ndarray, values: np.ndarray) -> None:
        field = f"opt.{name}" if name == "gravity" else name
        self.batch.expand(field)[rows] = values
        if name == "geom_friction" and self.pairs.ids.size:
            entries = np.ix_(rows, self.pairs.ids)
            self.batch.expand("pair_friction")[entries] = self.pairs.friction(values)


def _digest(model: mujoco.MjModel, threads: int) -> str:
    """The same in every process for engines that do the same."""
    content = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, content)
    return hashlib.sha256(content.tobytes() + str(threads).encode()).hexdigest()[:16]


def _primary(parameters: PhysicsParameters) -> dict[str, jax.Array]:
    """The parameters by name, without those that MuJoCo derives itself."""
    return {name: x for name, x in vars(parameters).items() if name != "derived"}


def _model_value(model: mujoco.MjModel, name: str) -> np.ndarray:
    return model.opt.gravity if name == "gravity" else getattr(model, name)
