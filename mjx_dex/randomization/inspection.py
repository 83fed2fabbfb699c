"""Tables and plots of what the menu really draws."""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullFormatter

from mjx_dex.config import Alternative, LogUniform, Normal, RandomizationConfig, Uniform
from mjx_dex.randomization.adaptive import whole_ranges
from mjx_dex.randomization.draws import Randomization
from mjx_dex.types import EffectMemory, EpisodeDraw, Sensors
from robot_bridge.files import save_figure

HEADER = (
    f"{'effect':38} {'asked for':28} {'mean':>10} {'deviation':>10} {'least':>10} "
    f"{'most':>10}"
)
TRACE_STEPS = 150
"""Control steps of a time trace: 12 s."""


@dataclass(frozen=True)
class Row:
    """One number that an effect draws: what was asked for and what came."""

    effect: str
    part: str
    asked: str
    values: np.ndarray
    """[n] of all episodes and all entries."""
    log: bool = False
    """Whether to plot it on a logarithmic axis."""

    @property
    def name(self) -> str:
        """Effect and part."""
        return f"{self.effect} {self.part}".strip()

    def __str__(self):
        v = self.values
        numbers = " ".join(f"{x:10.4g}" for x in (v.mean(), v.std(), v.min(), v.max()))
        return f"{self.name:38} {self.asked:28} {numbers}"


def draw_rows(
    menu: Randomization, config: RandomizationConfig, episodes: int, key: jax.Array
) -> list[Row]:
    """Draw ``episodes`` episodes, and one row for each number that varies."""
    ranges = whole_ranges(menu.enabled)

    def draw(key):
        return menu.draw_signals(key, menu.draw_physics(key, ranges), ranges)

    draws = jax.jit(jax.vmap(draw))(jax.random.split(key, episodes))
    rows = [*_physics_rows(draws, config), *_signal_rows(draws, config)]
    return [row for row in rows if row.effect in menu.enabled]


def _physics_rows(draws: EpisodeDraw, config: RandomizationConfig) -> list[Row]:
    units = {"joint_limit": "rad", "gravity": "m/s^2", "tendon_range": "of width"}
    rows = []
    for effect, values in vars(draws.physics).items():
        asked = getattr(config, effect)
        rows.append(
            Row(
                effect,
                "",
                f"{_describe(asked)} {units.get(effect, '')}".strip(),
                np.asarray(values, float).ravel(),
                isinstance(asked, LogUniform),
            )
        )
    return rows


def _signal_rows(draws: EpisodeDraw, config: RandomizationConfig) -> list[Row]:
    def row(effect, part, asked, values, log=False):
        return Row(effect, part, asked, np.asarray(values, float).ravel(), log)

    def gaussian(effect, part, deviation, values, unit):
        return row(effect, part, f"N(0, {deviation:g}) {unit}", values)

    def degree(effect, part, deviation, values, unit):
        # Drawn anew every control step: the episode holds how much.
        return row(effect, part, f"{deviation:g} {unit}, every step", values)

    noise, fresh = config.correlated_noise, config.uncorrelated_noise
    turn = np.linalg.norm(draws.correlated_noise.object_orientation, axis=-1)
    places, dropout = config.marker_placement, config.marker_dropout
    action, push = config.action_noise, config.random_push
    errors, fresh_errors = draws.correlated_noise, draws.uncorrelated_noise
    loss = config.object_tracking_loss
    jitter = config.timestep_jitter
    name = "correlated_noise"
    return [
        gaussian(name, "fingertips", noise.fingertips, errors.fingertips, "m"),
        gaussian(name, "object", noise.object_position, errors.object_position, "m"),
        row(name, "turn", f"|N(0, {noise.object_orientation:g})| rad", turn),
        *(
            degree(
                "uncorrelated_noise",
                part,
                getattr(fresh, part),
                getattr(fresh_errors, part),
                unit,
            )
            for part, unit in (
                ("fingertips", "m"),
                ("object_position", "m"),
                ("object_orientation", "rad"),
            )
        ),
        *(
            gaussian(
                "marker_placement",
                part,
                getattr(places, part),
                getattr(draws.marker_placement, part),
                "m",
            )
            for part in ("fingertips", "base")
        ),
        row(
            "marker_dropout",
            "per step",
            f"{dropout.rate:g} per s, {dropout.seconds:g} s",
            draws.marker_dropout.probability,
        ),
        row(
            "marker_occlusion",
            "depth",
            f"{config.marker_occlusion.depth:g} m",
            draws.marker_occlusion,
        ),
        row(
            "object_tracking_loss",
            "per step",
            f"{loss.rate:g} per s, mean {loss.seconds:g} s",
            draws.object_tracking_loss.probability,
        ),
        gaussian(
            "action_noise",
            "correlated",
            action.correlated,
            draws.action_noise.correlated,
            "",
        ),
        *(
            degree(
                "action_noise",
                part,
                getattr(action, part),
                getattr(draws.action_noise, part),
                "",
            )
            for part in ("additive", "multiplicative")
        ),
        row(
            "action_delay",
            "delayed",
            f"probability {config.action_delay.probability:g}",
            draws.action_delay,
        ),
        row(
            "backlash",
            "steps per slack",
            f"calibrated * exp N(0, {config.backlash.deviation:g})",
            draws.backlash,
            log=True,
        ),
        row(
            "timestep_jitter",
            "mean, ms",
            f"1000 / U[{jitter.low:g}, {jitter.high:g}]",
            1000 * draws.timestep_jitter,
        ),
        row(
            "random_push",
            "probability",
            _describe(push.probability),
            draws.random_push.probability,
            log=True,
        ),
        degree(
            "random_push",
            "acceleration",
            push.acceleration,
            draws.random_push.acceleration,
            "m/s^2",
        ),
    ]


