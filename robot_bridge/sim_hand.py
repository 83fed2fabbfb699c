"""``python -m robot_bridge.sim_hand BUNDLE``: a simulated hand in a process of its own.

It runs in real time and answers on a unix socket and, with ``--ros``, under the names
of Shadow's driver.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Iterator

import numpy as np

from robot_bridge import bundle, policies, terminal, wire
from robot_bridge.arguments import SEED
from robot_bridge.files import Output, check_outputs
from robot_bridge.realtime import PRIORITY, take_priority
from robot_bridge.sensors import load_maps
from robot_bridge.simulation import mujoco_warnings
from robot_bridge.simulation.faults import Disturbance, Faults
from robot_bridge.simulation.hand import STEP, SimulatedHand
from robot_bridge.simulation.imperfections import PRESETS

FAR_BEHIND = 0.25
"""Real time that is not made up for, after a stop [s]."""


class HandServer:
    """Steps a hand in real time and passes on what it says and is told.

    Args:
        hand: simulated.
        path: of the unix socket.
        log: of commands, a JSON object in each line; None for none.
    """

    def __init__(self, hand: SimulatedHand, path: Path, log: Path | None = None):
        self._hand, self._path = hand, path
        self._faults = Faults()
        if path.is_socket():
            path.unlink()  # of a hand that was killed
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.bind(str(path))
        except OSError as error:
            self._socket.close()
            raise OSError(f"--socket {path}: {error.strerror or error}") from error
        self._socket.setblocking(False)
        self._users: set[str] = set()
        self._sequence = 0
        self._log = log.open("w", 1, "utf-8") if log else None
        self._ros = None
        self._sent: object = None
        self._putting_back: Iterator[None] | None = None
        self.closing = False

    def serve_ros(self, ros) -> None:
        """Speak ROS, too: ``ros`` is a ``simulation.ros_server.RosServer``."""
        self._ros, ros.put_back = ros, self._put_back

    def run(self) -> None:
        """Until ``closing``."""
        began = time.monotonic() - self._hand.time
        while not self.closing:
            if self._ros:
                # First: they have waited in queues of their own.
                for command in self._ros.commands():
                    self._command("ros", *command)
            self._listen()
            if self._putting_back is not None:
                # Sensors go on, but controllers do not: nobody arms a hand meanwhile.
                if next(self._putting_back, self) is self:
                    self._putting_back = None
                self._speak(controlled=False)
                began = time.monotonic() - self._hand.time
                continue
            behind = time.monotonic() - began - self._hand.time
            if behind > FAR_BEHIND:
                began, behind = began + behind, 0.0
            while behind >= STEP:
                self._hand.step(STEP)
                behind -= STEP
                if self._hand.messages is not self._sent:
                    self._sent = self._hand.messages
                    self._speak()
            time.sleep(STEP)
        for user in list(self._users):
            self._send(user, wire.BYE, {})
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _listen(self) -> None:
        while True:
            try:
                data, user = self._socket.recvfrom(65536)
            except BlockingIOError:
                return
            message = wire.unpack(data)
            if message is None:
                continue
            if message.kind == wire.HELLO:
                self._users.add(user)
                self._send(user, wire.INFO, dataclasses.asdict(self._hand.info))
            elif message.kind == wire.COMMAND:
                targets = message.content[1:]
                has_targets = not np.isnan(targets).all()
                force = float(message.content[0])
                self._command(user, targets if has_targets else None, force)
            elif message.kind == wire.NEW_TRIAL:
                self._put_back(**message.content)
            elif message.kind == wire.FAULT:
                self._disturb(message.content)
            elif message.kind == wire.BYE:
                self._users.discard(user)

    def _put_back(self, with_object: bool) -> None:
        """Begin a new trial."""
        self._putting_back = self._hand.putting_back(with_object)

    def _disturb(self, content: dict) -> None:
        if not content:
            self._faults.clear()
            return
        self._faults.add(Disturbance(**content))
        self._write({"time": time.monotonic(), "fault": content})

    def _command(self, user: str, targets: np.ndarray | None, force: float) -> None:
        self._hand.command(targets, force)
        if self._ros and targets is not None:
            # A message on ROS is about one joint; the others go on as they were told
            # last, by whomever.
            self._ros.asked = targets.copy()
        named = None if targets is None else [round(t, 4) for t in targets.tolist()]
        self._write(
            {"time": time.monotonic(), "from": user, "force": force, "targets": named}
        )

    def _speak(self, controlled: bool = True) -> None:
        now = time.monotonic()
        for channel, value in self._hand.messages.items():
            for disturbed, stamp in self._faults.pass_on(channel, value, now, now):
                self._publish(channel, disturbed, stamp)
        if controlled:
            self._publish("set_points", self._hand.set_points, now)

    def _publish(self, channel: str, value: np.ndarray, stamp: float) -> None:
        if self._ros:
            self._ros.publish(channel, value, stamp)
        index = wire.CHANNELS.index(channel)
        numbers = np.concatenate([[index, 0.0], value.reshape(-1)])
        for user in list(self._users):
            self._send(user, wire.SENSOR, numbers, stamp)

    def _send(self, user: str, kind: int, content, stamp: float | None = None) -> None:
        self._sequence += 1
        when = time.monotonic() if stamp is None else stamp
        try:
            self._socket.sendto(wire.pack(kind, self._sequence, when, content), user)
        except (FileNotFoundError, ConnectionRefusedError):
            self._users.discard(user)
        except BlockingIOError:
            pass  # it does not read: what is old is of no use to it

    def _write(self, content: dict) -> None:
        if self._log:
            self._log.write(json.dumps(content) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    terminal.make_printable()
    parser = argparse.ArgumentParser(
        prog="python -m robot_bridge.sim_hand", description=__doc__.split("\n")[0]
    )
    parser.add_argument("bundle", type=policies.find)
    parser.add_argument("--socket", type=Path, required=True, help="path of its socket")
    parser.add_argument("--ros", action="store_true", help="speak ROS, too")
    parser.add_argument("--imperfections", choices=PRESETS, default="clean")
    seed = "of the hand and its noise: %(type)s"
    parser.add_argument("--seed", type=SEED, default=0, help=seed)
    parser.add_argument("--side", choices=("right", "left"), default="right")
    priority = "run before others: %(type)s"
    parser.add_argument("--rt-priority", type=PRIORITY, help=priority)
    parser.add_argument(
        "--trajectory", action="store_true", help="be in trajectory mode, on ROS"
    )
    parser.add_argument("--calibration", type=Path, help="of another hand, with slack")
    parser.add_argument("--sensors", type=Path, help="what the driver calibrates by")
    parser.add_argument("--log", type=Path, help="write every command to this file")
    options = parser.parse_args(arguments)
    mujoco_warnings.start_counting()
    try:
        check_outputs(Output("--log", options.log))
        loaded = bundle.load(options.bundle)
        flaws = PRESETS[options.imperfections]
        hand = SimulatedHand(
            loaded.manifest, flaws, options.seed, options.side, options.calibration
        )
        if options.sensors:
            hand.sensor_maps = load_maps(options.sensors, loaded.joints)
        server = HandServer(hand, options.socket, options.log)
        if options.ros:
            from robot_bridge.simulation.ros_server import RosServer

            server.serve_ros(RosServer(hand, options.trajectory))
        take_priority(options.rt_priority)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

    def close(*_):
        server.closing = True

    signal.signal(signal.SIGTERM, close)
    signal.signal(signal.SIGINT, close)
    print(f"{hand.serial}, {options.imperfections}, at {options.socket}", flush=True)
    server.run()
    mujoco_warnings.report()
    return 0


if __name__ == "__main__":
    sys.exit(main())
