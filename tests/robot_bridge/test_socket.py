"""The transport over a unix socket."""

import socket
import threading
import time

import numpy as np

from robot_bridge.controller import Command
from robot_bridge.sim_hand import HandServer
from robot_bridge.simulation.hand import SimulatedHand
from robot_bridge.simulation.imperfections import CLEAN
from robot_bridge.transports.socket import SocketHand


def test_sending_never_waits_for_a_hand_that_does_not_read(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "hand"))
        hand = SocketHand(tmp_path / "hand")
        longest = 0.0
        for _ in range(2000):  # more than kernels keep, 10 to 512 datagrams
            began = time.monotonic()
            hand.send(Command(np.zeros(20)))
            longest = max(longest, time.monotonic() - began)
        hand.close()
    assert longest < 0.1


def test_a_hand_speaks_again_as_soon_as_a_trial_begins(bundle, tmp_path, monkeypatch):
    """However much of the simulation's time it took to put the object back."""
    simulated = SimulatedHand(bundle.manifest, CLEAN)

    def at_once(with_object):
        simulated.step(10.0)
        yield

    monkeypatch.setattr(simulated, "putting_back", at_once)
    server = HandServer(simulated, tmp_path / "hand")
    thread = threading.Thread(target=server.run)
    thread.start()
    hand = SocketHand(tmp_path / "hand")
    try:
        hand.connect(timeout=10.0)
        hand.new_trial()
        while simulated.time < 10.0:
            time.sleep(0.01)
        began = time.monotonic()
        while hand.latest().joints is None or hand.latest().joints.received < began:
            assert time.monotonic() < began + 3.0
            time.sleep(0.01)
    finally:
        server.closing = True
        thread.join()
        hand.close()
