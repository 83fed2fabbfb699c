"""How deep contacts are and how many: what solver and buffers are judged by."""

from dataclasses import dataclass

import mujoco
import numpy as np


@dataclass(frozen=True)
class ContactStatistics:
    """Over a sample of states; MuJoCo's C engine looks at them, whoever made them."""

    mean_penetration: float
    """Of contacts that touch [m]."""
    deepest_1_percent: float
    """99th percentile of their penetration [m]."""
    most_contacts: int
    """In one world, touching or within their margin."""
    most_constraints: int
    """Rows in one world: contacts, joint limits and friction together."""

    def __str__(self):
        return (
            f"penetration mean {1000 * self.mean_penetration:.2f} mm, "
            f"99% below {1000 * self.deepest_1_percent:.2f} mm; at most "
            f"{self.most_contacts} contacts and {self.most_constraints} constraint "
            f"rows in a world"
        )


def measure_contacts(
    model: mujoco.MjModel, qpos: np.ndarray, qvel: np.ndarray
) -> ContactStatistics:
    """Measure the contacts of states [n, nq], [n, nv]."""
    data = mujoco.MjData(model)
    depths, contacts, constraints = [], [0], [0]
    for position, velocity in zip(qpos, qvel, strict=True):
        data.qpos[:], data.qvel[:] = position, velocity
        mujoco.mj_forward(model, data)
        depths.append(-data.contact.dist[data.contact.dist < 0])
        contacts.append(data.ncon)
        constraints.append(data.nefc)
    depth = np.concatenate([*depths, np.zeros(0)])
    touching = depth if depth.size else np.zeros(1)
    return ContactStatistics(
        mean_penetration=float(touching.mean()),
        deepest_1_percent=float(np.quantile(touching, 0.99)),
        most_contacts=max(contacts),
        most_constraints=max(constraints),
    )
