"""Numbers with a stated range: shown in ``--help``, checked wherever they are from.

A field of type ``real(0, 1)`` or ``whole(1)`` in a dataclass derived from ``Checked``
is checked when the dataclass is made, in Python as well as from a file or a command
line.
"""

import contextlib
import contextvars
import dataclasses
import functools
import math
import numbers
import typing
from typing import Annotated, Any, Literal

from tyro.constructors import PrimitiveConstructorSpec

NAMES = {int: "a whole number", float: "a number"}

_may_be_wrong = contextvars.ContextVar("values are not checked yet", default=False)


class SettingError(ValueError):
    """A value that cannot be used.

    Args:
        field: dotted path of it.
        problem: what is wrong with it, and what would be right.
    """

    def __init__(self, field: str, problem: str):
        super().__init__(f"{field} {problem}")
        self.field, self.problem = field, problem

    def inside(self, prefix: str) -> "SettingError":
        """The same of a field that is part of another one."""
        return SettingError(prefix + self.field, self.problem)


class Checked:
    """Base of dataclasses whose values are checked when they are made.

    Raises:
        SettingError: if a value is of another type, outside its range, or does not fit
            the others.
    """

    def __post_init__(self):
        if not _may_be_wrong.get():
            check(self, nested=False)

    def validate(self) -> None:
        """Raise SettingError if values that are right alone do not fit together."""


def check(settings: Checked, nested: bool = True) -> None:
    """Raise SettingError if a value of ``settings`` cannot be used.

    Args:
        settings: a dataclass.
        nested: check the dataclasses within, too, which usually are already.
    """
    for name, hint in hints(type(settings)).items():
        value = getattr(settings, name)
        if not isinstance(value, Checked):
            # Frozen for everybody else.
            object.__setattr__(settings, name, checked_value(name, value, hint))
        elif nested:
            try:
                check(value)
            except SettingError as error:
                raise error.inside(f"{name}.") from None
    settings.validate()


def check_multiple(field: str, value: int, of: str, divisor: int) -> None:
    """Raise SettingError if a size is no multiple of another one."""
    if value % divisor:
        fitting = max(round(value / divisor), 1) * divisor
        raise SettingError(
            field, f"({value}) must be a multiple of {of} ({divisor}); {fitting} does"
        )


def check_order(low: float, high: float) -> None:
    """Raise SettingError if the bound ``low`` exceeds the bound ``high``."""
    if low > high:
        raise SettingError("low", f"({low:g}) must not exceed high ({high:g})")


@contextlib.contextmanager
def unchecked():
    """Nothing is checked here, so that all can be checked at once after it."""
    token = _may_be_wrong.set(True)
    try:
        yield
    finally:
        _may_be_wrong.reset(token)


def checked_value(name: str, value: Any, hint: Any) -> Any:
    """``value`` in the type ``hint``: 1e6 is whole, a list may stand for a tuple.

    Raises:
        SettingError: if it is not of that type, or outside its range.
    """
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    number = number_of(hint)
    if number is not None:
        return number.checked(name, value)
    if origin is Literal:
        if isinstance(value, str) and value in options:
            return value
        raise SettingError(name, f"is {value!r}; it must be one of {options}")
    if type(None) in options:  # "or None"
        return None if value is None else checked_value(name, value, options[0])
    if origin is tuple:
        return tuple(
            checked_value(f"{name}[{k}]", entry, kind)
            for k, (entry, kind) in enumerate(_entries(name, value, options))
        )
    if isinstance(hint, type) and not isinstance(value, hint):
        raise SettingError(name, f"is {value!r}; it must be of type {hint.__name__}")
    return value


