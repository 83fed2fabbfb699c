"""Fitting a hand part by part, and what the recordings cannot tell.

Fingers do not move each other, so that each is fitted by itself, to the windows in
which it moved, together with the time that its commands take.
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mjx_dex.calibrate import factors
from mjx_dex.calibrate.config import CalibrateConfig
from mjx_dex.calibrate.factors import Entry
from mjx_dex.calibrate.recordings import JOINT_ACTUATORS, JOINTS
from mjx_dex.calibrate.replay import Replay, Track, touches
from mjx_dex.hand import names
from mjx_dex.types import HandDraw

PARTS = ("WR", *names.FINGERS)

DIFFERENCE, SPAN = 0.02, 0.1
"""Of a value for the Jacobian, in standard deviations of its prior: more than limits
and friction, which are not smooth, would deceive. Of uncertainty, first, either way."""

STRAY = 3.0
"""Errors that are larger, in ``noise``, weigh less in least squares: of some windows
slack was not what it seems, or a command was late."""
OFF_BOUNDS = 0.01
"""Of what lies between bounds: least squares begin so far from both."""

GAIN = 0.001
"""A change is kept if it lowers the error by more than this share (C.3)."""
FIRST_STEP, LAST_STEP = 1.0, 0.05
"""Of coordinate descent, in standard deviations of the prior."""

DOUBT = 0.2
"""Of slack, 2 wide: windows in which it matters begin with it known this well."""

TOLD, SURE = 0.1, 3.0
"""A value is told by the recordings if they leave it so little room, in ``SCALES``, at
so many standard deviations."""
SCALES = {
    "joint_equilibrium": 0.5,
    "joint_stiffness": 0.05,
    "joint_lower_limit": 0.5,
    "joint_upper_limit": 0.5,
    "coupling_rest": 0.5,
}
"""By which errors are measured, in rad, N m/rad or of the logarithm: 1 if not here."""
ALIKE = 0.9
"""Correlation from which two values cannot be told apart."""


@dataclass
class Problem:
    """One part of the hand: what is free, and what it is fitted to."""

    part: str
    replay: Replay
    config: CalibrateConfig
    entries: list[Entry]
    joints: np.ndarray
    """Of the 24, those of this part."""
    train: np.ndarray
    """Windows to fit to."""
    test: np.ndarray
    """Windows kept from the fit."""

    @property
    def bounds(self) -> np.ndarray:
        """[n + 1, 2] of ``z``: the entries', then the latency's."""
        latency = np.array([self.config.latency]) / LATENCY_UNIT
        return np.concatenate([factors.bounds(self.entries, self.config), latency])

    @property
    def start(self) -> np.ndarray:
        """[n + 1] the calibration file as it is, and some latency."""
        start = np.append(np.zeros(len(self.entries)), FIRST_LATENCY / LATENCY_UNIT)
        return np.clip(start, *self.bounds.T)

    def errors(self, z: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """Simulated minus recorded angles.

        Args:
            z: [c, n + 1] candidates: entries as ``factors.with_values`` takes them,
                then the latency in ``LATENCY_UNIT``.
            windows: [m].

        Returns:
            [c, m, times, joints] [rad].
        """
        nominal = factors.nominal_draw()
        draws = factors.with_values(nominal, self.entries, z[:, :-1], self.config)
        angles = self.replay(draws, z[:, -1] * LATENCY_UNIT, windows)
        own = np.isin(self.replay.joints, self.joints)
        return (angles - self.replay.recorded(windows))[..., own]

    def final_error(self, z: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """[c] mean square of what is left after all of a window [rad^2]."""
        return (self.errors(z, windows)[:, :, -1] ** 2).mean((1, 2))


LATENCY_UNIT, FIRST_LATENCY = 0.02, 0.01
"""Standard deviation of the prior of a latency, and where a fit begins [s]."""


@dataclass
class PartFit:
    """What was found for one part of the hand."""

    problem: Problem
    z: np.ndarray
    """[n + 1] values and latency."""
    covariance: np.ndarray
    """[n + 1, n + 1] of ``z``, by the Jacobian where the fit ended."""
    before: np.ndarray
    """[joints] root mean square error after a window that was held out [rad], by the
    calibration file, with the latency that was found."""
    after: np.ndarray
    """[joints] the same, fitted."""
    seconds: float
    """That it took."""
    simulated: float
    """Seconds of one hand."""
    stuck: str = ""
    """Why it ended early, if it did."""
    errors: list[float] = field(default_factory=list)
    """Root mean square error on the windows fitted to, as it went down [rad]."""

    @property
    def latency(self) -> float:
        """From command to reading [s]."""
        return float(self.z[-1] * LATENCY_UNIT)

    @property
    def deviations(self) -> np.ndarray:
        """[n] of each entry's logarithm, or in its unit."""
        return np.sqrt(np.diag(self.covariance))[:-1] * self.priors

    @property
    def priors(self) -> np.ndarray:
        """[n] standard deviations of each entry's prior."""
        chosen = self.problem.config.factors
        return np.array(
            [getattr(chosen, entry.factor).deviation for entry in self.problem.entries]
        )

    @property
    def is_told(self) -> np.ndarray:
        """[n] whether the recordings say what an entry is."""
        return SURE * self.deviations < TOLD * self.scales

    @property
    def scales(self) -> np.ndarray:
        """[n] of each entry: see ``SCALES``."""
        return np.array([SCALES.get(e.factor, 1.0) for e in self.problem.entries])

    def off(self, truth: HandDraw) -> np.ndarray:
        """[n] by how much each entry misses a hand that is known, in ``SCALES``."""
        problem = self.problem
        true = factors.z_of(truth, problem.entries, problem.config)
        return (self.z[:-1] - true) * self.priors / self.scales

    def confused(self) -> list[tuple[str, str, float]]:
        """Pairs of values that change the angles alike, and how much."""
        entries = [*map(str, self.problem.entries), f"latency {self.problem.part}"]
        deviations = np.sqrt(np.diag(self.covariance))
        alike = self.covariance / np.outer(deviations, deviations)
        pairs = zip(*np.triu_indices(len(entries), 1), strict=True)
        return [
            (entries[i], entries[j], float(alike[i, j]))
            for i, j in pairs
            if abs(alike[i, j]) > ALIKE
        ]


