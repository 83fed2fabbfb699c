"""Every number of mjx_dex, once, with its unit and its place in the paper.

The paper is OpenAI et al., *Learning Dexterous In-Hand Manipulation*, arXiv
1808.00177v5.
Attribute docstrings become the command line's ``--help``.
"""

import dataclasses
import difflib
import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from mjx_dex.ranges import (
    Checked,
    Count,
    NotNegative,
    Positive,
    Seed,
    SettingError,
    Share,
    check_multiple,
    check_order,
    real,
    whole,
)

Turn = real(0, math.pi, above=True)
"""Angle between two orientations [rad]."""
Place = real(-10, 10)
"""Coordinate in the world frame [m]."""
Friction = real(0, 100)
"""Friction coefficient: sliding [-], torsional or rolling [m]."""
Weight = real(-1e6, 1e6)
"""Weight of a term of the reward."""
Bound = real(1e-6, 1e6)
"""Lower or upper bound of a quantity that is never 0."""
Deviation = real(0, 1e3)
"""Standard deviation; 0 for none."""
Units = whole(1, 2**16)
"""Number of units of a layer."""

SHARE_OF_MINIBATCH = 4
"""Minibatches in an iteration's transitions, where none other is configured."""

PAPER_PERIOD = 0.08
"""Control period [s] for which weights "per 80 ms" are given (appendix C.1)."""


def per_control_step(weight: float, period: float) -> float:
    """Weight or decay over one control step, from one per 80 ms.

    What is left after a second is then the same with any control period.

    Args:
        weight: over ``PAPER_PERIOD``.
        period: of control [s].
    """
    return weight ** (period / PAPER_PERIOD)


@dataclass(frozen=True)
class HandConfig(Checked):
    """Which Shadow hand."""

    calibration: str = "calibrated"
    """'calibrated' (OpenAI's values), 'gymnasium' (the package's own) or a file."""
    self_collision: bool = True
    """Keep the contact pairs between fingers, and between thumb and palm."""


@dataclass(frozen=True)
class ObjectConfig(Checked):
    """What the hand turns. The paper gives no dimensions; these are robogym's block."""

    shape: Literal["block", "prism", "sphere"] = "block"
    """Kind of object; 'prism' is octagonal."""
    size: real(0.001, 1) = 0.057
    """Edge of the block, width and length of the prism, diameter of the ball [m]."""
    mass: real(1e-6, 1e3) = 0.078
    """Mass [kg]."""
    friction: tuple[Friction, Friction, Friction] = (1.0, 0.005, 0.0001)
    """Sliding [-], torsional and rolling [m] friction; a contact's follows from the
    object's and the hand's by ``physics.friction_rule``."""
    start_position: tuple[Place, Place, Place] = (1.01, 0.9, 0.21)
    """Where the object is before it falls into the hand [m], world frame."""


@dataclass(frozen=True)
class PhysicsConfig(Checked):
    """Time and solver. The solver's figures are measured in docs/physics.md."""

    timestep: real(1e-5, 0.1) = 0.008
    """One physics step [s] (appendix C.1)."""
    substeps: whole(1, 1000) = 10
    """Physics steps in one control step (appendix C.1: 10 x 8 ms)."""
    iterations: whole(1, 1000) = 20
    """At most so many Newton iterations in one physics step (robogym)."""
    ls_iterations: whole(1, 1000) = 20
    """At most so many line-search iterations in one Newton iteration."""
    threads: whole(0, 4096) = 0
    """Threads of the native engine; 0 takes one for each CPU core."""
    friction_rule: Literal["maximum", "geometric_mean", "product"] = "maximum"
    """Rule by which the friction of hand and object make a contact's. 'maximum':
    MuJoCo's and robogym's; the hand's surface hardly counts, for the object's is
    rougher (docs/randomization.md). 'product': of sliding friction; torsional and
    rolling friction, which are lengths, take the geometric mean."""
    max_contacts: whole(1, 2**20) | None = None
    """Contacts a world can hold on warp and mjx; more are dropped and counted. None:
    half more than are seen when this configuration is played at random."""
    max_constraints: whole(1, 2**20) | None = None
    """Constraint rows a world can hold on warp; more are dropped and counted. None: as
    above."""

    @property
    def control_period(self) -> float:
        """Time between two actions [s]."""
        return self.timestep * self.substeps


