"""``python -m robot_bridge.run BUNDLE``: the policy on a hand.

By default on a simulated one, in a process of its own: a rehearsal. On a real hand
nothing is sent without ``--arm``.
"""

from __future__ import annotations

import os

# Before NumPy is loaded: a second thread would lower the median and wreck the worst.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from robot_bridge import bundle as bundles
from robot_bridge import policies, terminal
from robot_bridge.arguments import COUNT, POSITIVE, SEED, Number
from robot_bridge.controller import Command, Controller, Options
from robot_bridge.files import Output, check_outputs, write_at_once
from robot_bridge.goals import GoalRules
from robot_bridge.guard import Guard, NoGuard
from robot_bridge.loop import Loop
from robot_bridge.operators import ENDS, Person, Rehearsal, Trials
from robot_bridge.programs import PARTS, make_program
from robot_bridge.realtime import PRIORITY, take_priority
from robot_bridge.recording import NoRecorder, Recorder
from robot_bridge.ros_options import ros_options
from robot_bridge.safety import Limits
from robot_bridge.transports.poses import FRAMES, PoseSocket

CONNECTING = 20.0
"""A hand that has not answered in this time never will [s]."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    terminal.make_printable()
    options = _parser().parse_args(arguments)
    try:
        _check_files(options)
        return _run(options)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m robot_bridge.run", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    add("bundle", type=policies.find, help="a folder, or near.dex")
    add("--transport", choices=("sim", "lockstep", "ros1"), default="sim")
    add("--socket", type=Path, help="of a simulated hand that runs already")
    add("--ros", type=ros_options, default={}, help="options of ros1, a JSON object")
    add("--arm", action="store_true", help="send commands to a hand on ROS")
    add("--rehearse", action="store_true", help="no person: a simulated hand on ROS")
    add("--trials", type=COUNT, default=5, help="%(type)s (default: %(default)s)")
    add("--minutes", type=POSITIVE, help="end after this time: %(type)s")
    theirs = "%(type)s (default: the bundle's)"
    add("--goals", type=COUNT, help=f"that complete a trial: {theirs}")
    add("--seconds", type=POSITIVE, help=f"for each goal: {theirs}")
    add("--most-likely", action="store_true", help="do not draw actions")
    force = "share of the controllers' force: %(type)s (default: 1)"
    add("--force", type=Number(0, 1), default=1.0, help=force)
    add("--speed", type=POSITIVE, help="limit of targets' change [rad/s]: %(type)s")
    add("--poses", type=Path, help="a socket that another process sends poses to")
    add("--poses-frame", choices=FRAMES, default="hand", help="of those poses")
    age = "largest age of {} [s]: %(type)s"
    add("--pose-age", type=POSITIVE, help=age.format("the object's pose"))
    add("--joints-age", type=POSITIVE, help=age.format("joint angles"))
    add("--imperfections", choices=("clean", "noisy", "unseen"), default="clean")
    add("--calibration", type=Path, help="of a simulated hand that is another one")
    add("--seed", type=SEED, default=0, help="of hand, goals and actions: %(type)s")
    add("--rt-priority", type=PRIORITY, help="run before other processes: %(type)s")
    program = parser.add_mutually_exclusive_group()
    program.add_argument(
        "--sweep",
        type=POSITIVE,
        help="in place of the policy: move every joint for this time [s], %(type)s; "
        "no object",
    )
    program.add_argument(
        "--excite",
        nargs="*",
        choices=PARTS,
        metavar="PART",
        help="in place of the policy: what mjx_dex.calibrate fits to, of all the hand "
        "or of some of WR FF MF RF LF TH; no object",
    )
    add("--keep-going", action="store_true", help="after a fault of a simulated hand")
    add("--on-exit", choices=("hold", "limp"), default="hold")
    add("--record", type=Path, help="a new file; by default in runs/bridge")
    add("--no-record", action="store_true")
    add("--json", type=Path, help="write the figures to this file")
    add("--events", action="store_true", help="print every change of state as JSON")
    return parser


def _check_files(options: argparse.Namespace) -> None:
    """Raise ValueError, before a hand moves, for files that cannot be written."""
    record = None if options.no_record else _recording(options)
    check_outputs(
        Output("--json", options.json),
        Output("--record", record),
        Output("--poses", options.poses),
    )
    for flag, path in (("--record", record), ("--poses", options.poses)):
        if path and path.exists():
            raise ValueError(f"{flag} {path}: is there already; give a new file")


def _run(options: argparse.Namespace) -> int:
    loaded = bundles.load(options.bundle)
    changes = {"count": options.goals, "seconds": options.seconds}
    changes = {name: value for name, value in changes.items() if value is not None}
    rules = GoalRules.of(loaded.manifest, **changes)
    ages = {"object_age": options.pose_age, "joints_age": options.joints_age}
    limits = Limits(**{name: age for name, age in ages.items() if age is not None})
    acting = Options(
        options.most_likely, options.force, options.speed, options.seed, limits
    )
    with contextlib.ExitStack() as stack:
        transport, reach = _transport(options, loaded, stack)
        if options.poses:
            transport = PoseSocket(transport, options.poses, options.poses_frame)
        stack.callback(transport.close)
        info = transport.connect(CONNECTING)
        armed = options.transport != "ros1" or options.arm
        if options.rehearse and not info.simulated:
            raise ValueError(
                f"--rehearse is for simulated hands, and {info.serial} is a real one"
            )
        program = _program(options)
        if program:
            controller = make_program(loaded, info, acting, program)
            options.trials = 1
            if info.simulated:
                transport.new_trial(with_object=False)
        else:
            controller = Controller(loaded, info, rules, acting)
        take_priority(options.rt_priority)
        recorder = _recorder(options)
        stack.callback(recorder.close)
        guard = Guard([str(options.bundle), *reach]) if reach and armed else NoGuard()
        clean = []
        stack.callback(lambda: guard.close(bool(clean)))
        if reach and armed:
            guard.wait_until_ready(30.0)
        recorder.put(
            "start",
            {
                "bundle": str(options.bundle.resolve()),
                "digest": loaded.digest,
                "info": info,
                "rules": rules,
                "options": acting,
                "armed": armed,
                "transport": options.transport,
                "program": program,
            },
        )
        _introduce(loaded, info, armed, recorder)
        trials = Trials(options.trials, program="".join(program))
        if options.minutes:
            trials.deadline = transport.now() + 60 * options.minutes
        script = Rehearsal(trials, options.keep_going)
        alone = options.transport != "ros1" or options.rehearse
        operator = script if alone else Person(trials)
        _on_signals(trials)
        tell = _print_event if options.events else lambda event: None
        loop = Loop(controller, transport, operator, armed, recorder, guard, tell)
        # If anything is raised here, the guard takes over.
        loop.run(loaded.manifest["control"]["period"])
        if armed:
            _let_go(controller, transport, recorder, options.on_exit)
        clean.append(True)
    try:
        if options.json:
            _save(options, trials, controller, loop)
    finally:  # also where the disk is full by now
        if recorder.error:
            print(f"error: {recorder.error}", file=sys.stderr)
        _summarize(trials, controller, loop, loaded)
    return 0 if trials.ends and all(end in ENDS for end in trials.ends) else 1


def _program(options) -> dict:
    """See ``make_program``; nothing where the policy runs."""
    if options.sweep:
        return {"sweep": options.sweep}
    return {} if options.excite is None else {"excite": options.excite}


def _transport(options, loaded, stack):
    """The transport, and how the guard reaches the same hand."""
    if options.transport == "lockstep":
        from robot_bridge.simulation import mujoco_warnings
        from robot_bridge.simulation.hand import SimulatedHand
        from robot_bridge.simulation.imperfections import PRESETS
        from robot_bridge.transports.lockstep import Lockstep

        mujoco_warnings.start_counting()
        stack.callback(mujoco_warnings.report)
        flaws = PRESETS[options.imperfections]
        hand = SimulatedHand(
            loaded.manifest, flaws, options.seed, calibration=options.calibration
        )
        return Lockstep(hand), []
    if options.transport == "ros1":
        from robot_bridge.transports.ros1 import RosHand

        reach = ["--ros", json.dumps(options.ros)]
        return RosHand(loaded.manifest, **options.ros), reach
    from robot_bridge.transports.socket import SocketHand

    path = options.socket or _start_hand(options, stack)
    return SocketHand(path), ["--socket", str(path)]


def _start_hand(options, stack) -> Path:
    """A simulated hand in a process that ends with this one."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dex_"))
    path = Path(folder) / "hand"
    command = [sys.executable, "-m", "robot_bridge.sim_hand", str(options.bundle)]
    command += ["--socket", str(path), "--imperfections", options.imperfections]
    command += ["--seed", str(options.seed)]
    if options.calibration:
        command += ["--calibration", str(options.calibration)]
    if options.rt_priority:
        command += ["--rt-priority", str(options.rt_priority)]
    hand = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)

    def end():
        hand.terminate()
        hand.wait(timeout=10)

    stack.callback(end)
    deadline = time.monotonic() + CONNECTING
    while not path.exists() and time.monotonic() < deadline:
        if hand.poll() is not None:
            raise RuntimeError("the simulated hand ended; its own error is above")
        time.sleep(0.05)
    return path