def make_problems(track: Track, config: CalibrateConfig) -> list[Problem]:
    """One for each part of the hand that moved and has something free.

    Raises:
        ValueError: if no part moved in windows of both kinds.
    """
    problems, touching, moving = [], touches(track, config), config.windows.moving
    for part in PARTS:
        joints = np.array([k for k, name in enumerate(JOINTS) if name[3:5] == part])
        own = sorted({JOINT_ACTUATORS[k] for k in joints})
        entries = factors.entries_of(part, config)
        series = np.hstack([track.targets[:, own], track.smooth_angles[:, joints]])
        usable = (np.ptp(_windows(series, track, config), axis=1) > moving).any(1)
        if not entries or not usable.any():
            continue
        replay = Replay(track, part, config)
        usable &= ~_slack_is_unknown(track, replay, own, config)
        if part in names.FINGERS:
            usable &= ~touching[:, names.FINGERS.index(part)]
        train = np.flatnonzero(usable & ~track.is_test)
        test = np.flatnonzero(usable & track.is_test)
        # If there are none, it only went out of others' way.
        if len(train) and len(test):
            problems.append(Problem(part, replay, config, entries, joints, train, test))
    if not problems:
        raise ValueError(
            "nothing moves in these recordings by itself, long enough for its slack to "
            "be known: record with --excite"
        )
    return problems


def _slack_is_unknown(
    track: Track, replay: Replay, own: list[int], config: CalibrateConfig
) -> np.ndarray:
    """[m] whether windows begin with slack of which too little is known, where targets
    move or are away."""
    counts = np.eye(len(factors.ACTUATORS))[JOINT_ACTUATORS]
    away = np.abs(track.targets - track.smooth_angles @ counts)
    matters = np.maximum(
        np.ptp(_windows(track.targets[:, own], track, config), axis=1),
        _windows(away[:, own], track, config).max(1),
    )
    doubt = replay.doubt(FIRST_LATENCY, config.noise)[:, own]
    return ((matters > config.windows.moving) & (doubt > DOUBT)).any(1)


def _windows(series: np.ndarray, track: Track, config: CalibrateConfig) -> np.ndarray:
    """[m, steps, columns] of series [n, columns]."""
    length = round(config.windows.seconds / config.timestep)
    return series[track.starts[:, None] + np.arange(length)]


@dataclass
class Search:
    """Where a method ended."""

    z: np.ndarray
    """[n + 1] values and latency."""
    errors: list[float]
    """Root mean square error on the windows fitted to, on the way [rad]."""
    unsettled: str = ""
    """What had not settled when it ended, if so."""