@dataclass(frozen=True)
class GoalConfig(Checked):
    """Which orientations are asked for, and when one is met."""

    distribution: Literal["uniform", "face_up", "near"] = "uniform"
    """'uniform': any orientation; 'face_up': a face up, any heading (robogym);
    'near': a turn about a random axis, drawn from ``angles``."""
    tolerance: Turn = 0.4
    """A goal is met when the remaining turn is smaller than this [rad] (C.1)."""
    seconds: real(0, 1e6, above=True) = 8.0
    """An episode is cut when a goal is not met in this time [s] (C.1)."""
    count: whole(1, 10**6) = 50
    """An episode is complete after so many goals (C.1)."""
    angles: tuple[Turn, Turn] = (0.45, 0.8)
    """'near': smallest and, at the start, largest turn to a goal [rad]. The smallest is
    above ``tolerance``: no goal is met as soon as it is set."""
    widening: real(0, math.pi) = 0.0
    """'near': an environment's largest turn grows by this [rad] with every goal that it
    meets, up to pi; 0 keeps it where it is: at the upper of ``angles``, or where the
    run that is continued had it."""
    narrowing: real(0, math.pi) = 0.0
    """'near': and shrinks by this [rad] with every episode that ends without one, down
    to the upper of ``angles``. In balance, with m goals per episode on average, about
    one episode in 1 + m ends without a goal: m (1 + m) = narrowing / widening."""

    def validate(self):
        """See ``Checked``."""
        smallest, largest = self.angles
        if smallest > largest:
            raise SettingError(
                "angles", f"({smallest:g}, {largest:g}) must have the smallest first"
            )
        if self.distribution == "near" and smallest <= self.tolerance:
            raise SettingError(
                "angles",
                f"begin at {smallest:g}, where goals are met as soon as they are set: "
                f"they must begin above tolerance ({self.tolerance:g})",
            )


@dataclass(frozen=True)
class RewardConfig(Checked):
    """Weights of what is rewarded (appendix C.1; those that are 0 are not in it)."""

    progress: Weight = 1.0
    """Of the angle gained in a control step [rad]."""
    success: Weight = 5.0
    """When a goal is met."""
    drop: Weight = -20.0
    """When the object is dropped."""
    timeout: Weight = 0.0
    """When an episode is cut because a goal took too long."""
    closeness: Weight = 0.0
    """Of 1 / (angle to the goal [rad] + 0.1), every control step (IsaacGymEnvs)."""
    distance: Weight = 0.0
    """Of how far the object is from where it fell into the hand, horizontally [m],
    every control step."""
    effort: Weight = 0.0
    """Of the mean square of the smoothed action, every control step."""


Input = Literal[
    "fingertips",
    "object_position",
    "relative_orientation",
    "object_orientation",
    "goal_orientation",
    "joint_angles",
    "joint_velocities",
    "object_velocity",
    "object_angular_velocity",
]
"""Observation of a network (Table 2)."""


@dataclass(frozen=True)
class TaskConfig(Checked):
    """The paper's block-turning task (appendix C.1)."""

    goal: GoalConfig = GoalConfig()
    reward: RewardConfig = RewardConfig()
    action_bins: whole(2, 1001) | None = 11
    """Bins per action coordinate, evenly spaced over [-1, 1]; None: any number, from a
    Gaussian policy, clipped to that range."""
    action_targets: Literal["relative", "absolute"] = "relative"
    """Whether an action of 0 asks for the present joint angle (C.1) or for the middle
    of the actuator's range."""
    action_smoothing: real(0, 1, below=True) = 0.3
    """Weight on the past in the moving average of actions, per 80 ms (C.1): with
    another control period ``per_control_step`` rescales it."""
    drop_height: Place = 0.04
    """The object is dropped when its centre is below this height [m] (robogym)."""
    start_steps: whole(0, 10**5) = 100
    """Control steps of random actions before an episode begins (C.1)."""
    locked_wrist: bool = False
    """Servo the wrist's pitch joint (WRJ0) to 0: the paper's fine-tuned variant."""
    policy_inputs: tuple[Input, ...] = (
        "fingertips",
        "object_position",
        "relative_orientation",
    )
    """What the policy sees: Table 2. Any of the value network's inputs may be added."""

    def validate(self):
        """See ``Checked``."""
        if not self.policy_inputs:
            raise SettingError("policy_inputs", "is empty; give at least one")
        for k, name in enumerate(self.policy_inputs):
            if name in self.policy_inputs[:k]:
                raise SettingError(f"policy_inputs[{k}]", f"repeats {name}")


