"""The menu's effects by name, in groups, and which of them a configuration asks for."""

import difflib

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
    """The effects that a configuration switches on.

    Raises:
        ValueError: if ``off`` or ``on`` holds something that is no effect or group.
    """
    names = set(PRESETS[config.preset])
    names |= _resolve("on", config.on)
    names -= _resolve("off", config.off)
    return frozenset(names)


def _resolve(field: str, entries: tuple[str, ...]) -> set[str]:
    names = set()
    for entry in entries:
        if entry not in GROUPS and entry not in EFFECTS:
            close = difflib.get_close_matches(entry, (*GROUPS, *EFFECTS), n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ValueError(
                f"randomization.{field}: {entry!r} is no effect; {hint}"
                f"effects: {', '.join(EFFECTS)}; groups: {', '.join(GROUPS)}"
            )
        names |= set(GROUPS.get(entry, (entry,)))
    return names
