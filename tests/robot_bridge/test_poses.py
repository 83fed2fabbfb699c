"""The object's pose from another process, and how old it may be."""

import threading
import time

import numpy as np
import pytest

from mjx_dex import rotations
from robot_bridge import bundle as bundles
from robot_bridge import operators, run
from robot_bridge.safety import Limits
from robot_bridge.sensing import Sensing
from robot_bridge.simulation.hand import SimulatedHand
from robot_bridge.simulation.imperfections import CLEAN
from robot_bridge.transports import TransportError
from robot_bridge.transports.lockstep import Lockstep
from robot_bridge.transports.poses import PoseSender, PoseSocket


@pytest.fixture(scope="module")
def hand(bundle):
    return SimulatedHand(bundle.manifest, CLEAN)


def in_hand(manifest, pose):
    """Position in the frame of base markers, as the pose net has it."""
    frame = manifest["hand"]
    turn = np.array(frame["world_rotation"])
    return turn @ (pose[:3] - np.array(frame["world_position"]))


def test_a_pose_in_the_hands_frame_is_taken_as_it_is(bundle, hand, tmp_path):
    transport = PoseSocket(Lockstep(hand), tmp_path / "poses")
    sender = PoseSender(tmp_path / "poses")
    transport.wait_until(transport.now() + 0.048)
    assert transport.latest().object is None
    pose = hand.object_pose
    position = in_hand(bundle.manifest, pose)
    assert sender.send(position, pose[3:], age=0.12)
    snapshot = transport.latest()
    assert snapshot.object.age == pytest.approx(0.12)
    sensing = Sensing(bundle.manifest, hand.info, Limits())
    sensing.update(snapshot)
    assert sensing.object.age(transport.now()) == pytest.approx(0.12)
    reading = sensing.reading()
    np.testing.assert_allclose(reading.object_position, position)
    np.testing.assert_allclose(reading.object_orientation, pose[3:])
    # Motion capture's own pose of the same object says the same.
    theirs = Sensing(bundle.manifest, hand.info, Limits())
    theirs.update(Lockstep(hand).latest())
    np.testing.assert_allclose(theirs.reading().object_position, position, atol=1e-4)
    turn = rotations.multiply(
        theirs.reading().object_orientation, rotations.conjugate(pose[3:])
    )
    assert rotations.angle(turn) < 1e-3
    transport.close()
    sender.close()
    assert not (tmp_path / "poses").exists()


def test_what_is_no_pose_is_not_taken(hand, tmp_path):
    transport = PoseSocket(Lockstep(hand), tmp_path / "poses")
    sender = PoseSender(tmp_path / "poses")
    sender._socket.sendto(b"DEX1 nonsense", str(tmp_path / "poses"))
    sender.send(np.zeros(2), np.zeros(4), 0.0)
    assert transport.latest().object is None
    transport.close()
    sender.close()


def test_a_sender_without_a_bridge_is_told(tmp_path):
    sender = PoseSender(tmp_path / "nobody")
    assert not sender.send(np.zeros(3), np.array([1.0, 0, 0, 0]), 0.0)
    sender.close()


def test_a_socket_that_exists_is_named(hand, tmp_path):
    (tmp_path / "poses").write_text("")
    with pytest.raises(
        TransportError, match=r"--poses .*poses: Address already in use"
    ):
        PoseSocket(Lockstep(hand), tmp_path / "poses")


@pytest.mark.parametrize(("age", "borne"), [(0.15, True), (0.26, False)])
def test_old_poses_are_borne_or_not_and_it_is_said(
    age, borne, careful_path, tmp_path, capsys, monkeypatch
):
    """Poses of a process of its own pace, of a hand that runs by itself."""
    monkeypatch.setattr(operators, "PATIENCE", 4.0)
    path, ended = tmp_path / "poses", threading.Event()
    manifest = bundles.load(careful_path).manifest
    hand = SimulatedHand(manifest, CLEAN)
    position = in_hand(manifest, hand.object_pose)

    def send():
        sender, step = PoseSender(path), 0
        while not ended.is_set():
            step += 1
            shifted = position + 1e-5 * (step % 7)
            sender.send(shifted, hand.object_pose[3:], age)
            time.sleep(0.02)
        sender.close()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        arguments = [str(careful_path), "--trials", "1", "--seconds", "1.5"]
        arguments += ["--joints-age", "0.3"]  # other tests run on the same cores
        status = run.main([*arguments, "--poses", str(path), "--no-record"])
    finally:
        ended.set()
        thread.join()
    out = capsys.readouterr().out
    assert status == (0 if borne else 1), out
    if not borne:
        assert "the hand was held: object pose: nothing for 2" in out
    else:
        assert "ms old, and the policy was trained with 80 ms at most" in out