@dataclass(frozen=True)
class Uniform(Checked):
    """Evenly between two bounds."""

    low: Bound
    high: Bound

    def validate(self):
        """See ``Checked``."""
        check_order(self.low, self.high)


@dataclass(frozen=True)
class LogUniform(Checked):
    """Evenly between two bounds, in the logarithm."""

    low: Bound
    high: Bound

    def validate(self):
        """See ``Checked``."""
        check_order(self.low, self.high)


@dataclass(frozen=True)
class Normal(Checked):
    """Gaussian around 0."""

    deviation: Deviation


@dataclass(frozen=True)
class SensorDeviations(Checked):
    """Standard deviations of Gaussian errors of what is measured (Table 7)."""

    fingertips: Deviation
    """Each coordinate [m]."""
    object_position: Deviation
    """Each coordinate [m]."""
    object_orientation: Deviation
    """Turn about a random axis [rad]."""


@dataclass(frozen=True)
class MarkerDeviations(Checked):
    """Standard deviations of where markers sit, each coordinate [m] (Table 7)."""

    fingertips: Deviation = 0.003
    base: Deviation = 0.001


@dataclass(frozen=True)
class Dropout(Checked):
    """Readings that are lost for a while."""

    rate: Share
    """Probability of a loss within a second."""
    seconds: real(0, 1e6)
    """Length of each (C.2), or its mean where lengths are exponential."""


@dataclass(frozen=True)
class Occlusion(Checked):
    """Markers hidden by what comes near."""

    depth: real(-1, 1) = 0.0001
    """A marker is hidden when something reaches this far into the box on its nail [m]
    (robogym)."""


@dataclass(frozen=True)
class ActionNoise(Checked):
    """Standard deviations, in units of actions, whose range -1 to 1 is 2 wide (Table 8:
    5 %, 1.5 % and 1.5 % of it)."""

    additive: Deviation = 0.1
    """Drawn every control step."""
    correlated: Deviation = 0.03
    """Drawn once per episode, added."""
    multiplicative: Deviation = 0.03
    """Drawn every control step."""


@dataclass(frozen=True)
class Delay(Checked):
    """Actuators that lag by one control step."""

    probability: Share = 0.5
    """Of each actuator, once per episode."""


@dataclass(frozen=True)
class Alternative(Checked):
    """Objects that take the place of the configured one."""

    probability: Share = 0.5
    """Once per episode."""


@dataclass(frozen=True)
class Push(Checked):
    """Random forces on the object (C.2)."""

    probability: LogUniform = LogUniform(0.001, 0.1)
    """Probability of a new push within 80 ms, a control step of the paper's."""
    acceleration: Deviation = 1.0
    """A push's standard deviation along each axis [m/s^2 times the object's mass]."""
    decay: Share = 0.99
    """Factor of the force per 80 ms, a control step of the paper's."""

    def validate(self):
        """See ``Checked``."""
        if self.probability.high > 1:
            raise SettingError(
                "probability.high",
                f"is {self.probability.high:g}; it must be 1 or less",
            )


Group = Literal[
    "physics", "observation", "action", "timing", "forces", "extra", "objects"
]
"""Effects that belong together (``randomization.menu.GROUPS``)."""

Preset = Literal[
    "all", "none", "no_observation_noise", "no_physics", "no_unmodeled", "extras"
]


