"""Every number of mjx_dex, once, with its unit and its place in the paper.

The paper is OpenAI et al., *Learning Dexterous In-Hand Manipulation*, arXiv
1808.00177v5.
Attribute docstrings become the command line's ``--help``.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal

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
class HandConfig:
    """Which Shadow hand."""

    calibration: str = "calibrated"
    """'calibrated' (OpenAI's values), 'gymnasium' (the package's own) or a file."""
    self_collision: bool = True
    """Keep the contact pairs between fingers, and between thumb and palm."""


@dataclass(frozen=True)
class ObjectConfig:
    """What the hand turns. The paper gives no dimensions; these are robogym's block."""

    shape: str = "block"
    """'block', 'prism' (octagonal) or 'sphere'."""
    size: float = 0.057
    """Edge of the block, width and length of the prism, diameter of the ball [m]."""
    mass: float = 0.078
    """Mass [kg]."""
    friction: tuple[float, float, float] = (1.0, 0.005, 0.0001)
    """Sliding [-], torsional and rolling [m] friction; a contact's follows from the
    object's and the hand's by ``physics.friction_rule``."""
    start_position: tuple[float, float, float] = (1.01, 0.9, 0.21)
    """Where the object is before it falls into the hand [m], world frame."""


@dataclass(frozen=True)
class PhysicsConfig:
    """Time and solver. The solver's figures are measured in docs/physics.md."""

    timestep: float = 0.008
    """One physics step [s] (appendix C.1)."""
    substeps: int = 10
    """Physics steps in one control step (appendix C.1: 10 x 8 ms)."""
    iterations: int = 20
    """At most so many Newton iterations in one physics step (robogym)."""
    ls_iterations: int = 20
    """At most so many line-search iterations in one Newton iteration."""
    threads: int = 0
    """Threads of the native engine; 0 takes one for each CPU core."""
    friction_rule: Literal["maximum", "geometric_mean", "product"] = "maximum"
    """Rule by which the friction of hand and object make a contact's. 'maximum':
    MuJoCo's and robogym's; the hand's surface hardly counts, for the object's is
    rougher (docs/randomization.md). 'product': of sliding friction; torsional and
    rolling friction, which are lengths, take the geometric mean."""
    max_contacts: int | None = None
    """Contacts a world can hold on warp and mjx; more are dropped and counted. None:
    half more than are seen when this configuration is played at random."""
    max_constraints: int | None = None
    """Constraint rows a world can hold on warp; more are dropped and counted. None: as
    above."""

    @property
    def control_period(self) -> float:
        """Time between two actions [s]."""
        return self.timestep * self.substeps


@dataclass(frozen=True)
class GoalConfig:
    """Which orientations are asked for, and when one is met."""

    distribution: Literal["uniform", "face_up", "near"] = "uniform"
    """'uniform': any orientation; 'face_up': a face up, any heading (robogym);
    'near': a turn about a random axis, drawn from ``angles``."""
    tolerance: float = 0.4
    """A goal is met when the remaining turn is smaller than this [rad] (C.1)."""
    seconds: float = 8.0
    """An episode is cut when a goal is not met in this time [s] (C.1)."""
    count: int = 50
    """An episode is complete after so many goals (C.1)."""
    angles: tuple[float, float] = (0.45, 0.8)
    """'near': smallest and, at the start, largest turn to a goal [rad]."""
    widening: float = 0.0
    """'near': an environment's largest turn grows by this [rad] with every goal that it
    meets, up to pi; 0 keeps it where it is: at the upper of ``angles``, or where the
    run that is continued had it."""
    narrowing: float = 0.0
    """'near': and shrinks by this [rad] with every episode that ends without one, down
    to the upper of ``angles``. In balance, with m goals per episode on average, about
    one episode in 1 + m ends without a goal: m (1 + m) = narrowing / widening."""


@dataclass(frozen=True)
class RewardConfig:
    """Weights of what is rewarded (appendix C.1; those that are 0 are not in it)."""

    progress: float = 1.0
    """Of the angle gained in a control step [rad]."""
    success: float = 5.0
    """When a goal is met."""
    drop: float = -20.0
    """When the object is dropped."""
    timeout: float = 0.0
    """When an episode is cut because a goal took too long."""
    closeness: float = 0.0
    """Of 1 / (angle to the goal [rad] + 0.1), every control step (IsaacGymEnvs)."""
    distance: float = 0.0
    """Of how far the object is from where it fell into the hand, horizontally [m],
    every control step."""
    effort: float = 0.0
    """Of the mean square of the smoothed action, every control step."""


