"""Who arms and starts: a person at the keyboard, or a rehearsal's script."""

import os
from types import SimpleNamespace

import pytest

from robot_bridge import operators
from robot_bridge.operators import Person, Rehearsal, Trials
from robot_bridge.safety import State


@pytest.fixture
def keyboard(monkeypatch):
    """The end of a pipe that lines are typed into."""
    out, into = os.pipe()
    with os.fdopen(out) as stdin, os.fdopen(into, "w", buffering=1) as typed:
        monkeypatch.setattr(operators.sys, "stdin", stdin)
        yield typed


def controller(state, **changes):
    standard = {"is_checked": True, "trials": 0, "goals_met": 3, "why": "dropped"}
    changes = {"is_trusted": lambda now: True, **standard, **changes}
    return SimpleNamespace(state=state, **changes)


@pytest.mark.parametrize(
    ("state", "wish"),
    [
        (State.CONNECT, ""),
        (State.CHECK, "arm"),
        (State.ARMED, "start"),
        (State.RUNNING, "hold"),
        (State.HOLD, "arm"),
        (State.LIMP, "arm"),
    ],
)
def test_enter_takes_the_next_step_and_nothing_else_does(state, wish, keyboard):
    person = Person(Trials(5))
    for _ in range(3):
        assert person.wish(controller(state), 0.0) == ""
    keyboard.write("\n")
    assert person.wish(controller(state), 0.0) == wish
    assert person.wish(controller(state), 0.0) == ""


def test_a_person_arms_no_hand_that_was_not_checked(keyboard):
    keyboard.write("\n")
    checking = controller(State.CHECK, is_checked=False)
    assert Person(Trials(5)).wish(checking, 0.0) == ""


@pytest.mark.parametrize("state", [State.CHECK, State.RUNNING, State.HOLD])
def test_q_ends_it(state, keyboard):
    keyboard.write("q\n")
    assert Person(Trials(5)).wish(controller(state), 0.0) == "stop"


def test_without_a_keyboard_it_ends(keyboard, capsys):
    keyboard.close()
    assert Person(Trials(5)).wish(controller(State.CHECK), 0.0) == "stop"
    assert "nobody is at the keyboard" in capsys.readouterr().out


def test_a_person_is_told_what_enter_does(keyboard, capsys):
    person = Person(Trials(5))
    person.wish(controller(State.ARMED), 0.0)
    person.wish(controller(State.ARMED), 0.0)
    assert capsys.readouterr().out == "armed: Enter starts the policy, q ends\n"


def test_trials_are_counted_though_they_end_as_they_begin():
    trials = Trials(2)
    script = Rehearsal(trials)
    assert script.wish(controller(State.ARMED), 0.0) == "start"
    assert script.wish(controller(State.HOLD, trials=1), 0.1) == "new trial"
    assert script.wish(controller(State.HOLD, trials=1), 0.2) == "arm"
    assert script.wish(controller(State.HOLD, trials=2), 0.3) == "stop"
    assert (trials.goals, trials.ends) == ([3, 3], ["dropped", "dropped"])


def test_a_rehearsal_ends_with_a_fault_unless_it_is_told_to_go_on():
    fault = controller(State.HOLD, trials=1, why="no marker for 251 ms")
    assert Rehearsal(Trials(5)).wish(fault, 0.0) == "stop"
    assert Rehearsal(Trials(5), keep_going=True).wish(fault, 0.0) == "new trial"


def test_a_rehearsal_does_not_wait_for_ever():
    script = Rehearsal(Trials(5))
    deaf = controller(State.CONNECT)
    assert script.wish(deaf, 0.0) == ""
    assert script.wish(deaf, operators.PATIENCE - 1) == ""
    assert script.wish(deaf, operators.PATIENCE + 1) == "stop"


def test_a_deadline_and_an_interrupt_end_it():
    script = Rehearsal(Trials(5, deadline=10.0))
    assert script.wish(controller(State.RUNNING), 9.0) == ""
    assert script.wish(controller(State.RUNNING), 10.1) == "stop"
    script = Rehearsal(Trials(5, interrupted=True))
    assert script.wish(controller(State.RUNNING), 0.0) == "stop"