@dataclass(frozen=True)
class AdaptiveConfig(Checked):
    """Ranges that follow the policy (automatic domain randomization, Akkaya et al.)."""

    enabled: bool = False
    """Begin without randomization and widen each range where the policy copes."""
    probing: Share = 0.5
    """Share of episodes that run with one range at its present bound."""
    episodes: Count = 64
    """Episodes at a bound before it is judged."""
    widen_at: NotNegative = 5.0
    """Goals per episode at a bound from which it moves out."""
    narrow_at: NotNegative = 2.0
    """Goals per episode at a bound below which it moves in."""
    step: real(0, 1, above=True) = 0.05
    """Moves, as a share of the range asked for."""
    limit: Share = 1.0
    """Widest range, as a share of the range asked for."""

    def validate(self):
        """See ``Checked``."""
        if self.narrow_at > self.widen_at:
            raise SettingError(
                "narrow_at",
                f"({self.narrow_at:g}) must not exceed widen_at ({self.widen_at:g})",
            )


@dataclass(frozen=True)
class RandomizationConfig(Checked):
    """The randomization menu: Tables 1, 7, 8 and appendix C.2.

    Fields that are effects have the effect's name; what each does is said at the
    function of that name in ``mjx_dex/randomization``.
    """

    preset: Preset = "all"
    """Which effects: 'all' of the paper's, 'none', one of section 6.3's ablations, or
    'extras' (all, and those that the paper lacks)."""
    off: tuple[str, ...] = ()
    """Effects or groups to switch off."""
    on: tuple[str, ...] = ()
    """Effects or groups to switch on, whatever the preset says."""
    adaptive: AdaptiveConfig = AdaptiveConfig()

    object_shape: Alternative = Alternative()
    """Of a block in the place of ``object.shape: prism``; in no preset."""
    object_size: Uniform = Uniform(0.95, 1.05)
    link_mass: Uniform = Uniform(0.5, 1.5)
    object_mass: Uniform = Uniform(0.5, 1.5)
    surface_friction: Uniform = Uniform(0.7, 1.3)
    joint_damping: LogUniform = LogUniform(0.3, 3.0)
    actuator_gain: LogUniform = LogUniform(0.75, 1.5)
    joint_limit: Normal = Normal(0.15)
    """[rad]."""
    gravity: Normal = Normal(0.4)
    """[m/s^2]."""
    tendon_range: Normal = Normal(0.15)
    """Share of the range's width (robogym)."""
    correlated_noise: SensorDeviations = SensorDeviations(0.001, 0.005, 0.1)
    uncorrelated_noise: SensorDeviations = SensorDeviations(0.002, 0.001, 0.1)
    marker_placement: MarkerDeviations = MarkerDeviations()
    marker_dropout: Dropout = Dropout(0.2, 1.0)
    marker_occlusion: Occlusion = Occlusion()
    object_tracking_loss: Dropout = Dropout(0.02, 1.0)
    action_noise: ActionNoise = ActionNoise()
    action_delay: Delay = Delay()
    backlash: Normal = Normal(0.1)
    """Of the logarithm of the calibrated coefficients."""
    timestep_jitter: Uniform = Uniform(1250.0, 10000.0)
    """Rate of the exponential distribution that lengthens physics steps [1/s]."""
    random_push: Push = Push()

    def validate(self):
        """See ``Checked``."""
        others = {"preset", "off", "on", "adaptive"}
        effects = [name for name in self.__dataclass_fields__ if name not in others]
        known = [*effects, *get_args(Group)]
        for name, entries in (("off", self.off), ("on", self.on)):
            for k, entry in enumerate(entries):
                if entry not in known:
                    raise SettingError(f"{name}[{k}]", _unknown_effect(entry, known))