@dataclass(frozen=True)
class TaskConfig:
    """The paper's block-turning task (appendix C.1)."""

    goal: GoalConfig = GoalConfig()
    reward: RewardConfig = RewardConfig()
    action_bins: int | None = 11
    """Bins per action coordinate, evenly spaced over [-1, 1]; None: any number, from a
    Gaussian policy, clipped to that range."""
    action_targets: Literal["relative", "absolute"] = "relative"
    """Whether an action of 0 asks for the present joint angle (C.1) or for the middle
    of the actuator's range."""
    action_smoothing: float = 0.3
    """Weight on the past in the moving average of actions, per 80 ms (C.1): with
    another control period ``per_control_step`` rescales it."""
    drop_height: float = 0.04
    """The object is dropped when its centre is below this height [m] (robogym)."""
    start_steps: int = 100
    """Control steps of random actions before an episode begins (C.1)."""
    locked_wrist: bool = False
    """Servo the wrist's pitch joint (WRJ0) to 0: the paper's fine-tuned variant."""
    policy_inputs: tuple[str, ...] = (
        "fingertips",
        "object_position",
        "relative_orientation",
    )
    """What the policy sees: Table 2. Any of the value network's inputs may be added."""


@dataclass(frozen=True)
class Uniform:
    """Evenly between two bounds."""

    low: float
    high: float


@dataclass(frozen=True)
class LogUniform:
    """Evenly between two bounds, in the logarithm."""

    low: float
    high: float


@dataclass(frozen=True)
class Normal:
    """Gaussian around 0."""

    deviation: float


@dataclass(frozen=True)
class SensorDeviations:
    """Standard deviations of Gaussian errors of what is measured (Table 7)."""

    fingertips: float
    """Each coordinate [m]."""
    object_position: float
    """Each coordinate [m]."""
    object_orientation: float
    """Turn about a random axis [rad]."""


@dataclass(frozen=True)
class MarkerDeviations:
    """Standard deviations of where markers sit, each coordinate [m] (Table 7)."""

    fingertips: float = 0.003
    base: float = 0.001


@dataclass(frozen=True)
class Dropout:
    """Readings that are lost for a while."""

    rate: float
    """Probability of a loss within a second."""
    seconds: float
    """Length of each (C.2), or its mean where lengths are exponential."""


@dataclass(frozen=True)
class Occlusion:
    """Markers hidden by what comes near."""

    depth: float = 0.0001
    """A marker is hidden when something reaches this far into the box on its nail [m]
    (robogym)."""


@dataclass(frozen=True)
class ActionNoise:
    """Standard deviations, in units of actions, whose range -1 to 1 is 2 wide (Table 8:
    5 %, 1.5 % and 1.5 % of it)."""

    additive: float = 0.1
    """Drawn every control step."""
    correlated: float = 0.03
    """Drawn once per episode, added."""
    multiplicative: float = 0.03
    """Drawn every control step."""


@dataclass(frozen=True)
class Delay:
    """Actuators that lag by one control step."""

    probability: float = 0.5
    """Of each actuator, once per episode."""


@dataclass(frozen=True)
class Alternative:
    """Objects that take the place of the configured one."""

    probability: float = 0.5
    """Once per episode."""


@dataclass(frozen=True)
class Push:
    """Random forces on the object (C.2)."""

    probability: LogUniform = LogUniform(0.001, 0.1)
    """Probability of a new push within 80 ms, a control step of the paper's."""
    acceleration: float = 1.0
    """A push's standard deviation along each axis [m/s^2 times the object's mass]."""
    decay: float = 0.99
    """Factor of the force per 80 ms, a control step of the paper's."""


Preset = Literal[
    "all", "none", "no_observation_noise", "no_physics", "no_unmodeled", "extras"
]


@dataclass(frozen=True)
class AdaptiveConfig:
    """Ranges that follow the policy (automatic domain randomization, Akkaya et al.)."""

    enabled: bool = False
    """Begin without randomization and widen each range where the policy copes."""
    probing: float = 0.5
    """Share of episodes that run with one range at its present bound."""
    episodes: int = 64
    """Episodes at a bound before it is judged."""
    widen_at: float = 5.0
    """Goals per episode at a bound from which it moves out."""
    narrow_at: float = 2.0
    """Goals per episode at a bound below which it moves in."""
    step: float = 0.05
    """Moves, as a share of the range asked for."""
    limit: float = 1.0
    """Widest range, as a share of the range asked for."""

    def __post_init__(self):
        if self.narrow_at > self.widen_at:
            raise ValueError(
                f"randomization.adaptive.narrow_at ({self.narrow_at}) must not exceed "
                f"randomization.adaptive.widen_at ({self.widen_at})"
            )


@dataclass(frozen=True)
class RandomizationConfig:
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