def _recorder(options) -> Recorder | NoRecorder:
    return NoRecorder() if options.no_record else Recorder(_recording(options))


def _recording(options) -> Path:
    """The file that is given, or one named by the time."""
    name = time.strftime("%Y-%m-%d_%H-%M-%S") + f"_{os.getpid()}.mcap"
    return options.record or Path("runs/bridge") / name


def _introduce(loaded, info, armed, recorder) -> None:
    training = loaded.manifest["training"]
    print(
        f"{loaded.path.name}: {training['run']}, {training['env_steps']:,} env steps; "
        f"hand {info.serial} ({info.side}); "
        + ("armed" if armed else "dry run: nothing is sent (--arm to move)")
    )
    if isinstance(recorder, Recorder):
        print(f"recording to {recorder.path}", flush=True)


def _on_signals(trials: Trials) -> None:
    def interrupt(*_):
        trials.interrupted = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def _let_go(controller: Controller, transport, recorder, how: str) -> None:
    """Leave the hand at its measured pose, or limp: never at a far target."""
    if controller.command is None:
        return  # it was never told anything, or is the guard's
    command = Command(controller.here(), controller.command.force)
    if how == "limp":
        command = Command(None, 0.0)
    transport.send(command)
    recorder.put("exit", {"now": transport.now(), "command": command})


