"""``python -m mjx_dex.view RUN``: watch a policy, in the browser or as a video.

The object floating beside the hand shows the orientation that is asked for.
"""

import dataclasses
import math
import queue
import socket
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from mjx_dex import runs, settings, startup
from mjx_dex.config import Config, Preset, replace
from mjx_dex.evaluate import ENDS
from mjx_dex.hand import build_hand
from mjx_dex.hand.model import NUM_JOINTS
from mjx_dex.learning.agent import Agent
from mjx_dex.play import Play
from mjx_dex.ranges import real, whole
from robot_bridge.files import VIDEOS, Output, check_outputs, written_at_once

PUSH = 0.3
"""Speed that a push gives the object, in a random horizontal direction [m/s]."""
SHOWN_SECONDS = 10.0
"""Of the plot of the angle to the goal."""
MISSING = (
    "watching needs more packages (viser, mjviser, imageio): "
    "pip install 'mjx_dex[view]'"
)


@dataclass(frozen=True)
class ViewCommand(Config):
    """Options of the command itself; configuration options change the run's own."""

    untrained: bool = False
    """Watch the policy as it was before training."""
    video: Path | None = None
    """Write an mp4 (or mkv, mov, avi) file and open no browser."""
    seconds: real(0, 86400, above=True) = 30.0
    """Length of the video."""
    host: str = "127.0.0.1"
    """Address of the page. Anybody who reaches it can steer; 0.0.0.0 is reached from
    every network of this machine."""
    port: whole(1, 65535) = 8080
    """Port of the page."""


class Show:
    """One world at play, and how it looks."""

    def __init__(self, config: Config, agent: Agent):
        self._agent = agent
        self.preset = config.randomization.preset
        hand = build_hand(
            config.hand, config.object, config.physics, visuals=True, goal=True
        )
        self.model, self.data = hand.model, mujoco.MjData(hand.model)
        self._shapes = [
            np.flatnonzero(self.model.geom_bodyid == self.model.body(name).id)
            for name in ("object", "goal")
        ]
        bodies = [self.model.body(name).id for name in ("object", "goal")]
        self._marks = np.flatnonzero(np.isin(self.model.site_bodyid, bodies))
        self._nominal_marks = (
            self.model.site_pos[self._marks].copy(),
            self.model.site_size[self._marks].copy(),
        )
        self.period = config.physics.control_period
        self._config = config
        self._key = jax.random.key(config.seed)
        self._play = Play(config, agent, num_worlds=1)
        self.begin()

    def begin(self) -> None:
        """Begin another episode."""
        self._key, key = jax.random.split(self._key)
        self._playing = self._play.start(key)
        self.episode_goals = self.steps = 0
        self.ended = ""
        self._pose()

    def step(self) -> None:
        """Advance by one control step."""
        self._key, key = jax.random.split(self._key)
        self._playing, time_step = self._play.step(self._playing, key)
        metrics = {name: float(x[0]) for name, x in time_step.metrics.items()}
        self.steps += 1
        self.episode_goals += int(metrics["goals"])
        if metrics["episodes"]:
            (why,) = (label for name, label in ENDS.items() if metrics[name])
            self.ended = f"{self.episode_goals} goals, then {why}"
            self.episode_goals = 0
        self._pose()

    def push(self) -> None:
        """Kick the object sideways."""
        self._key, key = jax.random.split(self._key)
        angle = jax.random.uniform(key, maxval=2 * math.pi)
        kick = PUSH * jnp.array([jnp.cos(angle), jnp.sin(angle)])
        state = self._playing.state
        physics = state.worlds.physics
        qvel = physics.qvel.at[0, NUM_JOINTS : NUM_JOINTS + 2].add(kick)
        worlds = state.worlds.replace(physics=physics.replace(qvel=qvel))
        self._playing = self._playing.replace(state=state.replace(worlds=worlds))

    def randomize(self, preset: str) -> None:
        """Begin again in worlds of another preset; compiles anew."""
        self.preset = preset
        config = replace(self._config, **{"randomization.preset": preset})
        self._play = Play(config, self._agent, num_worlds=1)
        self.begin()

    @property
    def angle(self) -> float:
        """Remaining turn to the goal [rad]."""
        return float(self._playing.state.worlds.angle_to_goal[0])

    @property
    def seconds_on_goal(self) -> float:
        """Since this goal was set."""
        return float(self._playing.state.worlds.steps_on_goal[0]) * self.period

    @property
    def object_size(self) -> np.ndarray:
        """[geoms, 3] half sizes of the object's shapes in this world [m]."""
        sizes = self._playing.state.worlds.draw.parameters.geom_size[0]
        return np.asarray(sizes)[-len(self._shapes[0]) :]

    def _pose(self) -> None:
        worlds = self._playing.state.worlds
        for geoms in self._shapes:
            self.model.geom_size[geoms] = self.object_size
        # Every shape's first geom reaches as far in x as its faces.
        scale = 2 * self.object_size[0, 0] / self._config.object.size
        position, size = self._nominal_marks
        self.model.site_pos[self._marks] = scale * position
        self.model.site_size[self._marks] = scale * size
        self.data.qpos[:] = np.asarray(worlds.physics.qpos[0])
        self.data.mocap_quat[0] = np.asarray(worlds.goal[0])
        mujoco.mj_forward(self.model, self.data)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return runs.command_line(_main, arguments)


