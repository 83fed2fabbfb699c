"""Constants that MuJoCo derives from a model, for models that differ per world.

MuJoCo computes them when it compiles a model (``mj_setConst``), MJX does not compute
them at all. Everything that depends on the pose is taken once, at ``qpos0``; what is
left per draw is linear in masses and inertias, and one small inverse.
"""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from mjx_dex.types import DerivedConstants, PhysicsParameters


class Derivation:
    """``mj_setConst`` for one scene, as a function of its physical parameters."""

    def __init__(self, model: mujoco.MjModel):
        data = mujoco.MjData(model)
        mujoco.mj_fwdPosition(model, data)
        translation, rotation = _jacobians(model, data)
        tendon = np.zeros((model.ntendon, model.nv))
        mujoco.mju_sparse2dense(
            tendon, data.ten_J, model.ten_J_rownnz, model.ten_J_rowadr,
            model.ten_J_colind,
        )  # fmt: skip
        # Principal axes of each body: the inertia is diagonal in them.
        axes = data.ximat.reshape(-1, 3, 3)
        principal = np.einsum("bji,bjv->biv", axes, rotation)
        self._of_mass = _float(np.einsum("biv,biw->bvw", translation, translation))
        self._of_inertia = _float(np.einsum("biv,biw->bivw", principal, principal))
        self._armature = _float(np.diag(model.dof_armature))
        # All in which an inverse inertia is wanted: bodies' axes, then tendons.
        self._directions = _float(
            np.concatenate([np.concatenate([translation, rotation], 1).reshape(
                -1, model.nv), tendon])
        )  # fmt: skip
        self._num_bodies = model.nbody
        self._dof_average = _float(_average_over_joints(model))
        self._is_above = _float(_is_ancestor(model))
        self._rbound = _float(model.geom_rbound)
        self._aabb = _float(model.geom_aabb)
        self._is_box = model.geom_type == mujoco.mjtGeom.mjGEOM_BOX
        self._size = _float(model.geom_size)

    def derive(self, parameters: PhysicsParameters) -> DerivedConstants:
        """Recompute the constants.

        Args:
            parameters: of one world; boxes may have any sizes, other shapes may be
                scaled, in all dimensions alike.
        """
        mass, inertia = parameters.body_mass, parameters.body_inertia
        matrix = self._armature + jnp.einsum("b,bvw->vw", mass, self._of_mass)
        matrix += jnp.einsum("bi,bivw->vw", inertia, self._of_inertia)
        inverse = _inverse(matrix)
        weights = jnp.einsum("nv,vw,nw->n", self._directions, inverse, self._directions)
        bodies = weights[: 6 * self._num_bodies].reshape(-1, 2, 3).mean(-1)
        size = parameters.geom_size
        scale = size[:, 0] / self._size[:, 0]
        return DerivedConstants(
            body_subtreemass=self._is_above @ mass,
            body_invweight0=bodies,
            dof_invweight0=self._dof_average @ jnp.diag(inverse),
            tendon_invweight0=weights[6 * self._num_bodies :],
            geom_rbound=jnp.where(
                self._is_box, jnp.linalg.norm(size, axis=1), self._rbound * scale
            ),
            geom_aabb=jnp.where(
                self._is_box[:, None],
                jnp.pad(size, ((0, 0), (3, 0))),
                self._aabb * scale[:, None],
            ),
        )


def _float(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


def _jacobians(model, data) -> tuple[np.ndarray, np.ndarray]:
    """[nbody, 3, nv] of the bodies' centres of mass, translation and rotation."""
    translation = np.zeros((model.nbody, 3, model.nv))
    rotation = np.zeros((model.nbody, 3, model.nv))
    for body in range(model.nbody):
        mujoco.mj_jacBodyCom(model, data, translation[body], rotation[body], body)
    return translation, rotation


def _average_over_joints(model) -> np.ndarray:
    """[nv, nv] averages over the three translations and rotations of free joints."""
    average = np.eye(model.nv)
    for joint in np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE):
        start = model.jnt_dofadr[joint]
        for first in (start, start + 3):
            average[first : first + 3, first : first + 3] = 1 / 3
    return average


def _is_ancestor(model) -> np.ndarray:
    """[nbody, nbody] 1 where the column's body is the row's or below it."""
    above = np.eye(model.nbody)
    for body in range(model.nbody - 1, 0, -1):
        above[model.body_parentid[body]] += above[body]
    return above


def _inverse(matrix: jax.Array) -> jax.Array:
    """Inverse of a symmetric positive definite matrix [n, n], by Gauss and Jordan.

    Without LAPACK, whose batched calls wait for each other on a CPU; scaled to a unit
    diagonal first, since inertias of arm and fingertip are orders of magnitude apart.
    """
    scale = jax.lax.rsqrt(jnp.diag(matrix))
    scaled = matrix * scale[:, None] * scale[None, :]

    def eliminate(k, a):
        # One sweep turns row and column k into those of the inverse.
        pivot, row, column = a[k, k], a[k], a[:, k]
        swept = a - jnp.outer(column, row) / pivot
        swept = swept.at[k].set(row / pivot).at[:, k].set(-column / pivot)
        return swept.at[k, k].set(1 / pivot)

    inverse = jax.lax.fori_loop(0, len(matrix), eliminate, scaled)
    return inverse * scale[:, None] * scale[None, :]
