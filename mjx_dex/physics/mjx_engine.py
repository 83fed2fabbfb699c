"""MuJoCo on the accelerator: MJX, as JAX operations or through MuJoCo Warp."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jax.custom_batching import custom_vmap
from mujoco import mjx

from mjx_dex.config import PhysicsConfig
from mjx_dex.hand import Hand
from mjx_dex.types import PhysicsParameters, PhysicsState


class MjxEngine:
    """MJX with ``impl='jax'``: runs wherever JAX does, and is differentiable."""

    name = "mjx"

    def __init__(self, hand: Hand, config: PhysicsConfig):
        if None in (config.max_contacts, config.max_constraints):
            raise ValueError(
                "warp and mjx need physics.max_contacts and physics.max_constraints: "
                "task.with_buffers finds them"
            )
        self._source = hand.model
        self._config = config
        self._object = hand.model.nbody - 1
        self._model = self._put_model(hand.model)

    def step(self, parameters, state, ctrl, force, timesteps):
        """See ``Engine.step``."""
        data = self._make_data(num_worlds=1)
        return self._advance(data, parameters, state, ctrl, force, timesteps)

    def _put_model(self, model: mujoco.MjModel) -> mjx.Model:
        return mjx.put_model(model, impl="jax")

    def _make_data(self, num_worlds: int) -> mjx.Data:
        return mjx.make_data(self._source, impl="jax")

    def _substep(self, model: mjx.Model, data: mjx.Data) -> mjx.Data:
        """What ``mjx.step`` does, with its parts in a fixed order.

        Left alone, XLA factors the integrator's matrix at the same time as the
        solver's. On a CPU each batched Cholesky holds one thread of XLA's pool while it
        waits for others, so that two of them hang a machine with two cores forever.
        """
        data = mjx.forward(model, data)
        # Adds nothing, but makes the integrator wait for the solver.
        damping = model.dof_damping + 0.0 * data.qacc
        return mjx.euler(model.replace(dof_damping=damping), data)

    def _lost(self, data: mjx.Data) -> jax.Array:
        """Whether every contact slot is taken, so that there may be more than slots.

        MJX has slots apart for contacts of each dimension: self-collisions have 1, the
        object's have 4.
        """
        contact = data._impl.contact
        touching = contact.dist < contact.includemargin
        dimensions = jnp.asarray(contact.dim)
        full = [
            jnp.all(touching | (dimensions != dimension))
            for dimension in np.unique(contact.dim)
        ]
        return jnp.any(jnp.array(full, bool)).astype(jnp.int32)

    def _advance(self, data, parameters, state, ctrl, force, timesteps):
        model = _with_parameters(self._model, parameters)
        applied = jnp.zeros((self._source.nbody, 6)).at[self._object, :3].set(force)
        data = data.replace(
            qpos=state.qpos,
            qvel=state.qvel,
            qacc_warmstart=state.warmstart,
            ctrl=ctrl,
            xfrc_applied=applied,
        )

        def substep(carry, timestep):
            data, lost = carry
            stepped = model.replace(opt=model.opt.replace(timestep=timestep))
            data = self._substep(stepped, data)
            return (data, lost + self._lost(data)), None

        # TF32 is known to break hands: physics multiplies in full float32 always.
        with jax.default_matmul_precision("float32"):
            (data, lost), _ = jax.lax.scan(
                substep, (data, jnp.zeros((), jnp.int32)), timesteps
            )
        new_state = PhysicsState(data.qpos, data.qvel, data.qacc_warmstart)
        return new_state, lost


class WarpEngine(MjxEngine):
    """MJX with ``impl='warp'``: NVIDIA GPUs, and for tests the CPU."""

    name = "warp"

    def __init__(self, hand: Hand, config: PhysicsConfig):
        super().__init__(hand, config)

        # Warp's contacts lie in one buffer for all worlds, so the number of worlds
        # must be known when it is made: a batching rule of our own learns it.
        @custom_vmap
        def step(*arguments):
            return self._advance(self._make_data(1), *arguments)

        @step.def_vmap
        def step_batch(num_worlds, is_batched, *arguments):
            arguments = jax.tree.map(
                lambda x, batched: (
                    x if batched else jnp.broadcast_to(x, (num_worlds, *x.shape))
                ),
                arguments,
                tuple(is_batched),
            )
            data = self._make_data(num_worlds)
            result = jax.vmap(lambda *args: self._advance(data, *args))(*arguments)
            return result, jax.tree.map(lambda _: True, result)

        self._step = step

    def step(self, parameters, state, ctrl, force, timesteps):
        """See ``Engine.step``."""
        return self._step(parameters, state, ctrl, force, timesteps)

    def _put_model(self, model: mujoco.MjModel) -> mjx.Model:
        mode = graph_mode(self._config.graph_mode, jax.default_backend())
        model = mjx.put_model(model, impl="warp", graph_mode=mode)
        # Losses are counted and reported once; warp would print each from the GPU.
        return model.tree_replace({"opt._impl.warn_overflow": 0})

    def _make_data(self, num_worlds: int) -> mjx.Data:
        return mjx.make_data(
            self._source,
            impl="warp",
            naconmax=num_worlds * self._config.max_contacts,
            njmax=self._config.max_constraints,
        )

    def _substep(self, model: mjx.Model, data: mjx.Data) -> mjx.Data:
        return mjx.step(model, data)

    def _lost(self, data: mjx.Data) -> jax.Array:
        """Whether a buffer was full; a solver that reached its limit loses nothing."""
        return (data._impl.overflow & _full_buffers() != 0).astype(jnp.int32)


def _full_buffers() -> int:
    """Bits of MuJoCo Warp's overflow flags that stand for buffers."""
    from mujoco.mjx.third_party.mujoco_warp import OverflowType

    solver = OverflowType.ITERATIONS | OverflowType.LS_ITERATIONS
    return int(OverflowType.ALL & ~solver)


def graph_mode(name: str, platform: str):
    """MuJoCo Warp's name for a mode; None where there is no CUDA graph to capture."""
    import warp

    if platform == "cpu":
        return None
    return warp.JaxCallableGraphMode[name.upper()]


def _with_parameters(model: mjx.Model, parameters: PhysicsParameters) -> mjx.Model:
    fields = dict(vars(parameters))
    gravity, derived = fields.pop("gravity"), dict(vars(fields.pop("derived")))
    # MuJoCo and MJX: [ngeom, 6]; MuJoCo Warp: [ngeom, 2, 3].
    derived["geom_aabb"] = derived["geom_aabb"].reshape(model.geom_aabb.shape)
    opt = model.opt.replace(gravity=gravity)
    return model.replace(opt=opt, **fields, **derived)
