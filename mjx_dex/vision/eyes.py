"""Vision in the loop: a policy acts on the pose that a net sees (Table 3)."""

from collections import deque

import jax
import numpy as np

from mjx_dex.physics.native import available_cores
from mjx_dex.play import Playing
from mjx_dex.task.env import HandEnv
from mjx_dex.vision import appearance
from mjx_dex.vision.nets import Net
from mjx_dex.vision.rendering import make_renderer
from mjx_dex.vision.scene import build_scene
from mjx_dex.vision.states import QUATERNION


class Eyes:
    """Sees the worlds of a ``Play`` at each control step.

    Every world keeps the look that was drawn for it. Images show where things truly
    are; what else the policy senses, and its noise, stays as it is.

    Args:
        net: says what pose images show.
        env: of the worlds.
        renderer: by name, or None: the one whose images the net learned from.
        latency: age of what is seen [s]; between two control steps, states are
            interpolated.
        seed: of the looks.

    Raises:
        RenderingError: if the renderer does not work here.
    """

    def __init__(
        self,
        net: Net,
        env: HandEnv,
        renderer: str | None = None,
        latency: float = 0.0,
        seed: int = 0,
    ):
        config = net.config
        if latency < 0:
            raise ValueError(f"--pose-latency: {latency:g} s is less than none")
        self._net, self._latency = net, latency / env.control_period
        self._looks, self._seed = config.appearance, seed
        self._scene = build_scene(config.hand, config.object, config.rig)
        self._renderer = make_renderer(
            renderer or config.renderer,
            self._scene.model,
            config.rig.size,
            config.workers or available_cores(),
        )
        self.description = self._renderer.description
        self._observe = jax.jit(jax.vmap(env.observe_with_pose))
        self._seen: deque[np.ndarray] = deque(maxlen=int(self._latency) + 2)
        self._fields = None

    def look(self, playing: Playing) -> Playing:
        """The same worlds, with the net's pose in what the policy sees next."""
        # A copy: what is remembered of it may be overwritten.
        qpos = np.array(playing.state.worlds.physics.qpos)
        self._remember(qpos, np.asarray(playing.first))
        images = self._render(self._delayed())
        pose = self._net.predict(images)
        observation = self._observe(
            playing.state.worlds, pose.position, pose.quaternion
        )
        return playing.replace(observation=observation)

    def close(self) -> None:
        """End the renderer's processes."""
        self._renderer.close()

    def _remember(self, qpos: np.ndarray, first: np.ndarray) -> None:
        """Newest first; an episode that begins has been as it is for ever."""
        self._seen.appendleft(qpos)
        for older in list(self._seen)[1:]:
            older[first] = qpos[first]

    def _delayed(self) -> np.ndarray:
        """[worlds, 31] states as old as the latency."""
        whole, part = int(self._latency), self._latency % 1
        newer = self._seen[min(whole, len(self._seen) - 1)]
        older = self._seen[min(whole + 1, len(self._seen) - 1)]
        return between(newer, older, part)

    def _render(self, qpos: np.ndarray) -> np.ndarray | jax.Array:
        if self._fields is None:
            self._fields = self._draw_looks(len(qpos))
        return self._renderer.render(qpos, self._fields)

    def _draw_looks(self, number: int) -> dict[str, np.ndarray]:
        nominal = appearance.nominal(self._scene)

        def draw(key):
            look = appearance.sample(key, self._looks, nominal)
            return appearance.model_fields(look, self._scene)

        keys = jax.random.split(jax.random.key(self._seed), number)
        return jax.tree.map(np.asarray, jax.jit(jax.vmap(draw))(keys))


def between(first: np.ndarray, second: np.ndarray, part: float) -> np.ndarray:
    """States [n, 31] between two others: at 0 the first, at 1 the second."""
    alike = (first[:, QUATERNION] * second[:, QUATERNION]).sum(1, keepdims=True)
    sign = np.where(alike < 0, -1.0, 1.0)
    mixed = (1 - part) * first + part * second
    turned = (1 - part) * first[:, QUATERNION] + part * sign * second[:, QUATERNION]
    mixed[:, QUATERNION] = turned / np.linalg.norm(turned, axis=1, keepdims=True)
    return mixed
