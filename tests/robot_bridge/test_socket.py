"""The transport over a unix socket."""

import socket
import time

import numpy as np

from robot_bridge.controller import Command
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
