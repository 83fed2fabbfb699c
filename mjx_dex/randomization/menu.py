"""The menu's effects by name, in groups, and which of them a configuration asks for."""

from mjx_dex.config import RandomizationConfig

PHYSICS = (
    "object_size",
    "link_mass",
    "object_mass",
    "surface_friction",
    "joint_damping",
    "actuator_gain",
    "joint_limit",
    "gravity",
)
"""Table 1."""
NOISE = ("correlated_noise", "uncorrelated_noise", "marker_placement")
"""Table 7."""
TRACKING = ("marker_dropout", "marker_occlusion")
ACTION = ("action_noise", "action_delay", "backlash")
TIMING = ("timestep_jitter",)
FORCES = ("random_push",)
EXTRA = ("tendon_range", "object_tracking_loss")
"""What robogym adds to the paper."""
OBJECTS = ("object_shape",)
"""For one policy that turns several objects, which the paper leaves to future work."""

GROUPS = {
    "physics": PHYSICS,
    "observation": NOISE + TRACKING,
    "action": ACTION,
    "timing": TIMING,
    "forces": FORCES,
    "extra": EXTRA,
    "objects": OBJECTS,
}
SETTLED = ("object_shape", "object_size")
"""Effects on the object's geometry, which an episode keeps from its start: fingers that
settled around one object would reach into a larger one. All else is drawn for every
episode."""
EFFECTS = tuple(name for group in GROUPS.values() for name in group)

ALL = PHYSICS + NOISE + TRACKING + ACTION + TIMING + FORCES
PRESETS = {
    "all": ALL,
    "none": (),
    "no_observation_noise": PHYSICS + TRACKING + ACTION + TIMING + FORCES,
    "no_physics": NOISE + TRACKING + ACTION + TIMING + FORCES,
    "no_unmodeled": PHYSICS + NOISE,
    "extras": ALL + EXTRA,
}
"""Section 6.3's ablations. 'Unmodeled' are the effects that section 3.2 lists under
that name, and the timing, which C.2 has and section 3.2 does not mention."""


def enabled_effects(config: RandomizationConfig) -> frozenset[str]:
    """The effects that a configuration switches on."""

    def named(entries: tuple[str, ...]) -> set[str]:
        return {name for entry in entries for name in GROUPS.get(entry, (entry,))}

    names = (set(PRESETS[config.preset]) | named(config.on)) - named(config.off)
    return frozenset(names)
