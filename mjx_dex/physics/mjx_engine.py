"""MuJoCo as JAX operations: MJX."""

import jax
import jax.numpy as jnp
import numpy as np
from mujoco import mjx

from mjx_dex.config import PhysicsConfig
from mjx_dex.hand import Hand
from mjx_dex.physics.engine import check_buffers
from mjx_dex.types import PhysicsParameters, PhysicsState


class MjxEngine:
    """MJX with ``impl='jax'``: runs wherever JAX does, and is differentiable."""

    name = "mjx"

    def __init__(self, hand: Hand, config: PhysicsConfig):
        check_buffers(config)
        self._source = hand.model
        self._object = hand.model.nbody - 1
        self._model = mjx.put_model(hand.model, impl="jax")

    def step(self, parameters, state, ctrl, force, timesteps):
        """See ``Engine.step``."""
        data = mjx.make_data(self._source, impl="jax")
        return self._advance(data, parameters, state, ctrl, force, timesteps)

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


def _with_parameters(model: mjx.Model, parameters: PhysicsParameters) -> mjx.Model:
    fields = dict(vars(parameters))
    gravity, derived = fields.pop("gravity"), fields.pop("derived")
    opt = model.opt.replace(gravity=gravity)
    return model.replace(opt=opt, **fields, **vars(derived))