def fit(problem: Problem, tell: Callable[[str], None] = lambda line: None) -> PartFit:
    """Fit one part by the configured method.

    Args:
        problem: which.
        tell: takes lines for people.
    """
    began, simulated = time.monotonic(), problem.replay.simulated
    config, start = problem.config, problem.start
    if config.method == "coordinate_descent":
        search = coordinate_descent(problem, start, config.iterations, tell)
    else:
        _sysid()  # before it is needed
        search = coordinate_descent(problem, start, config.first_sweeps, tell)
        search = least_squares(problem, search.z, tell)
    z, stuck = search.z, search.unsettled
    first, last = problem.final_error(np.stack([start, z]), problem.train)
    if last > (1 - GAIN) * first:
        z, stuck = start, "the fit found nothing better than where it began"
    seconds = time.monotonic() - began
    simulated = problem.replay.simulated - simulated
    points = np.stack([np.append(start[:-1], z[-1]), z])
    both = problem.errors(points, problem.test)[:, :, -1]
    before, after = np.sqrt((both**2).mean(1))
    return PartFit(
        problem,
        z,
        covariance(problem, z),
        before,
        after,
        seconds,
        simulated,
        stuck,
        search.errors,
    )


def least_squares(problem: Problem, start: np.ndarray, tell) -> Search:
    """``mujoco.sysid``'s: Gauss-Newton within bounds, the prior beside the angles.

    Args:
        problem: which.
        start: [n + 1] where some sweeps of coordinate descent end: from the file's
            values it stops beside the slack that it cannot see across (a finger at 30
            mrad, not at 2).
        tell: takes lines for people.
    """
    sysid, (low, high) = _sysid(), problem.bounds.T
    # It may be in a corner, where steps within bounds would be short.
    start = np.clip(
        start, low + OFF_BOUNDS * (high - low), high - OFF_BOUNDS * (high - low)
    )
    free = sysid.Parameter("z", start, low, high)
    parameters = sysid.ParameterDict({"z": free})

    def residuals(z: np.ndarray, _) -> tuple[list[np.ndarray], None, None]:
        return [_residuals(problem, z)], None, None

    def progress(trace) -> None:
        tell(f"{problem.part}: iteration {len(trace)}, cost {trace[-1].objective:.1f}")

    found, result = sysid.optimize(
        parameters,
        residuals,
        verbose=False,
        max_iters=problem.config.iterations,
        eps=DIFFERENCE,
        xtol=1e-3,
        output=io.StringIO(),
        iter_callback=progress,
    )
    trail = np.stack([*np.reshape(result.extras["candidate"], (-1, len(low)))])
    errors = np.sqrt(problem.final_error(trail, problem.train)).tolist()
    unsettled = ""
    if len(trail) > problem.config.iterations:
        unsettled = f"least squares had not settled after {len(trail) - 1} iterations"
    return Search(found.as_vector(), errors, unsettled)


def _sysid():
    """MuJoCo's system identification.

    Raises:
        ImportError: if it cannot be imported.
    """
    try:
        from mujoco import sysid

        # It imports what these need when they are asked for.
        sysid.Parameter, sysid.optimize  # noqa: B018
    except (ImportError, AttributeError) as error:
        raise ImportError(
            "least squares are mujoco.sysid's: pip install 'mjx_dex[calibrate]', or "
            "take --method coordinate_descent"
        ) from error
    return sysid


def _residuals(problem: Problem, z: np.ndarray) -> np.ndarray:
    """[residuals, c] of columns [n + 1, c], or of one point [n + 1]."""
    columns = z.reshape(len(z), -1)
    errors = problem.errors(columns.T, problem.train) / problem.config.noise
    # Squares of small errors, beyond STRAY by their size: pseudo-Huber.
    size = STRAY * np.sqrt(2 * (np.sqrt(1 + (errors / STRAY) ** 2) - 1))
    errors = np.sign(errors) * size
    # The prior says how far values may be, not that noise makes them so.
    prior = columns - problem.start[:, None]
    return np.concatenate([errors.reshape(columns.shape[1], -1).T, prior])