def _entries(name: str, value: Any, options: tuple) -> list[tuple[Any, Any]]:
    """Entries of a tuple, each with its type."""
    if not isinstance(value, tuple | list):
        raise SettingError(name, f"is {value!r}; it must hold a list of values")
    if options[-1] is Ellipsis:
        return [(entry, options[0]) for entry in value]
    if len(value) != len(options):
        raise SettingError(
            name, f"has {len(value)} entries; it must have {len(options)}"
        )
    return list(zip(value, options, strict=True))


@dataclasses.dataclass(frozen=True)
class Number:
    """A kind of number and its range."""

    kind: type
    """int or float."""
    low: float
    high: float
    above: bool = False
    """The lowest value itself is outside."""
    below: bool = False
    """The highest value itself is outside."""

    def __str__(self) -> str:
        low, high = _shown(self.low), _shown(self.high)
        least = f"above {low}" if self.above else f"{low} or more"
        most = f"below {high}" if self.below else f"{high} or less"
        if math.isinf(self.high):
            bounds = "that is finite" if math.isinf(self.low) else least
        elif math.isinf(self.low):
            bounds = most
        elif self.above or self.below:
            bounds = f"{least} and {most}"
        else:
            bounds = f"from {low} to {high}"
        return f"{NAMES[self.kind]} {bounds}"

    @property
    def metavar(self) -> str:
        """The range as ``--help`` shows it."""
        text = self.kind.__name__.upper()
        if not math.isinf(self.low):
            text = f"{_shown(self.low)}{'<' if self.above else '<='}{text}"
        if not math.isinf(self.high):
            text = f"{text}{'<' if self.below else '<='}{_shown(self.high)}"
        return text

    def checked(self, name: str, value: Any) -> Any:
        """``value`` as a number of this kind.

        Raises:
            SettingError: if it is none, or outside the range.
        """
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if is_number and self._is_inside(value):
            number = self.kind(value)
            if self.kind is float or number == value:
                return number
        raise SettingError(name, f"is {value!r}; it must be {self}")

    def _is_inside(self, value: Any) -> bool:
        is_finite = -math.inf < value < math.inf  # and not NaN
        is_low = value <= self.low if self.above else value < self.low
        is_high = value >= self.high if self.below else value > self.high
        return is_finite and not (is_low or is_high)

    def is_right(self, value: Any) -> bool:
        """Whether ``value`` is such a number."""
        try:
            self.checked("", value)
        except SettingError:
            return False
        return True

    def parsed(self, text: str) -> Any:
        """A number from a command line; the text itself if it is none."""
        for kind in (int, float):
            with contextlib.suppress(ValueError, OverflowError):
                return kind(text)
        return text


def _shown(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def real(
    low: float = -math.inf,
    high: float = math.inf,
    above: bool = False,
    below: bool = False,
) -> Any:
    """The type of a finite number, see ``Number``."""
    return _typed(Number(float, low, high, above, below))


def whole(low: float = -math.inf, high: float = math.inf) -> Any:
    """The type of a whole number, see ``Number``."""
    return _typed(Number(int, low, high))


def _typed(number: Number) -> Any:
    # Ranges are checked when all is parsed: what tyro says of parts is not for people.
    command_line = PrimitiveConstructorSpec(
        nargs=1,
        metavar=number.metavar,
        instance_from_str=lambda texts: number.parsed(texts[0]),
        is_instance=number.is_right,
        str_from_instance=lambda value: [str(value)],
    )
    return Annotated[number.kind, number, command_line]


def number_of(hint: Any) -> Number | None:
    """The range that a type states, if it does."""
    found = (x for x in getattr(hint, "__metadata__", ()) if isinstance(x, Number))
    return next(found, None)


@functools.cache
def hints(settings: type) -> dict[str, Any]:
    """Types of a dataclass's fields by name, ranges included."""
    found = typing.get_type_hints(settings, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(settings)}


Finite = real()
Positive = real(0, above=True)
NotNegative = real(0)
Share = real(0, 1)
"""A part of a whole, or a probability."""
Count = whole(1)
Seed = whole(0, 2**32 - 1)