def _main(arguments: list[str]) -> None:
    run, command = runs.from_command_line(ViewCommand, arguments, __doc__)
    check_outputs(Output("--video", command.video, VIDEOS))
    config = settings.config_of(command)
    policy = runs.load_policy(run, config, command.untrained)
    # One world: the C engine is fastest wherever it runs.
    show = Show(dataclasses.replace(config, engine="native"), policy.agent)
    try:
        if command.video:
            film(show, command.video, command.seconds)
            print(f"saved {command.video}")
        else:
            Page(show, command.host, command.port).serve()
    except ModuleNotFoundError as error:
        raise ImportError(f"{MISSING} ({error})") from error
    except KeyboardInterrupt:
        if command.video:
            raise ValueError("interrupted: no video was written") from None


def film(show: Show, path: Path, seconds: float) -> None:
    """Write a video at the policy's own rate, 12.5 pictures a second.

    JAX warns of every fork: here it is ffmpeg's process, which does not use JAX.
    """
    import imageio.v2 as imageio

    startup.check_drawing()
    with (
        warnings.catch_warnings(action="ignore", category=RuntimeWarning),
        mujoco.Renderer(show.model, 480, 640) as renderer,
        written_at_once(path) as unfinished,
        imageio.get_writer(
            unfinished, fps=1 / show.period, macro_block_size=16
        ) as writer,
    ):
        for _ in range(round(seconds / show.period)):
            show.step()
            renderer.update_scene(show.data, "overview")
            writer.append_data(renderer.render())


def check_address(host: str, port: int) -> None:
    """Raise ValueError unless the page can be there: viser would wait for ever."""
    if not 0 <= port <= 65535:
        raise ValueError(f"--port: {port} is not from 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, 0), family=family).close()
    except OSError as error:
        raise ValueError(
            f"--host: {host} is no address of this machine ({error.strerror}); give "
            "127.0.0.1, or 0.0.0.0 for all of its networks"
        ) from error


def address_of(host: str, port: int) -> str:
    """What to open in a browser."""
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Page:
    """A show in the browser.

    Callbacks of the page only ask; the loop of ``serve`` does.
    """

    def __init__(self, show: Show, host: str, port: int):
        import viser
        from mjviser import ViserMujocoScene

        self._show = show
        self._asked = queue.SimpleQueue()
        self.is_playing = True
        check_address(host, port)
        self._server = viser.ViserServer(host=host, port=port, verbose=False)
        self.address = address_of(host, self._server.get_port())
        self._server.initial_camera.position = (0.85, 0.6, 0.42)
        self._server.initial_camera.look_at = (1.03, 0.87, 0.18)
        self._scene = ViserMujocoScene(self._server, show.model, num_envs=1)
        self._scene.camera_tracking_enabled = False
        self._object_size = show.object_size
        self._add_controls(self._server.gui)
        self._times, self._angles = [0.0], [show.angle]
        self._plot = self._server.gui.add_uplot(
            data=self._history(),
            series=({"label": "s"}, {"label": "angle to goal [rad]", "stroke": "blue"}),
            scales={"x": {"time": False}, "y": {"range": (0.0, math.pi)}},
            aspect=1.6,
        )

    def serve(self) -> None:
        """Play until interrupted."""
        print(f"open {self.address} in a browser; Ctrl-C ends")
        self._draw()
        while True:
            begun = time.monotonic()
            while not self._asked.empty():
                self._do(*self._asked.get())
            if self.is_playing:
                self._advance()
            pause = self._show.period / self._speed.value
            time.sleep(max(0.0, pause - (time.monotonic() - begun)))

    def _add_controls(self, gui) -> None:
        def button(label, name):
            gui.add_button(label).on_click(lambda _: self._asked.put((name,)))

        self._status = gui.add_markdown("")
        self._toggle = gui.add_button("Pause")
        self._toggle.on_click(lambda _: self._asked.put(("toggle",)))
        button("Step", "step")
        button("Push the object", "push")
        button("New episode", "begin")
        self._speed = gui.add_slider(
            "Speed", min=0.1, max=4.0, step=0.1, initial_value=1.0
        )
        presets = get_args(Preset)
        menu = gui.add_dropdown(
            "Randomization", presets, initial_value=self._show.preset
        )
        menu.on_update(lambda _: self._asked.put(("randomize", menu.value)))

    def _do(self, name: str, *arguments) -> None:
        if name == "toggle":
            self.is_playing = not self.is_playing
            self._toggle.label = "Pause" if self.is_playing else "Play"
        elif name == "step":
            self._advance()
        elif name == "randomize":
            self._status.content = f"**compiling for {arguments[0]} …**"
            self._show.randomize(*arguments)
        else:
            getattr(self._show, name)()
        self._draw()

    def _advance(self) -> None:
        self._show.step()
        self._times.append(self._show.steps * self._show.period)
        self._angles.append(self._show.angle)
        self._draw()

    def _draw(self) -> None:
        show = self._show
        if (show.object_size != self._object_size).any():
            self._object_size = show.object_size
            self._scene.rebuild_visual_handles()
        self._scene.update_from_mjdata(show.data)
        self._plot.data = self._history()
        self._status.content = (
            f"**{show.episode_goals} goals** in this episode; "
            f"{show.seconds_on_goal:.1f} s on this goal, {show.angle:.2f} rad to go"
            + (f"\n\nlast episode: {show.ended}" if show.ended else "")
        )

    def _history(self) -> tuple[np.ndarray, np.ndarray]:
        if self._show.steps <= 1:
            self._times, self._angles = self._times[-1:], self._angles[-1:]
        count = round(SHOWN_SECONDS / self._show.period)
        return np.array(self._times[-count:]), np.array(self._angles[-count:])


if __name__ == "__main__":
    sys.exit(main())
