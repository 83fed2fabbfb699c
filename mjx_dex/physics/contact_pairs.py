"""Contacts as explicit pairs: the geoms that MuJoCo would find to test, listed once.

MuJoCo's C engine sorts bodies along an axis, filters pairs of bodies and then pairs of
geoms, in every physics step. An object of one geom and a hand of 20 make 20 pairs at
most: a scene that lists them is stepped faster, and alike. An object of several geoms
is left to MuJoCo, whose bounding boxes discard most of its pairs at once
(docs/physics.md).
"""

import copy
import itertools
from dataclasses import dataclass

import mujoco
import numpy as np

from mjx_dex.hand.model import Hand

SHARED_FIELDS = ("geom_priority", "geom_solref", "geom_solimp")
"""What a contact takes from both geoms by rules that depend on neither where both are
alike; they are in every scene of ours."""

FRICTION_ENTRIES = [0, 0, 1, 2, 2]
"""Entries of a geom's friction that make up a contact's: sliding along two axes,
torsional, rolling about two axes."""


@dataclass(frozen=True)
class ContactPairs:
    """A scene, and which of its contacts are explicit pairs in place of found ones."""

    model: mujoco.MjModel
    """The physics of ``Hand.model``; where n > 0 no geom collides but in a pair."""
    ids: np.ndarray
    """[n] of the pairs that stand for what ``Hand.model`` leaves to be found; n is 0
    where that is faster. The hand's own pairs, with friction of their own, are not
    among them."""
    geoms: np.ndarray
    """[n, 2] ids of the two geoms of each."""

    def friction(self, geom_friction: np.ndarray) -> np.ndarray:
        """Friction [..., n, 5] of the pairs ``ids``: the larger of both geoms'.

        Args:
            geom_friction: [..., ngeom, 3], as in MuJoCo's model.
        """
        both = geom_friction[..., self.geoms, :]
        return both.max(-2)[..., FRICTION_ENTRIES]


def contact_pairs(hand: Hand) -> ContactPairs:
    """Compile the scene again, contacts as explicit pairs where that is faster.

    Raises:
        ValueError: if geoms that may touch differ in priority, solref or solimp.
    """
    model, spec = hand.model, hand.spec.copy()
    found = _tested(model)
    if not found or model.body("object").geomnum[0] > 1:
        none = np.zeros(0, int)
        return ContactPairs(copy.copy(model), none, none.reshape(0, 2))
    _check_alike(model, found)
    for first, second in found:
        _add_pair(spec, model, first, second)
    for geom in spec.geoms:
        geom.contype, geom.conaffinity = 0, 0
    paired = spec.compile()
    both = np.stack([paired.pair_geom1, paired.pair_geom2], 1)
    ids = [k for k, geoms in enumerate(both) if tuple(sorted(geoms)) in found]
    return ContactPairs(paired, np.array(ids, int), both[ids])


def _tested(model: mujoco.MjModel) -> list[tuple[int, int]]:
    """Geoms that MuJoCo would test against each other, beside the explicit pairs."""
    listed = zip(model.pair_geom1, model.pair_geom2, strict=True)
    explicit = {tuple(sorted(geoms)) for geoms in listed}
    return [
        geoms
        for geoms in itertools.combinations(range(model.ngeom), 2)
        if geoms not in explicit
        and _masks_match(model, *geoms)
        and _may_touch(model, *model.geom_bodyid[list(geoms)])
    ]


def _masks_match(model: mujoco.MjModel, first: int, second: int) -> bool:
    types, affinities = model.geom_contype, model.geom_conaffinity
    matches = types[first] & affinities[second] | types[second] & affinities[first]
    return bool(matches)


def _may_touch(model: mujoco.MjModel, *bodies: int) -> bool:
    """Whether bodies move against each other and neither carries the other.

    Bodies without joints are one with those that carry them; the world carries none in
    this sense.
    """
    first, second = model.body_weldid[list(bodies)]
    above_first, above_second = model.body_weldid[model.body_parentid[[first, second]]]
    if first == second:
        return False
    return 0 in (first, second) or (first != above_second and second != above_first)


def _check_alike(model: mujoco.MjModel, pairs: list[tuple[int, int]]) -> None:
    for field in SHARED_FIELDS:
        values = getattr(model, field)
        for first, second in pairs:
            if np.any(values[first] != values[second]):
                names = f"{model.geom(first).name} and {model.geom(second).name}"
                raise ValueError(f"{field} of {names} differ; they must not")


def _add_pair(spec: mujoco.MjSpec, model, first: int, second: int) -> None:
    """MuJoCo's rules for what a contact takes from two geoms, see ``SHARED_FIELDS``.

    Left to the compiler, solref and margin would follow other rules.
    """
    spec.add_pair(
        geomname1=model.geom(first).name,
        geomname2=model.geom(second).name,
        condim=max(model.geom_condim[[first, second]]),
        friction=model.geom_friction[[first, second]].max(0)[FRICTION_ENTRIES],
        solref=model.geom_solref[first],
        solimp=model.geom_solimp[first],
        margin=model.geom_margin[[first, second]].sum(),
        gap=model.geom_gap[[first, second]].sum(),
    )
