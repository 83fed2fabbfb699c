"""Every number of vision, once, with its unit and where in the paper it is from."""

from dataclasses import dataclass, field
from typing import Literal

from mjx_dex.config import HandConfig, ObjectConfig
from mjx_dex.ranges import (
    Checked,
    Count,
    Finite,
    NotNegative,
    Seed,
    SettingError,
    Share,
    check_order,
    real,
    whole,
)

Stride = whole(1, 8)
"""Stride of a stage of convolutions [pixels]."""

MAX_LIGHTS = 6
"""Table 9: 4 to 6; a scene has all, and switches some off."""

RendererName = Literal["gl", "warp", "filament"]
"""See ``mjx_dex.vision.rendering``."""


@dataclass(frozen=True)
class RigConfig(Checked):
    """The cameras."""

    cameras: Literal["paper", "orrb"] = "paper"
    """Three at 50 cm (section 5.2), or OpenAI's released rig of 2019."""
    fovy: real(0, 180, above=True, below=True) | None = None
    """Vertical field of view of all [deg]; None: the rig's own."""
    size: whole(1, 4096) = 200
    """Height and width of images [pixels] (Table 11)."""


@dataclass(frozen=True)
class Interval(Checked):
    """Drawn evenly between two bounds."""

    low: Finite
    high: Finite

    def validate(self):
        """See ``Checked``."""
        check_order(self.low, self.high)


@dataclass(frozen=True)
class AppearanceConfig(Checked):
    """Table 9, row by row, under the names of ``Appearance``'s fields.

    Materials and lights are in Unity's units there. Offsets are added.
    """

    off: tuple[str, ...] = ()
    """Rows that are left nominal."""
    camera_position: Interval = Interval(-0.0015, 0.0015)
    """Offset along each axis [m]."""
    camera_rotation: Interval = Interval(0.0, 3.0)
    """About a random axis [deg]."""
    field_of_view: Interval = Interval(-1.0, 1.0)
    """Offset [deg]."""
    robot_color: Interval = Interval(0.0, 1.0)
    """Red, green and blue of each part of the hand."""
    robot_metallic: Interval = Interval(0.05, 0.25)
    """Of each part."""
    robot_glossiness: Interval = Interval(0.0, 1.0)
    """Of each part."""
    object_hue: Interval = Interval(-0.01, 0.01)
    """Offset, in turns of the colour circle, of each face."""
    object_saturation: Interval = Interval(-0.15, 0.15)
    """Offset of each face."""
    object_value: Interval = Interval(-0.15, 0.15)
    """Offset of each face."""
    object_metallic: Interval = Interval(0.05, 0.15)
    """Of all faces."""
    object_glossiness: Interval = Interval(0.05, 0.15)
    """Of all faces."""
    num_lights: tuple[whole(1, MAX_LIGHTS), whole(1, MAX_LIGHTS)] = (4, 6)
    """Fewest and most."""
    light_position: Interval = Interval(1.0, 1.5)
    """Distance from the hand [m], evenly over the upper half sphere (OpenAI's
    renderer; the paper gives the half sphere)."""
    light_relative_intensity: Interval = Interval(1.0, 5.0)
    """Of each light; they share the total by it."""
    light_total_intensity: Interval = Interval(0.0, 15.0)
    """Of all lights."""
    contrast: Interval = Interval(0.5, 1.5)
    """Factor of what differs from the image's mean."""
    pixel_noise: real(0, 100) = 0.1
    """Standard deviation of noise on every pixel, in that of the image."""

    def validate(self):
        """See ``Checked``."""
        known = [name for name in self.__dataclass_fields__ if name != "off"]
        for k, name in enumerate(self.off):
            if name not in known:
                problem = f"is {name!r}; it must be one of {', '.join(known)}"
                raise SettingError(f"off[{k}]", problem)
        fewest, most = self.num_lights
        if fewest > most:
            raise SettingError("num_lights", f"({fewest}, {most}): the fewest first")


