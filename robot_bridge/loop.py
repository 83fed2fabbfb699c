"""12.5 times a second: look, think, tell, record."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Protocol

import numpy as np

from robot_bridge.controller import Controller
from robot_bridge.guard import Guard, NoGuard
from robot_bridge.recording import NoRecorder, Recorder
from robot_bridge.safety import Fault, State
from robot_bridge.transports import Transport

LOOK = 0.01
"""Time between two looks at the sensors [s]."""

STALL = 0.15
"""A tick that has taken longer sends nothing: soon the guard takes over [s]."""

WARM_UP = 20
"""Inferences before the first that counts."""


class Operator(Protocol):
    """Who arms, starts and stops: a person at the keyboard, or a rehearsal's script."""

    def wish(self, controller: Controller, now: float) -> str:
        """'arm', 'start', 'hold', 'new trial', 'stop', or ''."""


@dataclass
class Timing:
    """How punctual the loop was [s], tick by tick."""

    late: list[float] = field(default_factory=list)
    """From when a tick was due to when it began."""
    took: list[float] = field(default_factory=list)
    """From then to when the hand had been told."""

    def report(self, period: float) -> str:
        """In one line of figures [ms]."""
        if not self.took:
            return "no ticks"
        text = []
        both = np.array(self.late) + self.took
        for name, values in (
            ("late", self.late),
            ("wake to command", self.took),
        ):
            p50, p99 = np.quantile(values, [0.5, 0.99]) * 1000
            text.append(f"{name} {p50:.2f} / {p99:.2f} / {1000 * max(values):.2f} ms")
        missed = int((both > period).sum())
        return (
            f"{len(both)} ticks: {', '.join(text)} (median / 99% / largest); "
            f"{missed} took longer than {1000 * period:.0f} ms"
        )


class Loop:
    """Runs a controller on a hand until the operator ends it.

    Args:
        controller: thinks.
        transport: reaches the hand.
        operator: decides.
        armed: send anything at all; otherwise all but that is done.
        recorder: of everything.
        guard: takes over when this process dies.
        on_event: is told of every change of state.
    """

    def __init__(
        self,
        controller: Controller,
        transport: Transport,
        operator: Operator,
        armed: bool,
        recorder: Recorder | NoRecorder,
        guard: Guard | NoGuard,
        on_event: Callable[[dict], None] = lambda event: None,
    ):
        self._on_event = on_event
        self._controller, self._transport = controller, transport
        self._operator, self._armed = operator, armed
        self._recorder, self._guard = recorder, guard
        self.timing = Timing()
        self._seen: dict[str, Any] = {}

    def run(self, period: float) -> None:
        """Until the state is STOPPED."""
        controller, transport = self._controller, self._transport
        for _ in range(WARM_UP):
            controller.rehearse()
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            start, number = transport.now(), 0
            while controller.state is not State.STOPPED:
                due = start + number * period
                self._wait(due)
                self._tick(due)
                # Ticks that are past are skipped, never made up for in a burst.
                behind = (transport.now() - start) / period
                number = max(number + 1, int(np.ceil(behind - 1e-9)))
        finally:
            gc.enable()
            gc.unfreeze()

    def _wait(self, due: float) -> None:
        """Look at the sensors until then."""
        transport = self._transport
        while True:
            now = transport.now()
            if now >= due - 1e-9:
                return
            transport.wait_until(min(due, now + LOOK))
            self._look()

    def _look(self) -> None:
        """Take in the sensors; tell the hand at once if that changed anything."""
        controller, now = self._controller, self._transport.now()
        snapshot = self._transport.latest()
        others = [
            Fault(name, message)
            for name, message in (
                ("guard", self._guard.heard()),
                ("recorder", self._recorder.error),
            )
            if message
        ]
        news = {
            name: sample
            for name in snapshot.CHANNELS
            for sample in [getattr(snapshot, name)]
            if sample is not None and sample is not self._seen.get(name)
        }
        self._seen.update(news)
        self._recorder.put(
            "look",
            {
                "now": now,
                "samples": news,
                "object_frame": snapshot.object_frame,
                "fault": snapshot.fault,
                "danger": snapshot.danger,
                "others": others,
            },
        )
        before = controller.state
        controller.look(snapshot, now, others)
        self._beat()
        if controller.state is not before:
            self._note(before)
            self._tell()

    def _tick(self, due: float) -> None:
        began = time.perf_counter()
        controller, now = self._controller, self._transport.now()
        self._obey(now)
        before = controller.state
        thought = controller.tick(now)
        # What was thought for too long is not sent: the guard may have taken over.
        stalled = time.perf_counter() - began > STALL or bool(self._guard.heard())
        sent = not stalled and self._tell()
        done = self._transport.now()
        controller.finish_tick(due, done)
        if controller.state is not before:
            self._note(before)
        self._beat()
        took = time.perf_counter() - began
        if controller.state is State.RUNNING:
            self.timing.late.append(now - due)
            self.timing.took.append(took)
        self._recorder.put(
            "tick",
            {
                "now": now,
                "due": due,
                "done": done,
                "took": took,
                "state": controller.state.value,
                "command": controller.command,
                "sent": sent,
                "ages": controller.ages(now),
                **thought,
            },
        )

    def _obey(self, now: float) -> None:
        """Do what the operator asks."""
        controller, before = self._controller, self._controller.state
        wish = self._operator.wish(controller, now)
        if not wish:
            return
        self._recorder.put("wish", {"now": now, "wish": wish})
        if wish == "new trial":
            # A simulated hand begins in a pose of its own, and keeps it until armed.
            controller.forget()
            self._transport.new_trial()
        else:
            controller.obey(wish, now)
        if controller.state is not before:
            self._note(before)

    def _tell(self) -> bool:
        """Send the present command, if there is one and this is no dry run."""
        command = self._controller.outgoing
        if command is None or not self._armed:
            return False
        self._transport.send(command)
        self._controller.sent(command)
        return True

    def _beat(self) -> None:
        command = self._controller.outgoing
        force = 0.0 if command is None else command.force
        self._guard.beat(self._controller.state, force)

    def _note(self, before: State) -> None:
        controller = self._controller
        event = {
            "now": self._transport.now(),
            "monotonic": time.monotonic(),
            "from": before.value,
            "to": controller.state.value,
            "why": controller.why,
        }
        self._recorder.put("event", event)
        self._on_event(event)
