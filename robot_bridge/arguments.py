"""Numbers on the command lines of argparse: each has a range, which its help states."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Number:
    """``type`` of an option that is a number; ``%(type)s`` in its help is the range."""

    low: float
    """Least value."""
    high: float = math.inf
    """Largest value; infinity and NaN are no values."""
    is_whole: bool = False
    """Integers alone, which may be written as 1e6."""
    is_above: bool = False
    """``low`` itself is no value."""

    def __call__(self, text: str) -> float:
        """Value of an argument.

        Raises:
            ArgumentTypeError: if it is not a number of this range.
        """
        try:
            number = _whole(text) if self.is_whole else float(text)
        except ValueError:
            number = math.nan
        inside = self.low < number if self.is_above else self.low <= number
        if not inside or not number <= self.high or number == math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not {self}")
        return number

    def __str__(self):
        kind = "a whole number" if self.is_whole else "a number"
        if self.high < math.inf:
            begin = "above " if self.is_above else ""
            return f"{kind}, {begin}{self.low:.12g} to {self.high:.12g}"
        if self.is_above:
            return f"{kind} above {self.low:.12g}"
        return f"{kind}, {self.low:.12g} or more"


def _whole(text: str) -> int:
    """Integer from text such as 5 or 1e6."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
    if not number.is_integer():
        raise ValueError(text)
    return int(number)


SEED = Number(0, 2**32 - 1, is_whole=True)
"""Of a random generator."""
COUNT = Number(1, 1_000_000, is_whole=True)
"""Of what is done at least once."""
POSITIVE = Number(0, is_above=True)
"""Time, speed or size."""