def _describe(asked: Uniform | LogUniform | Normal | Alternative) -> str:
    if isinstance(asked, Alternative):
        return f"probability {asked.probability:g}"
    if isinstance(asked, Normal):
        return f"N(0, {asked.deviation:g})"
    kind = "logU" if isinstance(asked, LogUniform) else "U"
    return f"{kind}[{asked.low:g}, {asked.high:g}]"


def trace(
    menu: Randomization, key: jax.Array, timestep: float
) -> dict[str, np.ndarray]:
    """One episode's per-step effects, fed with sines in place of policy and world.

    Returns:
        By name, [TRACE_STEPS, ...]: actions 'asked', 'delayed' and 'sent' of the
        actuator with most backlash; 'true' and 'read' position of a fingertip [m] and
        whether it was 'frozen'; 'push' [N]; 'timestep' [s].
    """
    ranges = whole_ranges(menu.enabled)
    draw = menu.draw_signals(key, menu.draw_physics(key, ranges), ranges)
    # Rare events are shown, too: this marker is lost more often than others are.
    often = draw.marker_dropout.replace(probability=5 * draw.marker_dropout.probability)
    draw = draw.replace(marker_dropout=often)
    actuator = int(np.argmax(np.asarray(draw.backlash).sum(1)))
    mass = draw.parameters.body_mass[menu.nominal.object_body]

    def step(memory, k):
        now = jax.random.fold_in(key, k)
        asked = jnp.full(20, jnp.sin(2 * jnp.pi * k / 25))
        late, memory = menu.apply("action_delay", now, asked, draw, memory)
        sent, memory = menu.apply("backlash", now, late, draw, memory)
        true = _still_sensors(0.02 * jnp.sin(2 * jnp.pi * k / 40))
        read, memory = menu.apply("uncorrelated_noise", now, true, draw, memory)
        live = read.fingertips
        read, memory = menu.apply("marker_dropout", now, read, draw, memory)
        memory = memory.replace(
            fingertip_reading=read.fingertips, readings=memory.readings + 1
        )
        push, memory = menu.apply(
            "random_push", now, memory.push, draw, memory, mass=mass
        )
        length, memory = menu.apply(
            "timestep_jitter", now, jnp.float32(timestep), draw, memory
        )
        return memory, {
            "asked": asked[actuator],
            "delayed": late[actuator],
            "sent": sent[actuator],
            "true": true.fingertips[0, 0],
            "read": read.fingertips[0, 0],
            "frozen": (read.fingertips != live).any(1)[0],
            "push": push,
            "timestep": length,
        }

    _, traces = jax.lax.scan(step, EffectMemory.empty(), jnp.arange(TRACE_STEPS))
    return jax.tree.map(np.asarray, traces)


def _still_sensors(position: jax.Array) -> Sensors:
    zeros = jnp.zeros
    return Sensors(
        fingertips=jnp.full((5, 3), position),
        object_position=zeros(3),
        object_orientation=jnp.array([1.0, 0, 0, 0]),
        joint_angles=zeros(24),
        joint_velocities=zeros(24),
        object_velocity=zeros(3),
        object_angular_velocity=zeros(3),
    )


def plot(rows: list[Row], traces: dict[str, np.ndarray], path: Path) -> None:
    """Save one page: a histogram for each row that varies, then the time traces."""
    varying = [row for row in rows if np.ptp(row.values) > 1e-6 * row.values.max()]
    columns = 5
    lines = -(-(len(varying) + 4) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4 * columns, 2.6 * lines), layout="constrained"
    )
    axes = axes.ravel()
    for axis, row in zip(axes, varying, strict=False):
        values = row.values
        bins = np.geomspace(*_ends(values), 41) if row.log else 40
        axis.hist(values, bins=bins)
        if row.log:
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
        else:
            axis.locator_params(axis="x", nbins=5)
        axis.set_title(f"{row.name}\n{row.asked}", fontsize=9)
        axis.set_yticks([])
    _plot_traces(axes[len(varying) : len(varying) + 4], traces)
    for axis in axes[len(varying) + 4 :]:
        axis.set_axis_off()
    save_figure(figure, path, dpi=90)
    plt.close(figure)


def _ends(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _plot_traces(axes, traces: dict[str, np.ndarray]) -> None:
    loop, marker, push, timestep = axes
    loop.plot(traces["delayed"], traces["sent"], ".-", markersize=3, linewidth=0.7)
    loop.set_title("backlash: action in, action out", fontsize=9)
    steps = np.arange(len(traces["true"]))
    marker.plot(steps, traces["true"], label="true")
    marker.plot(steps, traces["read"], linewidth=0.8, label="read")
    frozen = traces["frozen"]
    marker.plot(steps[frozen], traces["read"][frozen], "r.", label="dropout")
    marker.set_title("a fingertip's reading [m], by control step", fontsize=9)
    marker.legend(fontsize=7)
    push.plot(steps, traces["push"])
    push.set_title("push on the object [N], by control step", fontsize=9)
    timestep.plot(steps, 1000 * traces["timestep"], ".", markersize=3)
    timestep.set_title("length of a physics step [ms]", fontsize=9)