def _print_event(event: dict) -> None:
    print(json.dumps(event), flush=True)


def _summarize(trials, controller, loop, loaded) -> None:
    goals, period = trials.goals, loaded.manifest["control"]["period"]
    if goals and not trials.program:
        print(
            f"goals in a row: {np.mean(goals):.1f} ± {np.std(goals):.1f} "
            f"(median {np.median(goals):g}, {len(goals)} trials: "
            f"{' '.join(map(str, sorted(goals, reverse=True)))})"
        )
    counts = ", ".join(f"{name} {count}" for name, count in controller.counts.items())
    print(f"{loop.timing.report(period)}; {counts}")
    trained = loaded.manifest["training"]["pose_age"] + period
    if controller.oldest_pose > trained:
        print(
            f"the object's pose was up to {1000 * controller.oldest_pose:.0f} ms old, "
            f"and the policy was trained with {1000 * trained:.0f} ms at most"
        )
    if controller.why and controller.why not in ENDS:
        print(f"the hand was held: {controller.why}")


def _save(options, trials, controller, loop) -> None:
    content = {
        "bundle": str(options.bundle),
        "transport": options.transport,
        "imperfections": options.imperfections,
        "goals": trials.goals,
        "ends": trials.ends,
        "counts": controller.counts,
        "late": loop.timing.late,
        "took": loop.timing.took,
    }
    write_at_once(options.json, json.dumps(content))


if __name__ == "__main__":
    sys.exit(main())
