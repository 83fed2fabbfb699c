"""Three physics engines behind one interface."""

from mjx_dex.physics.engine import (
    Engine,
    choose_engine,
    initial_state,
    make_engine,
    nominal_parameters,
)

__all__ = [
    "Engine",
    "choose_engine",
    "initial_state",
    "make_engine",
    "nominal_parameters",
]