def _unknown_effect(entry: str, known: list[str]) -> str:
    close = difflib.get_close_matches(entry, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"is {entry!r}, no effect; {hint}effects and groups: {', '.join(known)}"


@dataclass(frozen=True)
class BankConfig(Checked):
    """The bank of started episodes that feeds resets (see ``task/bank.py``).

    Both are over all devices, as ``num_envs`` is.
    """

    size: whole(1, 10**7) = 256
    """Started episodes held ready."""
    starting: whole(1, 10**7) = 16
    """Worlds stepped beside the training ones that start new episodes all the time."""

    def validate(self):
        """See ``Checked``."""
        if self.starting > self.size:
            raise SettingError(
                "starting", f"({self.starting}) must not exceed size ({self.size})"
            )


Precision = Literal["float32", "tensorfloat32", "bfloat16", "default"]
"""Of matrix products: see ``NetworkConfig.matmul_precision``."""


@dataclass(frozen=True)
class NetworkConfig(Checked):
    """Separate policy and value networks (Table 10, Figure 12)."""

    policy_memory: Literal["lstm", "none"] = "lstm"
    """'lstm', or 'none' for a dense layer in its place (section 6.4's ablation)."""
    value_memory: Literal["lstm", "none"] = "lstm"
    hidden: Units = 1024
    """Units of the dense ReLU layer."""
    memory: Units = 512
    """Units of the LSTM."""
    matmul_precision: Precision = "float32"
    """Precision of the networks' matrix products, when acting and when learning; sums,
    weights, optimizer and everything else are float32. 'float32': exact products.
    'bfloat16': operands are rounded to 8 bits of significand, 'tensorfloat32': to 11
    bits, on every device; fast on NVIDIA GPUs since Ampere, while a CPU gains little or
    nothing. 'default': as runs of older versions may say, XLA's choice: tensorfloat32
    there, float32 on a CPU."""


@dataclass(frozen=True)
class PPOConfig(Checked):
    """Proximal policy optimization (Table 10)."""

    gamma: Share = 0.998
    """Discount per control step."""
    gae_lambda: Share = 0.95
    """Generalized advantage estimation's lambda."""
    entropy: real(0, 1e3) = 0.01
    """Weight of the entropy bonus, summed over action coordinates."""
    clip: real(0, 1, above=True) = 0.2
    """Probability ratios are clipped to 1 +- this."""
    value_weight: real(0, 1e6) = 1.0
    """Weight of the value loss; the networks are separate, so it acts through Adam's
    epsilon and the gradient's norm only."""
    learning_rate: Share = 3e-4
    """Adam's step size, and its start where ``kl_target`` is set."""
    kl_target: Positive | None = None
    """KL divergence [nats] of an iteration's last policy from the one that acted, which
    the learning rate is scaled to hold. It is 1.2 to 1.3 times the mean over the later
    half of the minibatches, each before its own step (docs/results.md)."""
    max_gradient_norm: Positive | None = 1.0
    """Gradients are scaled down to this norm, policy and value each."""
    horizon: Count = 20
    """Control steps each environment takes in an iteration; a multiple of ``chunk``."""
    chunk: Count = 10
    """Steps of truncated back-propagation, replayed from the stored LSTM state."""
    minibatch_size: Count | None = None
    """Transitions in a minibatch, over all devices; a multiple of ``chunk`` on each.
    None: a quarter of an iteration's."""
    minibatches: Count = 8
    """Minibatches in one iteration. They are cut from random orders of all chunks,
    one order after another, so that no chunk is seen twice before all were once."""
    accumulation: Count = 1
    """Parts in which a device's share of a minibatch is computed, one after another:
    the same step in less memory."""
    nonfinite: Literal["stop", "skip"] = "stop"
    """Consequence of rewards or observations that are infinite or NaN. 'stop': an
    error, and nothing is learned from that iteration. 'skip': rewards count as 0,
    observations as the mean of all so far, episodes as ended there; metrics count such
    transitions."""

    def validate(self):
        """See ``Checked``."""
        check_multiple("horizon", self.horizon, "chunk", self.chunk)
        if self.minibatch_size is not None:
            check_multiple("minibatch_size", self.minibatch_size, "chunk", self.chunk)
            parts = "chunk x accumulation"
            check_multiple("minibatch_size", self.minibatch_size, parts, self.unit)

    @property
    def unit(self) -> int:
        """Transitions that a minibatch is a multiple of, on each device."""
        return self.chunk * self.accumulation

    def minibatch(self, transitions: int, devices: int = 1) -> int:
        """Transitions in a minibatch, over all devices.

        Args:
            transitions: of one iteration, over all devices.
            devices: their number.

        Raises:
            SettingError: if it exceeds them, or cannot be shared by the devices.
        """
        unit = self.unit * devices
        fitting = max(transitions // SHARE_OF_MINIBATCH // unit, 1) * unit
        size = fitting if self.minibatch_size is None else self.minibatch_size
        if self.unit * devices > transitions:
            raise SettingError(
                "accumulation",
                f"({self.accumulation}) times chunk ({self.chunk}) must not exceed the "
                f"{transitions // devices} transitions of an iteration on a device",
            )
        if size > transitions:
            raise SettingError(
                "minibatch_size",
                f"({size}) must not exceed the {transitions} transitions of an "
                f"iteration; {fitting} would do, or none, which follows their number",
            )
        if size % unit:
            raise SettingError(
                "minibatch_size",
                f"({size}) must be a multiple of {unit}: chunk x accumulation, on each "
                f"of {devices} devices; {max(size // unit, 1) * unit} would do",
            )
        return size


@dataclass(frozen=True)
class Config(Checked):
    """A training run."""

    engine: Literal["auto", "native", "warp", "mjx"] = "auto"
    """'auto': warp on an NVIDIA GPU, mjx on another accelerator, native on a CPU."""
    hand: HandConfig = field(default_factory=HandConfig)
    object: ObjectConfig = field(default_factory=ObjectConfig)
    physics: PhysicsConfig = field(default_factory=PhysicsConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    randomization: RandomizationConfig = field(default_factory=RandomizationConfig)
    bank: BankConfig = field(default_factory=BankConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    seed: Seed = 0
    """Seed of every random draw."""
    num_envs: whole(1, 10**7) = 512
    """Environments trained on at once, over all devices."""
    max_env_steps: whole(0, 10**15) = 100_000_000
    """Training ends after this number of environment steps of the run, those of a run
    that it continues (--from-run) not included."""
    checkpoint_minutes: NotNegative = 5.0
    """Minutes between checkpoints."""
    checkpoint: Literal["whole", "portable"] = "whole"
    """What a checkpoint holds: 'whole', environments included, continues bit for bit;
    'portable' is all that was learned, which continues with environments started anew,
    on any machine (20 MB with an LSTM of 512-256)."""

    def validate(self):
        """See ``Checked``."""
        try:
            self.ppo.minibatch(self.transitions)
        except SettingError as error:
            sizes = f"{self.num_envs} x {self.ppo.horizon}"
            problem = f"{error.problem} (num_envs x ppo.horizon: {sizes})"
            raise SettingError(f"ppo.{error.field}", problem) from None

    @property
    def transitions(self) -> int:
        """Environment steps of one iteration, over all devices."""
        return self.num_envs * self.ppo.horizon

    @property
    def minibatch_size(self) -> int:
        """``ppo.minibatch_size``, or what follows from its being None."""
        return self.ppo.minibatch(self.transitions)

    @property
    def smoothing_weight(self) -> float:
        """Weight on the past in the moving average of actions, per control step."""
        return per_control_step(self.task.action_smoothing, self.physics.control_period)

    @property
    def goal_steps(self) -> int:
        """Control steps in which a goal must be met."""
        steps = math.ceil(self.task.goal.seconds / self.physics.control_period - 1e-9)
        return min(steps, 2**31 - 1)  # environments count in 32 bits


def replace(config: Config, **changes) -> Config:
    """Copy ``config`` with changes given by dotted path.

    >>> replace(Config(), **{"task.goal.tolerance": 0.1}).task.goal.tolerance
    0.1
    """
    # Grouped, so that values that are only valid together change together.
    fields, nested = {}, {}
    for path, value in changes.items():
        head, _, rest = path.partition(".")
        if rest:
            nested.setdefault(head, {})[rest] = value
        else:
            fields[head] = value
    for head, inner in nested.items():
        fields[head] = replace(getattr(config, head), **inner)
    return dataclasses.replace(config, **fields)
