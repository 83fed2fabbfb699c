"""What hides markers: geometry against MuJoCo's distances, and by hand."""

import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from mjx_dex.config import replace
from mjx_dex.hand import build_hand, names
from mjx_dex.hand.model import NAIL_BOXES
from mjx_dex.physics import initial_state
from mjx_dex.randomization.occlusion import NailBoxes, box_overlap, segment_to_box
from mjx_dex.types import Scene

SHAPES = ("block", "prism", "sphere")
POSES = 300
MARGINAL = 2e-5
"""Depths that 32-bit numbers may give the wrong sign [m]."""
CORNERS = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, 8).T
FF, MF = 0, 1
OUT_OF_REACH = (3.0, 3.0, 3.0)
"""A place for the object, far from every finger [m]."""


# --- segment and box ---


def dense_distance(ends, half):
    """Of the nearest of many points on a segment."""
    points = ends[0] + np.linspace(0, 1, 20_001)[:, None] * (ends[1] - ends[0])
    return np.linalg.norm(np.maximum(np.abs(points) - half, 0), axis=1).min()


def test_segments_are_as_far_from_boxes_as_their_nearest_point():
    rng = np.random.default_rng(0)
    half = rng.uniform(0.001, 0.012, (300, 3))
    ends = rng.normal(0, 0.015, (300, 2, 3))
    ends[:20, :, 0] = ends[:20, :1, 0]  # parallel to a face
    ends[20:40, 1] = ends[20:40, 0] + [0, 0, 0.04]  # parallel to an edge
    ends[40:50, 1] = ends[40:50, 0]  # points
    found = jax.jit(jax.vmap(segment_to_box))(
        jnp.asarray(ends, jnp.float32), jnp.asarray(half, jnp.float32)
    )
    expected = np.array(
        [dense_distance(*pair) for pair in zip(ends, half, strict=True)]
    )
    np.testing.assert_allclose(found, expected, atol=3e-5)
    assert 20 < (expected == 0).sum() < 250


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ((0.02, 0.05, 0), (0.02, -0.05, 0), 0.01),  # passes beside a face
        ((0.013, 0.024, 0.05), (0.013, 0.024, -0.05), 0.005),  # beside an edge
        ((0.012, 0.023, 0.036), (0.05, 0.05, 0.05), 0.007),  # ends before a corner
        ((0, 0, -0.05), (0, 0, 0.05), 0.0),  # right through
        ((0, 0, 0), (0, 0, 0), 0.0),
    ],
)
def test_distances_that_can_be_told_without_a_computer(start, end, expected):
    half = jnp.array([0.01, 0.02, 0.03])
    for ends in ((start, end), (end, start)):
        found = segment_to_box(jnp.array(ends, jnp.float32), half)
        np.testing.assert_allclose(found, expected, atol=5e-5)


# --- two boxes ---


def facet_overlap(half_a, half_b, axes, offset):
    """Depth of the origin in the convex hull of all differences of corners.

    The least push that parts two convex bodies is the way from there to the nearest
    facet. Outside, it is the distance to the farthest facet's plane.
    """
    first = CORNERS * half_a
    second = offset + (CORNERS * half_b) @ axes.T
    hull = ConvexHull((first[:, None] - second[None]).reshape(-1, 3))
    return -hull.equations[:, 3].max()


@pytest.fixture(scope="module")
def box_pairs():
    """Sizes, axes and offsets of a small box around the origin and a larger one."""
    rng = np.random.default_rng(1)
    n = 200
    half_a = rng.uniform(0.001, 0.01, (n, 3))
    half_b = rng.uniform(0.01, 0.03, (n, 3))
    axes = Rotation.random(n, random_state=rng).as_matrix()
    # Touching is more telling than any depth: as far away as one of them reaches.
    way = rng.normal(size=(n, 3))
    way /= np.linalg.norm(way, axis=1)[:, None]
    return half_a, half_b, axes, way * rng.uniform(0.005, 0.05, (n, 1))


