"""The state machine: nothing but a person makes a hand move again."""

import itertools

import pytest

from robot_bridge.safety import TRANSITIONS, Event, State, next_state

A_PERSONS = (Event.ARM, Event.START, Event.STOP)
MOVING = (State.ARMED, State.RUNNING)


@pytest.mark.parametrize(
    ("state", "event", "then"),
    [
        (State.CONNECT, Event.HEARD, State.CHECK),
        (State.CHECK, Event.ARM, State.ARMED),
        (State.ARMED, Event.START, State.RUNNING),
        (State.RUNNING, Event.FINISHED, State.HOLD),
        (State.RUNNING, Event.FAULT, State.HOLD),
        (State.RUNNING, Event.DANGER, State.LIMP),
        (State.HOLD, Event.DANGER, State.LIMP),
        (State.HOLD, Event.ARM, State.ARMED),
        (State.CONNECT, Event.ARM, State.CONNECT),
        (State.CONNECT, Event.START, State.CONNECT),
        (State.CHECK, Event.START, State.CHECK),
        (State.HOLD, Event.START, State.HOLD),
    ],
)
def test_what_follows(state, event, then):
    assert next_state(state, event) is then


@pytest.mark.parametrize("state", State)
def test_from_everywhere_a_person_can_stop_for_good(state):
    assert next_state(state, Event.STOP) is State.STOPPED


@pytest.mark.parametrize("event", Event)
def test_stopped_is_for_good(event):
    assert next_state(State.STOPPED, event) is State.STOPPED


def test_only_a_person_makes_a_hand_move():
    for state, event in itertools.product(State, Event):
        after = next_state(state, event)
        if after in MOVING and after is not state:
            assert event in A_PERSONS


@pytest.mark.parametrize("state", [s for s in State if s not in MOVING])
def test_nothing_that_happens_leads_to_motion_however_often(state):
    """Every sequence of events without a person: never armed, never running."""
    reached, happenings = {state}, [e for e in Event if e not in A_PERSONS]
    while True:
        more = {next_state(s, e) for s in reached for e in happenings} | reached
        if more == reached:
            break
        reached = more
    assert not reached & set(MOVING)


def test_every_fault_ends_running():
    for event in (Event.FAULT, Event.DANGER):
        assert next_state(State.RUNNING, event) not in MOVING
        assert next_state(State.ARMED, event) not in MOVING


def test_transitions_are_of_known_states():
    assert all(isinstance(s, State) and isinstance(e, Event) for s, e in TRANSITIONS)
