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


def controller(state, trusted=True, **changes):
    standard = {"trials": 0, "goals_met": 3, "why": "dropped", "trouble": ""}
    changes = {"is_trusted": lambda now: trusted, **standard, **changes}
    return SimpleNamespace(state=state, **changes)


def wish(typed, keyboard, state, **changes):
    keyboard.write(typed)
    return Person(Trials(5)).wish(controller(state, **changes), 0.0)


@pytest.mark.parametrize("state", State)
def test_enter_never_does_anything_but_hold(state, keyboard):
    assert wish("\n", keyboard, state) == "hold"


def test_hammering_enter_holds_whatever_else_is_typed(keyboard):
    assert wish("a\ns\n\n\n\n", keyboard, State.ARMED) == "hold"
    person = Person(Trials(5))
    assert person.wish(controller(State.HOLD), 0.0) == ""


@pytest.mark.parametrize(("letter", "expected"), [("a", "arm"), ("s", "start")])
def test_letters_take_the_next_step(letter, expected, keyboard):
    assert wish(letter + "\n", keyboard, State.CHECK) == expected


def test_nothing_typed_is_no_wish(keyboard):
    assert wish("", keyboard, State.ARMED) == ""
    assert wish("s", keyboard, State.ARMED) == ""  # the line is not finished


def test_a_hand_that_cannot_be_trusted_is_not_armed_and_it_is_said(keyboard, capsys):
    trouble = "no marker for 300 ms"
    assert wish("a\n", keyboard, State.CHECK, trusted=False, trouble=trouble) == ""
    assert f"not armed: {trouble}" in capsys.readouterr().out


@pytest.mark.parametrize("state", [State.CHECK, State.RUNNING, State.HOLD])
def test_q_ends_it(state, keyboard):
    assert wish("q\n", keyboard, state) == "stop"


def test_without_a_keyboard_it_ends(keyboard, capsys):
    keyboard.close()
    assert Person(Trials(5)).wish(controller(State.CHECK), 0.0) == "stop"
    assert "nobody is at the keyboard" in capsys.readouterr().out


def test_a_person_is_told_what_may_be_typed_and_why(keyboard, capsys):
    person = Person(Trials(5))
    person.wish(controller(State.ARMED), 0.0)
    person.wish(controller(State.ARMED), 0.0)
    said = capsys.readouterr().out
    assert said == "armed: s: start the policy, Enter: hold, q: end\n"
    for age in (251, 262, 273):
        trouble = f"object pose: nothing for {age} ms (limit 250)"
        person.wish(controller(State.CONNECT, trouble=trouble), 0.0)
    said = capsys.readouterr().out
    assert said.count("object pose: nothing for") == 1


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
    deaf = controller(State.CONNECT, trusted=False)
    assert script.wish(deaf, 0.0) == ""
    assert script.wish(deaf, operators.PATIENCE - 1) != "stop"
    assert script.wish(deaf, operators.PATIENCE + 1) == "stop"


def test_a_deadline_and_an_interrupt_end_it():
    script = Rehearsal(Trials(5, deadline=10.0))
    assert script.wish(controller(State.RUNNING), 9.0) == ""
    assert script.wish(controller(State.RUNNING), 10.1) == "stop"
    script = Rehearsal(Trials(5, interrupted=True))
    assert script.wish(controller(State.RUNNING), 0.0) == "stop"


def test_an_object_that_falls_before_it_is_armed_is_put_back_again():
    script = Rehearsal(Trials(5))
    assert script.wish(controller(State.HOLD, trials=1), 100.0) == "new trial"
    # In lockstep the time that putting it back takes has passed at once.
    waiting = controller(State.HOLD, trusted=False, trials=1)
    assert script.wish(waiting, 130.0) == ""
    assert script.wish(waiting, 144.0) == ""
    assert script.wish(waiting, 146.0) == "new trial"
    assert script.wish(waiting, 180.0) == ""
    assert script.wish(controller(State.HOLD, trials=1), 181.0) == "arm"
    running = controller(State.RUNNING, trusted=False, trials=1)
    assert script.wish(running, 200.0) == ""


@pytest.mark.parametrize("state", [State.CONNECT, State.CHECK])
def test_an_object_that_fell_before_the_first_trial_is_put_back(state):
    script, empty = Rehearsal(Trials(5)), Rehearsal(Trials(5, program="excite"))
    waiting = controller(state, trusted=False)
    assert script.wish(waiting, 7.0) == empty.wish(waiting, 7.0) == ""
    assert script.wish(waiting, 23.0) == "new trial"
    assert empty.wish(waiting, 23.0) == ""