@pytest.fixture(scope="module")
def overlaps(box_pairs):
    arguments = [jnp.asarray(x, jnp.float32) for x in box_pairs]
    return np.asarray(jax.jit(jax.vmap(box_overlap))(*arguments))


def test_overlap_is_the_least_push_that_parts_two_boxes(box_pairs, overlaps):
    expected = [facet_overlap(*pair) for pair in zip(*box_pairs, strict=True)]
    np.testing.assert_allclose(overlaps, expected, atol=1e-6)


def test_boxes_overlap_where_mujoco_has_them_collide(box_pairs, overlaps):
    distances = []
    for half_a, half_b, axes, offset in zip(*box_pairs, strict=True):
        geoms = [("box", half_a), ("box", half_b)]
        scene = Geoms(geoms)
        scene.place(1, offset, axes)
        distances.append(scene.distance(0, 1))
    distances = np.array(distances)
    clear = np.abs(distances) > MARGINAL
    assert clear.sum() > 190
    np.testing.assert_array_equal((overlaps > 0)[clear], (distances < 0)[clear])
    assert 50 < (distances < 0).sum() < 150
    # Never deeper than the truth, and of boxes apart never farther.
    assert (overlaps >= -distances - 1e-6).all()
    inside = distances < 0
    np.testing.assert_allclose(overlaps[inside], -distances[inside], atol=1e-6)


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        ((0.025, 0, 0), 0.005),  # 10 + 20 mm reach 25 mm
        ((0.035, 0, 0), -0.005),
        ((0, -0.049, 0.0), 0.001),
        ((0.028, 0.046, 0.069), 0.001),  # by 2, 4 and 1 mm: the least counts
        ((0.034, 0.053, 0.069), -0.004),  # apart by 4 and 3 mm: the most counts
        ((0, 0, 0), 0.03),  # one inside the other
    ],
)
def test_aligned_boxes_overlap_by_what_their_sides_reach(offset, expected):
    half_a, half_b = jnp.array([0.01, 0.02, 0.03]), jnp.array([0.02, 0.03, 0.04])
    for axes in (np.eye(3), np.diag([-1.0, -1, 1])):
        found = box_overlap(
            half_a,
            half_b,
            jnp.asarray(axes, jnp.float32),
            jnp.array(offset, jnp.float32),
        )
        np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_cube_on_its_edge_reaches_further():
    # By the root of 2; its edge points at the small box's face.
    half_a, half_b = jnp.full(3, 0.005), jnp.full(3, 0.02)
    axes = Rotation.from_rotvec([0, 0, np.pi / 4]).as_matrix()
    for x in (0.030, 0.035):
        found = box_overlap(
            half_a, half_b, jnp.asarray(axes, jnp.float32), jnp.array([x, 0, 0])
        )
        # Its faces, at 45 degrees, are no nearer than its edge.
        edge = 0.005 + 0.02 * 2**0.5 - x
        face = 0.02 + 0.005 * 2**0.5 - x / 2**0.5
        np.testing.assert_allclose(found, min(edge, face), atol=1e-7)


@pytest.mark.parametrize("tilt", [1e-6, 1e-4, 9e-4, 1.1e-3, 1e-2])
def test_boxes_that_are_nearly_parallel_overlap_as_parallel_ones(tilt):
    rng = np.random.default_rng(2)
    half_a, half_b = np.array([0.003, 0.008, 0.004]), np.full(3, 0.0285)
    for _ in range(20):
        axes = Rotation.from_rotvec(tilt * rng.normal(size=3)).as_matrix()
        offset = rng.uniform(-0.04, 0.04, 3)
        arguments = half_a, half_b, axes, offset
        found = box_overlap(*(jnp.asarray(x, jnp.float32) for x in arguments))
        expected = facet_overlap(*arguments)
        # Axes that are dropped, below a thousandth, cost no more than that.
        np.testing.assert_allclose(found, expected, atol=4e-5)


# --- nails in a hand ---


