"""What a physics engine does, and which one to take."""

import importlib.util
from typing import Protocol

import jax
import jax.numpy as jnp
import mujoco

from mjx_dex.config import PhysicsConfig
from mjx_dex.hand import Hand
from mjx_dex.types import DerivedConstants, PhysicsParameters, PhysicsState


class Engine(Protocol):
    """Advances one world by one control step; ``vmap`` it for many."""

    name: str

    def step(
        self,
        parameters: PhysicsParameters,
        state: PhysicsState,
        ctrl: jax.Array,
        force: jax.Array,
        timesteps: jax.Array,
    ) -> tuple[PhysicsState, jax.Array]:
        """Advance by ``len(timesteps)`` physics steps.

        Args:
            parameters: the episode's world.
            state: before the step.
            ctrl: [20] actuator targets [rad], held all along.
            force: [3] on the object's centre of mass, world frame [N], held all along.
            timesteps: [substeps] length of each physics step [s].

        Returns:
            The state after it, and [] int32: contacts or constraints that were lost
            because a buffer was full.
        """


class CaptureError(OSError):
    """A GPU's driver does not let physics start; the message says what to do."""


def nominal_parameters(model: mujoco.MjModel) -> PhysicsParameters:
    """The model's own values, in the float32 that every engine is given."""

    def value(name):
        return jnp.asarray(getattr(model, name), jnp.float32)

    return PhysicsParameters(
        **{name: value(name) for name in PARAMETER_FIELDS},
        gravity=jnp.asarray(model.opt.gravity, jnp.float32),
        derived=DerivedConstants(**{name: value(name) for name in DERIVED_FIELDS}),
    )


DERIVED_FIELDS = tuple(DerivedConstants.__dataclass_fields__)
PARAMETER_FIELDS = tuple(
    name
    for name in PhysicsParameters.__dataclass_fields__
    if name not in ("gravity", "derived")
)
"""The parameters that are fields of the model itself and not of its options."""


def initial_state(model: mujoco.MjModel) -> PhysicsState:
    """All joints at zero, the object at its start, everything at rest."""
    return PhysicsState(
        qpos=jnp.asarray(model.qpos0, jnp.float32),
        qvel=jnp.zeros(model.nv, jnp.float32),
        warmstart=jnp.zeros(model.nv, jnp.float32),
    )


def choose_engine(name: str) -> tuple[str, str]:
    """Resolve 'auto'.

    Returns:
        The engine's name and the reason, for people.
    """
    if name != "auto":
        return name, "as asked"
    device = jax.devices()[0]
    kind = f"{device.platform} ({device.device_kind})"
    if device.platform == "cpu":
        return "native", f"JAX runs on {kind}: MuJoCo's C engine is fastest there"
    if device.platform in ("gpu", "cuda") and "nvidia" in device.device_kind.lower():
        if importlib.util.find_spec("warp") is None:
            raise ModuleNotFoundError(
                "an NVIDIA GPU is best served by MuJoCo Warp, which is not installed: "
                "pip install 'mjx_dex[gpu]', or ask for --engine mjx"
            )
        return "warp", f"JAX runs on {kind}: MuJoCo Warp is fastest there"
    return "mjx", f"JAX runs on {kind}: only MJX runs there"


def check_buffers(config: PhysicsConfig) -> None:
    """Raise ValueError if an engine with buffers is not given their sizes."""
    if None in (config.max_contacts, config.max_constraints):
        raise ValueError(
            "warp and mjx need physics.max_contacts and physics.max_constraints: "
            "task.with_buffers finds them"
        )


def configure_warp() -> None:
    """Set warp's options, before it starts."""
    import warp

    # Otherwise every kernel that is loaded would be a line on screen.
    warp.config.log_level = warp.LOG_WARNING
    # What ``precompile`` makes; with a newer driver warp would look for PTX.
    warp.config.cuda_output = "cubin"


def make_engine(name: str, hand: Hand, config: PhysicsConfig) -> Engine:
    """Build an engine for one scene.

    Args:
        name: 'native', 'warp' or 'mjx', or 'auto' for what suits JAX's device.
        hand: the scene.
        config: solver and buffers.
    """
    name, _ = choose_engine(name)
    # Imported here: each engine needs a library that the others do without.
    if name == "native":
        from mjx_dex.physics.native import NativeEngine

        return NativeEngine(hand, config)
    if importlib.util.find_spec("warp") is not None:
        configure_warp()
    if name == "mjx":
        from mjx_dex.physics.mjx_engine import MjxEngine

        return MjxEngine(hand, config)
    if importlib.util.find_spec("warp") is None:
        raise ModuleNotFoundError(
            "--engine warp: MuJoCo Warp is not installed: pip install 'mjx_dex[warp]'"
        )
    from mjx_dex.physics.warp_engine import WarpEngine

    return WarpEngine(hand, config)
