"""MuJoCo Warp, for NVIDIA GPUs: one XLA call for each control step.

MuJoCo Warp's ``Model`` and ``Data`` stay on the device. What a control step is given
is copied into them, and its new state out of them; between the two, one CUDA graph
holds all of its physics steps.
"""

import contextlib
import dataclasses
import gc
import inspect
import itertools
import logging
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import cache, partial

import jax
import jax.numpy as jnp
import mujoco
import warp as wp
from jax.custom_batching import custom_vmap
from jax.extend.core import Primitive
from jax.interpreters import mlir

# Warp holds it while any program's callback runs, and offers no public way to it.
from warp._src.jax.ffi import _FFI_CALLBACK_LOCK as CALLBACK_LOCK

from mjx_dex.config import PhysicsConfig
from mjx_dex.hand import Hand
from mjx_dex.physics import mujoco_warp
from mjx_dex.physics.engine import (
    DERIVED_FIELDS,
    PARAMETER_FIELDS,
    CaptureError,
    check_buffers,
)
from mjx_dex.types import PhysicsParameters, PhysicsState

log = logging.getLogger("mjx_dex")

CAPTURE_TRIES = 3
"""Attempts to capture a CUDA graph before training is given up."""

STATE_FIELDS = ("qpos", "qvel", "warmstart")
INPUTS = (
    *PARAMETER_FIELDS,
    "gravity",
    *DERIVED_FIELDS,
    *STATE_FIELDS,
    "ctrl",
    "force",
    "timesteps",
)
"""Names of the arrays that a call takes; each is [environments, numbers]."""

OVERFLOWS = mujoco_warp.OverflowType.ALL & ~(
    # A solver that stops at its limit of iterations drops nothing.
    mujoco_warp.OverflowType.ITERATIONS | mujoco_warp.OverflowType.LS_ITERATIONS
)
"""MuJoCo Warp's flags of buffers that were full."""


class WarpEngine:
    """MuJoCo Warp, called by compiled programs.

    From JAX's side a step is a pure function: whatever stays on the device between
    calls is overwritten from the arguments. A program may still be running when Python
    frees its engine: memory on devices is therefore freed when the next engine is made.
    """

    name = "warp"

    def __init__(self, hand: Hand, config: PhysicsConfig):
        check_buffers(config)
        _free_dropped()
        self.batches = Batches(hand.model, config)
        number = next(_numbers)
        _registry[number] = self.batches
        weakref.finalize(self, _dropped.append, number)
        self._step_batch = _batching(partial(_step_batch, number))

    def step(self, parameters, state, ctrl, force, timesteps):
        """See ``Engine.step``."""
        arguments = (parameters, state, ctrl, force, timesteps)
        stepped = self._step_batch(*jax.tree.map(lambda x: x[None], arguments))
        return jax.tree.map(lambda x: x[0], stepped)