def coordinate_descent(
    problem: Problem, start: np.ndarray, sweeps: int, tell
) -> Search:
    """The paper's: one value after another, a change kept if it gains 0.1%.

    All changes of a sweep are tried in one batch, each alone; those that gain are then
    put together, best first, and as many of them are kept as lower the error together.

    Args:
        problem: which.
        start: [n + 1] where it begins.
        sweeps: at most.
        tell: takes lines for people.
    """
    z, (low, high) = start, problem.bounds.T
    (error,) = problem.final_error(z[None], problem.train)
    errors, steps = [error], np.full(len(z), FIRST_STEP)
    for sweep in range(sweeps):
        changes = np.concatenate([np.diag(steps), -np.diag(steps)])
        tried = np.clip(z + changes, low, high)
        alone = problem.final_error(tried, problem.train)
        order = np.argsort(alone)
        order = order[alone[order] < (1 - GAIN) * error]
        # Of each value only the better of its two changes.
        _, first = np.unique(order % len(z), return_index=True)
        order = order[np.sort(first)]
        if len(order):
            together = z + np.cumsum(tried[order] - z, axis=0)
            reached = problem.final_error(together, problem.train)
            best = int(reached.argmin())
            if reached[best] > alone[order[0]]:
                together, reached, best = tried[order[:1]], alone[order[:1]], 0
            kept = order[: best + 1] % len(z)
            z, error = together[best], reached[best]
        else:
            kept = np.array([], int)
        rest = np.setdiff1d(np.arange(len(z)), kept)
        steps[rest] /= 2
        errors.append(error)
        tell(
            f"{problem.part}: sweep {sweep + 1}, {len(kept)} of {len(z)} values "
            f"changed, error {np.sqrt(error):.4f} rad"
        )
        if steps.max() < LAST_STEP:
            break
    unsettled = ""
    if steps.max() >= LAST_STEP:
        unsettled = f"coordinate descent had not settled after {sweeps} sweeps"
    return Search(z, np.sqrt(errors).tolist(), unsettled)


def covariance(problem: Problem, z: np.ndarray) -> np.ndarray:
    """[n + 1, n + 1] of ``z``: what the windows fitted to, and the prior, leave open.

    Windows overlap, and one model's errors are alike from one to the next: a window
    counts by the share of it that is its own. What no value explains is at least as
    large as ``noise`` says, however small the errors: a hand is not its model. Where
    moments of a recording contradict each other, that is added: each pulls at the
    values, and all are in balance.

    What all torques of a finger do together is the difference of large effects, and
    angles are not smooth in any: once the axes of what is left open are known, the
    effect of one deviation along each is measured itself.
    """
    windows = problem.config.windows
    (errors,) = problem.errors(z[None], problem.train) / problem.config.noise
    weights = 1 / np.sqrt(1 + (errors / STRAY) ** 2)
    share = min(1.0, windows.stride / windows.seconds)
    share /= max((weights * errors**2).mean(), 1.0)
    axes, spans = np.eye(len(z)), np.full(len(z), SPAN)
    for _ in range(2):
        effects = _effects(problem, z, axes, spans)
        weighted = share * weights * effects
        information = np.einsum("amtj,bmtj->ab", weighted, effects) + np.eye(len(z))
        pulls = (weighted * errors).sum((2, 3))
        lengths, axes = np.linalg.eigh(information)
        axes, spans = axes.T, 1 / np.sqrt(lengths)
    moments = problem.replay.moments(problem.train)
    pulls = pulls @ (moments[:, None] == np.unique(moments))
    inverse = axes.T @ np.diag(spans**2) @ axes
    return inverse + inverse @ pulls @ pulls.T @ inverse


def _effects(
    problem: Problem, z: np.ndarray, axes: np.ndarray, spans: np.ndarray
) -> np.ndarray:
    """[n + 1, m, times, joints] of the rows of ``z`` on errors, in ``noise``, for one
    unit, from steps along axes [n + 1, n + 1] of lengths [n + 1] either way."""
    low, high = problem.bounds.T
    steps = spans[:, None] * axes
    points = np.concatenate([z + steps, z - steps]).clip(low, high)
    errors = problem.errors(points, problem.train) / problem.config.noise
    up, down = errors[: len(z)], errors[len(z) :]
    slopes = (up - down) / (2 * spans[:, None, None, None])
    return np.einsum("az,amtj->zmtj", axes, slopes)


def whole(fits: list[PartFit]) -> HandDraw:
    """One draw of what all parts' fits found."""
    draw = factors.nominal_draw()
    for each in fits:
        draw = factors.with_values(
            draw, each.problem.entries, each.z[:-1], each.problem.config
        )
    return draw