@dataclass(frozen=True)
class StatesConfig(Checked):
    """Which poses are drawn."""

    path: str | None = None
    """File of ``python -m mjx_dex.vision.collect``; None: random hand poses."""
    as_is: Share = 0.2
    """Share of objects that stay as they are (appendix D.2)."""
    quarter_turns: Share = 0.4
    """Share that is turned by 90 degrees about its main axes; the rest is jittered."""
    position_jitter: real(0, 1) = 0.005
    """Standard deviation along each axis [m]; the paper gives none."""
    rotation_jitter: real(0, 180) = 5.0
    """Standard deviation of the angle about a random axis [deg]; likewise."""
    max_rotation: real(0, 180) = 180.0
    """Of random poses, from upright [deg]: less makes a smaller task."""
    spread: real(0, 1) = 0.008
    """Of the object over the palm in random poses: standard deviation [m]."""

    def validate(self):
        """See ``Checked``."""
        shares = self.as_is, self.quarter_turns
        if sum(shares) > 1:
            problem = (
                f"({shares[0]:g}) and quarter_turns ({shares[1]:g}) exceed 1 in sum"
            )
            raise SettingError("as_is", problem)


@dataclass(frozen=True)
class NetConfig(Checked):
    """Table 12."""

    width: real(0.01, 100) = 1.0
    """Factor of all numbers of filters."""
    strides: tuple[Stride, Stride, Stride, Stride] = (3, 1, 1, 1)
    """Of the four ResNet stages. The table's 3, 3, 3, 3 leave a map of one pixel, over
    which spatial softmax is constant."""
    norm: Literal["group", "batch", "none"] = "group"
    """Within ResNet blocks; the table names none."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the tower's convolutions in training; weights and spatial softmax are in 32
    bits always, and so is all of a net that is used."""
    hidden: whole(1, 2**16) = 128
    """Units of the layer that joins the three towers."""
    loss: Literal["mse", "sign_invariant", "rotation_6d", "keypoints"] = "mse"
    """Squared error of position and quaternion (section 5.2), or one without the jump
    between a quaternion and its negative."""


@dataclass(frozen=True)
class LearningConfig(Checked):
    """Table 11."""

    batches: whole(0, 10**12) = 200_000
    """How many in all. The paper's 400,000 halve the learning rate 20 times; the second
    half of them hardly moves a weight."""
    batch_size: whole(1, 2**20) = 64
    """Scenes, of three images each."""
    learning_rate: Share = 5e-4
    half_life: Count = 20_000
    """Batches after which the learning rate is halved, again and again."""
    weight_decay: NotNegative = 1e-3
    """Added to the gradient, as L2 regularization was in 2018."""
    pool: whole(0, 10**9) = 0
    """Scenes that are rendered once, before, and learned from again and again, where
    that is what takes time. 0 renders every batch anew, as the paper did."""
    checkpoint_minutes: NotNegative = 10.0
    """Between two checkpoints."""

    def validate(self):
        """See ``Checked``."""
        if self.pool and self.pool < self.batch_size:
            problem = f"({self.pool}) must hold a batch of {self.batch_size}, or be 0"
            raise SettingError("pool", problem)


@dataclass(frozen=True)
class VisionConfig(Checked):
    """Everything that a pose net comes from."""

    seed: Seed = 0
    renderer: Literal["auto", RendererName] = "auto"
    """Of the training images. 'auto': warp on an NVIDIA GPU, elsewhere gl."""
    workers: whole(0, 4096) = 0
    """Processes that render; 0 takes one for each CPU core."""
    hand: HandConfig = field(default_factory=HandConfig)
    object: ObjectConfig = field(default_factory=ObjectConfig)
    rig: RigConfig = field(default_factory=RigConfig)
    states: StatesConfig = field(default_factory=StatesConfig)
    appearance: AppearanceConfig = field(default_factory=AppearanceConfig)
    net: NetConfig = field(default_factory=NetConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