class Batches:
    """An engine's memory on devices: one ``Batch`` per device and size."""

    def __init__(self, model: mujoco.MjModel, config: PhysicsConfig):
        self.calls, self.captures = 0, 0
        """Calls by programs, and CUDA graphs that were captured, so far."""
        self.bytes_per_environment = 0
        """Bytes that the latest call took and returned for each environment."""
        self._model, self._config = model, config
        self._batches: dict[tuple[str, int, int], Batch] = {}

    def memory_per_environment(self) -> float:
        """Bytes that stay on devices between calls, after a first one."""
        batches = self._batches.items()
        return sum(x.bytes() for _, x in batches) / sum(key[1] for key, _ in batches)

    def prepare(self, count: int, substeps: int) -> None:
        """Make what this process's GPUs need for a number of environments.

        Raises:
            CaptureError: if warp cannot use the GPU, or CUDA refuses to capture.
        """
        if not wp.is_cuda_available():
            raise CaptureError(
                f"--engine warp: JAX has a GPU that warp {wp.config.version} cannot "
                "use; its usual wheel needs a driver of R580 or newer: for an older "
                "one install the '+cu12' wheel of that version from "
                "https://github.com/NVIDIA/warp/releases, or take --engine mjx"
            )
        with _prepare_lock:
            for device in jax.local_devices(backend="gpu"):
                # By the machine's own number of it, which XLA's calls give, too.
                gpu = wp.get_cuda_device(device.local_hardware_id)
                key = gpu.alias, count, substeps
                if key not in self._batches:
                    # A callback would change warp's current stream meanwhile.
                    with CALLBACK_LOCK:
                        batch = self.make(*key)
                        batch.capture()
                    self._batches[key] = batch
                    self.captures += 1

    def make(self, device: str, count: int, substeps: int) -> "Batch":
        """What ``count`` environments need on one of warp's devices."""
        return Batch(self._model, self._config, wp.get_device(device), count, substeps)

    def run(self, inputs: dict[str, wp.array], outputs: tuple[wp.array, ...]) -> None:
        """Step on warp's current device, as a compiled program's callback.

        Args:
            inputs: arrays by name, see ``INPUTS``.
            outputs: new qpos, qvel and warm start, and overflows.

        Raises:
            RuntimeError: if a GPU was not prepared for these environments.
        """
        device = wp.get_device()
        key = device.alias, *inputs["timesteps"].shape
        if key not in self._batches:
            if device.is_cuda:
                raise RuntimeError(
                    f"MuJoCo Warp: {device.alias} was not prepared for {key[1]} "
                    "environments: another process lowered this program"
                )
            self._batches[key] = self.make(*key)
        self.calls += 1
        crossing = sum(_bytes(array) for array in (*inputs.values(), *outputs))
        self.bytes_per_environment = crossing // key[1]
        self._batches[key].step(inputs, outputs)


_registry: dict[int, Batches] = {}
"""Batches of each engine, by its number: a program carries the number alone."""
_dropped: list[int] = []
"""Numbers of engines that Python has freed; their programs may still be running."""
_numbers = itertools.count()
_prepare_lock = threading.Lock()


def _find(number: int) -> Batches:
    """Batches of an engine.

    Raises:
        RuntimeError: if the engine was dropped and another one was made since.
    """
    if number not in _registry:
        raise RuntimeError(
            "MuJoCo Warp: the engine of this program is gone; keep it as long as the "
            "program is called"
        )
    return _registry[number]


def _free_dropped() -> None:
    """Free the device memory of dropped engines, after all programs have ended."""
    if not _dropped:
        return
    for array in jax.live_arrays():
        # An error of its program is raised where the array is read.
        with contextlib.suppress(Exception):
            array.block_until_ready()
    wp.synchronize()
    while _dropped:
        del _registry[_dropped.pop()]


_prepare = Primitive("prepare_mujoco_warp")
"""Returns its argument, the timesteps; makes what GPUs need when JAX lowers it.

That is when a program's final number of environments is known and nothing of it runs
yet: in a running program nothing can be compiled for a capture, and XLA disturbs it. On
a CPU there is nothing to capture: ``Batches.run`` makes what it finds missing.
"""
_prepare.def_abstract_eval(lambda timesteps, engine: timesteps)
_prepare.def_impl(lambda x, engine: jax.jit(partial(_prepare.bind, engine=engine))(x))


def _lower_on_gpu(context, timesteps, engine):
    _find(engine).prepare(*context.avals_in[0].shape)
    return [timesteps]


def _lower_elsewhere(context, timesteps, engine):
    platforms = ", ".join(context.module_context.platforms)
    raise ValueError(
        "--engine warp: MuJoCo Warp runs on NVIDIA GPUs and CPUs, not on "
        f"{platforms}: take --engine mjx"
    )


mlir.register_lowering(_prepare, _lower_elsewhere)
mlir.register_lowering(_prepare, lambda _, x, engine: [x], platform="cpu")
mlir.register_lowering(_prepare, _lower_on_gpu, platform="cuda")


def _step_batch(number, parameters: PhysicsParameters, state, ctrl, force, timesteps):
    """``Engine.step`` of a batch: all arrays have a first axis of environments."""
    count = len(timesteps)
    timesteps = _prepare.bind(timesteps, engine=number)
    arrays = vars(parameters) | vars(parameters.derived) | vars(state)
    arrays |= {"ctrl": ctrl, "force": force, "timesteps": timesteps}
    shapes = {f"new_{name}": arrays[name].shape for name in STATE_FIELDS}
    *stepped, overflow = _callable()(
        number,
        *(arrays[n].reshape(count, math.prod(arrays[n].shape[1:])) for n in INPUTS),
        output_dims=shapes | {"overflow": (count,)},
    )
    return PhysicsState(*stepped), overflow