class Geoms:
    """A MuJoCo model of loose shapes, put anywhere."""

    TYPES: ClassVar = {
        "box": mujoco.mjtGeom.mjGEOM_BOX,
        "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
        "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    }

    def __init__(self, geoms):
        spec = mujoco.MjSpec()
        for shape, size in geoms:
            spec.worldbody.add_geom(type=self.TYPES[shape], size=size)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        mujoco.mj_kinematics(self.model, self.data)

    def place(self, geom, position, axes):
        self.data.geom_xpos[geom] = position
        self.data.geom_xmat[geom] = np.ravel(axes)

    def distance(self, first, second) -> float:
        """Below 0: how deep they are in each other [m]."""
        return mujoco.mj_geomDistance(self.model, self.data, first, second, 10.0, None)


FINGER_CAPSULES = {
    finger: [f"robot0:C_{finger.lower()}{part}" for part in parts]
    for finger in names.FINGERS
    for parts in [("proximal", "middle", "distal")]
}


class NailsInMujoco:
    """The boxes on the nails and all that may reach them, as MuJoCo's geoms."""

    def __init__(self, hand):
        self.model = model = hand.model
        self.fingers = [
            [model.geom(name).id for name in FINGER_CAPSULES[finger]]
            for finger in names.FINGERS
        ]
        body = model.body("object").id
        self.object = [g for g in range(model.ngeom) if model.geom_bodyid[g] == body]
        self.shown = [*itertools.chain(*self.fingers), *self.object]
        shapes = {value: name for name, value in Geoms.TYPES.items()}
        boxes = [("box", NAIL_BOXES[finger][1]) for finger in names.FINGERS]
        others = [
            (shapes[mujoco.mjtGeom(model.geom_type[g])], model.geom_size[g])
            for g in self.shown
        ]
        self.geoms = Geoms(boxes + others)
        self.bodies = [
            model.body(f"robot0:{f.lower()}distal").id for f in names.FINGERS
        ]

    def depths(self, data):
        """([5], [5]): how deep other fingers are in each nail's box, and the object."""
        for i, (finger, body) in enumerate(
            zip(names.FINGERS, self.bodies, strict=True)
        ):
            axes = data.xmat[body].reshape(3, 3)
            center = data.xpos[body] + axes @ NAIL_BOXES[finger][0]
            self.geoms.place(i, center, axes)
        for k, geom in enumerate(self.shown):
            self.geoms.place(5 + k, data.geom_xpos[geom], data.geom_xmat[geom])
        of = {geom: 5 + k for k, geom in enumerate(self.shown)}

        def deepest(nail, geoms):
            return max(-self.geoms.distance(nail, of[g]) for g in geoms)

        others = [self.fingers[:i] + self.fingers[i + 1 :] for i in range(5)]
        fingers = np.array([deepest(i, itertools.chain(*others[i])) for i in range(5)])
        return fingers, np.array([deepest(i, self.object) for i in range(5)])


def pose(hand, qpos):
    """MuJoCo's own data at joint angles and object pose ``qpos``."""
    data = mujoco.MjData(hand.model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(hand.model, data)
    return data


def scene_of(hand, data):
    physics = initial_state(hand.model)
    return Scene(
        body_position=jnp.asarray(data.xpos, jnp.float32),
        body_quaternion=jnp.asarray(data.xquat, jnp.float32),
        geom_size=jnp.asarray(hand.model.geom_size, jnp.float32),
        physics=physics.replace(qpos=jnp.asarray(data.qpos, jnp.float32)),
    )


def flat(hand, position=OUT_OF_REACH, quaternion=(1, 0, 0, 0)):
    return pose(hand, np.concatenate([np.zeros(24), position, quaternion]))


def random_poses(hand, rng, near):
    """Any joint angles; the object near a nail if ``near``, else far from the hand."""
    low, high = hand.model.jnt_range[:24].T
    for k in range(POSES):
        qpos = np.concatenate([rng.uniform(low, high), OUT_OF_REACH, [1, 0, 0, 0]])
        qpos[27:] = Rotation.random(random_state=rng).as_quat(scalar_first=True)
        if near:
            data = pose(hand, qpos)
            finger = names.FINGERS[k % 5]
            body = hand.model.body(f"robot0:{finger.lower()}distal").id
            axes = data.xmat[body].reshape(3, 3)
            way = rng.normal(size=3)
            way *= rng.uniform(0.02, 0.05) / np.linalg.norm(way)
            qpos[24:27] = data.xpos[body] + axes @ NAIL_BOXES[finger][0] + way
        yield pose(hand, qpos)


@pytest.fixture(scope="module", params=SHAPES)
def shaped_hand(request, config):
    obj = replace(config.object, shape=request.param)
    return build_hand(config.hand, obj, config.physics)


def found_and_true(hand, near, seed):
    """[POSES, 5] of ``NailBoxes``, and of MuJoCo: the fingers', the object's."""
    depths = jax.jit(NailBoxes(hand).depths)
    truth, rows = NailsInMujoco(hand), []
    for data in random_poses(hand, np.random.default_rng(seed), near):
        rows.append((depths(scene_of(hand, data)), *truth.depths(data)))
    return (np.array(column) for column in zip(*rows, strict=True))


def assert_same_where_shallow(found, true, limit):
    """Alike up to a depth [m] that no capsule's axis reaches.

    Beyond a capsule's radius its axis is in the box, and the depths are not the same
    thing; MuJoCo's is then up to 2 mm less than that radius where it ought to be more.
    """
    shallow = true < limit
    np.testing.assert_allclose(found[shallow], true[shallow], atol=3e-5)
    assert (found[~shallow] > limit - 3e-5).all()


def test_other_fingers_reach_into_nails_as_mujoco_has_it(hand):
    found, fingers, obj = found_and_true(hand, near=False, seed=3)
    assert (obj < -1).all()
    clear = np.abs(fingers) > MARGINAL
    np.testing.assert_array_equal((found > 0)[clear], (fingers > 0)[clear])
    # The thinnest capsules, the distal ones, have a radius of 7.05 mm.
    assert_same_where_shallow(found, fingers, 0.005)
    # Near enough for their radius to decide, and both hidden and not.
    assert 50 < (fingers > 0).sum() < 750
    assert (np.abs(fingers) < 0.005).sum() > 100


def test_objects_reach_into_nails_as_mujoco_has_it(shaped_hand):
    found, fingers, obj = found_and_true(shaped_hand, near=True, seed=4)
    true = np.maximum(fingers, obj)
    clear = np.abs(true) > MARGINAL
    np.testing.assert_array_equal((found > 0)[clear], (true > 0)[clear])
    # It is the object that does so, in many poses, and in many it does not.
    assert ((obj > 0) & (fingers < 0)).sum() > 50
    assert (true < 0).sum() > 50
    # Boxes apart are farther than along the axis that separates them best.
    assert (found >= np.minimum(true, 0.005) - 3e-5).all()
    inside = (obj > 0) & (obj > fingers)
    if shaped_hand.model.geom_type[-1] == mujoco.mjtGeom.mjGEOM_SPHERE:
        assert_same_where_shallow(found, true, 0.005)
    else:
        np.testing.assert_allclose(found[inside], obj[inside], atol=1e-6)


def test_an_object_is_found_from_every_side_of_a_nail(hand):
    # Faces parallel to the box's: the gap is what is left of the way between centres.
    data = flat(hand)
    depths = jax.jit(NailBoxes(hand).depths)
    for i, finger in enumerate(names.FINGERS):
        body = hand.model.body(f"robot0:{finger.lower()}distal").id
        axes, (center, half) = data.xmat[body].reshape(3, 3), NAIL_BOXES[finger]
        turn = data.xquat[body]
        for side in range(3):
            for sign in (-1, 1):
                way = np.zeros(3)
                way[side] = sign * (half[side] + 0.0285 - 0.001)
                place = data.xpos[body] + axes @ (center + way)
                found = depths(scene_of(hand, flat(hand, place, turn)))[i]
                np.testing.assert_allclose(found, 0.001, atol=2e-6)


# --- what counts ---


def test_in_a_flat_hand_nothing_hides_a_marker(hand):
    # Though every box reaches into its own finger.
    assert (NailBoxes(hand).depths(scene_of(hand, flat(hand))) < -0.001).all()
    for finger, name in zip(names.FINGERS, hand.fingertip_sites, strict=True):
        body, tip = hand.model.site_bodyid[name], FINGER_CAPSULES[finger][2]
        assert hand.model.geom(tip).bodyid == body
        center, half = NAIL_BOXES[finger]
        size, middle = hand.model.geom(tip).size, hand.model.geom(tip).pos
        top = np.array([0, 0, middle[2] + size[1]])
        to_top = np.maximum(np.abs(top - center) - half, 0)
        assert np.linalg.norm(to_top) < size[0]


@pytest.mark.parametrize("finger", range(5), ids=names.FINGERS)
def test_a_fingers_own_parts_never_count_however_large(hand, finger):
    scene, depths = scene_of(hand, flat(hand)), NailBoxes(hand).depths
    before = np.asarray(depths(scene))
    own = [hand.model.geom(name).id for name in FINGER_CAPSULES[names.FINGERS[finger]]]
    size = scene.geom_size.at[jnp.array(own), 0].set(1.0)
    after = np.asarray(depths(scene.replace(geom_size=size)))
    np.testing.assert_array_equal(after[finger], before[finger])
    others = np.arange(5) != finger
    assert (after[others] > 0.5).all()


def test_palm_wrist_and_forearm_never_count(hand):
    scene, depths = scene_of(hand, flat(hand)), NailBoxes(hand).depths
    counting = {*itertools.chain(*FINGER_CAPSULES.values()), "object0"}
    rest = [
        g for g in range(hand.model.ngeom) if hand.model.geom(g).name not in counting
    ]
    assert len(rest) == 5
    size = scene.geom_size.at[jnp.array(rest)].set(1.0)
    after = depths(scene.replace(geom_size=size))
    np.testing.assert_array_equal(after, depths(scene))


def test_every_part_of_every_finger_counts_for_the_others(hand):
    scene, depths = scene_of(hand, flat(hand)), jax.jit(NailBoxes(hand).depths)
    for finger, parts in enumerate(FINGER_CAPSULES.values()):
        for part in parts:
            geom = hand.model.geom(part).id
            size = scene.geom_size.at[geom, 0].set(1.0)
            reached = np.asarray(depths(scene.replace(geom_size=size))) > 0.5
            np.testing.assert_array_equal(reached, np.arange(5) != finger)


@pytest.mark.parametrize("scale", [0.95, 1.05, 1.3])
def test_a_larger_object_reaches_further(shaped_hand, scale):
    hand = shaped_hand
    nail = flat(hand)
    body = hand.model.body("robot0:mfdistal").id
    center, half = NAIL_BOXES["MF"]
    axes = nail.xmat[body].reshape(3, 3)
    # On the nail, 2 mm away, faces parallel (a prism's first box is: x, 57 mm across).
    way = np.array([0, half[1] + 0.0285 + 0.002, 0])
    turn = Rotation.from_matrix(axes) * Rotation.from_rotvec([0, 0, np.pi / 2])
    place = nail.xpos[body] + axes @ (center + way)
    data = flat(hand, place, turn.as_quat(scalar_first=True))
    scene, depths = scene_of(hand, data), NailBoxes(hand).depths
    np.testing.assert_allclose(depths(scene)[MF], -0.002, atol=2e-6)
    own = jnp.asarray(hand.model.geom_bodyid == hand.model.body("object").id)
    size = jnp.where(own[:, None], scale * scene.geom_size, scene.geom_size)
    found = depths(scene.replace(geom_size=size))[MF]
    np.testing.assert_allclose(found, -0.002 + (scale - 1) * 0.0285, atol=2e-6)


def test_depths_follow_the_object(hand):
    rng = np.random.default_rng(5)
    depths = NailBoxes(hand).depths
    near = next(random_poses(hand, rng, near=True))
    assert depths(scene_of(hand, near))[FF] > -0.03
    away = np.array(near.qpos)
    away[24:27] = OUT_OF_REACH
    fingers_alone = depths(scene_of(hand, pose(hand, away)))
    assert (depths(scene_of(hand, near)) >= fingers_alone).all()