@dataclass(frozen=True)
class BankConfig:
    """The bank of started episodes that feeds resets (see ``task/bank.py``).

    Both are over all devices, as ``num_envs`` is.
    """

    size: int = 256
    """Started episodes held ready."""
    starting: int = 16
    """Worlds stepped beside the training ones that start new episodes all the time."""


Precision = Literal["float32", "tensorfloat32", "bfloat16", "default"]
"""Of matrix products: see ``NetworkConfig.matmul_precision``."""


@dataclass(frozen=True)
class NetworkConfig:
    """Separate policy and value networks (Table 10, Figure 12)."""

    policy_memory: Literal["lstm", "none"] = "lstm"
    """'lstm', or 'none' for a dense layer in its place (section 6.4's ablation)."""
    value_memory: Literal["lstm", "none"] = "lstm"
    hidden: int = 1024
    """Units of the dense ReLU layer."""
    memory: int = 512
    """Units of the LSTM."""
    matmul_precision: Precision = "float32"
    """Precision of the networks' matrix products, when acting and when learning; sums,
    weights, optimizer and everything else are float32. 'float32': exact products.
    'bfloat16': operands are rounded to 8 bits of significand, 'tensorfloat32': to 11
    bits, on every device; fast on NVIDIA GPUs since Ampere, while a CPU gains little or
    nothing. 'default': as runs of older versions may say, XLA's choice: tensorfloat32
    there, float32 on a CPU."""


@dataclass(frozen=True)
class PPOConfig:
    """Proximal policy optimization (Table 10)."""

    gamma: float = 0.998
    """Discount per control step."""
    gae_lambda: float = 0.95
    """Generalized advantage estimation's lambda."""
    entropy: float = 0.01
    """Weight of the entropy bonus, summed over action coordinates."""
    clip: float = 0.2
    """Probability ratios are clipped to 1 +- this."""
    value_weight: float = 1.0
    """Weight of the value loss; the networks are separate, so it acts through Adam's
    epsilon and the gradient's norm only."""
    learning_rate: float = 3e-4
    """Adam's step size, and its start where ``kl_target`` is set."""
    kl_target: float | None = None
    """KL divergence [nats] of an iteration's last policy from the one that acted, which
    the learning rate is scaled to hold. It is 1.2 to 1.3 times the mean over the later
    half of the minibatches, each before its own step (docs/results.md)."""
    max_gradient_norm: float | None = 1.0
    """Gradients are scaled down to this norm, policy and value each."""
    horizon: int = 20
    """Control steps each environment takes in an iteration; a multiple of ``chunk``."""
    chunk: int = 10
    """Steps of truncated back-propagation, replayed from the stored LSTM state."""
    minibatch_size: int = 2560
    """Transitions in a minibatch, over all devices; a multiple of ``chunk`` on each."""
    minibatches: int = 8
    """Minibatches in one iteration. They are cut from random orders of all chunks,
    one order after another, so that no chunk is seen twice before all were once."""
    accumulation: int = 1
    """Parts in which a device's share of a minibatch is computed, one after another:
    the same step in less memory."""
    nonfinite: Literal["stop", "skip"] = "stop"
    """Consequence of rewards or observations that are infinite or NaN. 'stop': an
    error, and nothing is learned from that iteration. 'skip': rewards count as 0,
    observations as the mean of all so far, episodes as ended there; metrics count such
    transitions."""

    def __post_init__(self):
        for name in ("horizon", "minibatch_size"):
            if getattr(self, name) % self.chunk:
                raise ValueError(
                    f"ppo.{name} ({getattr(self, name)}) must be a multiple of "
                    f"ppo.chunk ({self.chunk})"
                )
        if self.minibatch_size // self.chunk % self.accumulation:
            raise ValueError(
                f"ppo.minibatch_size ({self.minibatch_size}) must be a multiple of "
                f"ppo.chunk times ppo.accumulation ({self.chunk} x "
                f"{self.accumulation})"
            )


@dataclass(frozen=True)
class Config:
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
    seed: int = 0
    """Seed of every random draw."""
    num_envs: int = 512
    """Environments trained on at once, over all devices."""
    max_env_steps: int = 100_000_000
    """Training ends after this number of environment steps of the run, those of a run
    that it continues (--from-run) not included."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints."""
    checkpoint: Literal["whole", "portable"] = "whole"
    """What a checkpoint holds: 'whole', environments included, continues bit for bit;
    'portable' is all that was learned, which continues with environments started anew,
    on any machine (20 MB with an LSTM of 512-256)."""

    @property
    def smoothing_weight(self) -> float:
        """Weight on the past in the moving average of actions, per control step."""
        return per_control_step(self.task.action_smoothing, self.physics.control_period)

    @property
    def goal_steps(self) -> int:
        """Control steps in which a goal must be met."""
        return math.ceil(self.task.goal.seconds / self.physics.control_period - 1e-9)


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