def _batching(call: Callable) -> Callable:
    """A function of batches: ``vmap`` hands it larger batches, however often.

    Args:
        call: steps one batch.
    """

    @custom_vmap
    def step(*arguments):
        return call(*arguments)

    @step.def_vmap
    def step_batches(size, is_batched, *arguments):
        def merge(x, batched):
            x = x if batched else jnp.broadcast_to(x, (size, *x.shape))
            return x.reshape(size * x.shape[1], *x.shape[2:])

        def split(x):
            return x.reshape(size, x.shape[0] // size, *x.shape[1:])

        stepped = step(*jax.tree.map(merge, arguments, tuple(is_batched)))
        return jax.tree.map(split, stepped), jax.tree.map(lambda _: True, stepped)

    return step


@cache
def _callable():
    """The one function that XLA calls, for all engines: warp never forgets any."""

    def warp_engine_step(number, *arrays):
        inputs = dict(zip(INPUTS, arrays[: len(INPUTS)], strict=True))
        _find(number).run(inputs, arrays[len(INPUTS) :])

    matrix = wp.array2d(dtype=float)
    annotations = {"number": int} | dict.fromkeys(INPUTS, matrix)
    annotations |= {f"new_{name}": matrix for name in STATE_FIELDS}
    annotations |= {"overflow": wp.array(dtype=int)}
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    warp_engine_step.__annotations__ = annotations
    warp_engine_step.__signature__ = inspect.Signature(
        [inspect.Parameter(n, kind, annotation=t) for n, t in annotations.items()]
    )
    return wp.jax_callable(
        warp_engine_step,
        num_outputs=len(STATE_FIELDS) + 1,
        graph_mode=wp.JaxCallableGraphMode.NONE,
        # ``prepare`` does; warp would take a number of all processes for this one's.
        module_preload_mode=wp.JaxModulePreloadMode.NONE,
    )


@wp.kernel
def _apply_force(
    force: wp.array[wp.vec3], body: int, applied: wp.array2d[wp.spatial_vector]
):
    i = wp.tid()
    f = force[i]
    applied[i, body] = wp.spatial_vector(f[0], f[1], f[2], 0.0, 0.0, 0.0)


@wp.kernel
def _begin_step(
    timesteps: wp.array2d[float],
    k: int,
    timestep: wp.array[float],
    flags: wp.array[int],
):
    i = wp.tid()
    timestep[i] = timesteps[i, k]
    flags[i] = 0


@wp.kernel
def _count_overflow(flags: wp.array[int], mask: int, overflow: wp.array[int]):
    i = wp.tid()
    if flags[i] & mask != 0:
        overflow[i] = overflow[i] + 1


class Batch:
    """Model, data and graph of a number of environments on one device."""

    def __init__(
        self,
        model: mujoco.MjModel,
        config: PhysicsConfig,
        device: wp.Device,
        count: int,
        substeps: int,
    ):
        self._device, self._count, self._object = device, count, model.nbody - 1
        own = dict.fromkeys((*PARAMETER_FIELDS, *DERIVED_FIELDS), count)
        with wp.ScopedDevice(device):
            self._model = mujoco_warp.put_model(model, own)
            options = self._model.opt
            # Overflows are counted and reported; warp would print each from the GPU.
            options.warn_overflow = 0
            options.gravity = wp.full(count, wp.vec3(*model.opt.gravity))
            options.timestep = wp.full(count, model.opt.timestep, dtype=float)
            self._data = data = mujoco_warp.make_data(
                model,
                nworld=count,
                naconmax=count * config.max_contacts,
                njmax=config.max_constraints,
            )
            self._force = wp.zeros(count, dtype=wp.vec3)
            self._timesteps = wp.full(
                (count, substeps), model.opt.timestep, dtype=float
            )
            self._overflow = wp.zeros(count, dtype=int)
        targets = {name: getattr(self._model, name) for name in own}
        targets |= {"gravity": options.gravity, "warmstart": data.qacc_warmstart}
        targets |= {"qpos": data.qpos, "qvel": data.qvel, "ctrl": data.ctrl}
        targets |= {"force": self._force, "timesteps": self._timesteps}
        self._inputs = {name: _as_matrix(targets[name]) for name in INPUTS}
        self._outputs = (data.qpos, data.qvel, data.qacc_warmstart, self._overflow)
        self._graph = None

    def step(self, inputs: dict[str, wp.array], outputs: tuple[wp.array, ...]) -> None:
        """See ``Batches.run``."""
        for name, target in self._inputs.items():
            if target.size:
                wp.copy(target, inputs[name])
        if self._graph is None:
            self.advance()
        else:
            wp.capture_launch(self._graph)
        for output, value in zip(outputs, self._outputs, strict=True):
            wp.copy(output, value)

    def capture(self) -> None:
        """Put all physics steps into one CUDA graph.

        Raises:
            CaptureError: if CUDA refuses, several times.
        """
        with wp.ScopedDevice(self._device):
            # Compiles and loads the kernels, which a capture must not do.
            self.advance()
            # Its scratch memory is free again before the graph takes its own.
            wp.synchronize_stream()
            self._graph = capture_graph(self.advance)
            wp.capture_launch(self._graph)
            # Of this stream alone: other work may wait for this thread.
            wp.synchronize_stream()

    def bytes(self) -> int:
        """Memory that stays on the device; scratch of the graph is not in it."""
        return sum(_bytes(array) for array in _arrays((self._model, self._data)))

    def advance(self) -> None:
        """Do all physics steps of a control step, kernel by kernel."""
        model, data = self._model, self._data
        self._overflow.zero_()
        wp.launch(
            _apply_force,
            dim=self._count,
            inputs=[self._force, self._object],
            outputs=[data.xfrc_applied],
        )
        for k in range(self._timesteps.shape[1]):
            wp.launch(
                _begin_step,
                dim=self._count,
                inputs=[self._timesteps, k],
                outputs=[model.opt.timestep, data.overflow],
            )
            mujoco_warp.step(model, data)
            wp.launch(
                _count_overflow,
                dim=self._count,
                inputs=[data.overflow, int(OVERFLOWS)],
                outputs=[self._overflow],
            )


def capture_graph(launch: Callable[[], None]) -> wp.Graph:
    """The CUDA graph of what ``launch`` launches on warp's current device.

    Raises:
        CaptureError: if it fails ``CAPTURE_TRIES`` times.
    """
    for attempt in range(CAPTURE_TRIES):
        try:
            return _capture_once(launch)
        except Exception as error:
            failure = error
            log.info("MuJoCo Warp: capture %d failed: %s", attempt + 1, error)
    raise CaptureError(
        f"MuJoCo Warp: CUDA refused to capture the graph of a control step "
        f"{CAPTURE_TRIES} times; start again, or take --engine mjx: {failure}"
    ) from failure


def _capture_once(launch: Callable[[], None]) -> wp.Graph:
    """XLA may unload modules meanwhile, which only a relaxed capture survives."""
    collects = gc.isenabled()
    gc.disable()
    try:
        with wp.ScopedCapture(
            force_module_load=False, capture_mode=wp.CaptureMode.RELAXED
        ) as captured:
            launch()
    finally:
        if collects:
            gc.enable()
    return captured.graph


def _as_matrix(array: wp.array) -> wp.array:
    """The same memory as [environments, numbers] of float32."""
    numbers = _bytes(array) // (4 * array.shape[0])
    shape = array.shape[0], numbers
    return wp.array(ptr=array.ptr, dtype=float, shape=shape, device=array.device)


def _bytes(array: wp.array) -> int:
    return array.size * wp.types.type_size_in_bytes(array.dtype)


def _arrays(value) -> Iterator[wp.array]:
    """All arrays of MuJoCo Warp's containers, which are dataclasses of dataclasses."""
    if isinstance(value, wp.array):
        yield value
    elif dataclasses.is_dataclass(value):
        yield from _arrays(list(vars(value).values()))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _arrays(each)
