"""Ranges of numbers, for annotations: `steps: PositiveInt`, `decay: Decay`."""

import dataclasses
from typing import Annotated

# Steps, sizes and counts are 32-bit integers on the devices.
LARGEST_INT = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Range:
    """A range of numbers; bounds that are None do not apply.

    Attributes:
        least: smallest allowed number.
        above: largest number that is too small.
        most: largest allowed number.
        below: smallest number that is too large.
        zero: the meaning of 0 in a word or two, if it is special.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    zero: str = ""

    def contains(self, value: float) -> bool:
        """Returns whether a number is in the range."""
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def describe(self, value: object) -> str:
        """Describes the range; the largest integer is left out unless `value` exceeds it."""
        most = self.most
        if most == LARGEST_INT and not (isinstance(value, int | float) and value > most):
            most = None
        if self.least is not None and most is not None:
            return f"from {_text(self.least)} to {_text(most)}"
        if self.least is not None and self.below is not None:
            return f"in [{_text(self.least)}, {_text(self.below)})"
        if self.above is not None:
            upper = "" if most is None else f" and at most {_text(most)}"
            upper = upper if self.below is None else f" and below {_text(self.below)}"
            return f"above {_text(self.above)}{upper}"
        if self.least == 1:
            return "above 0"
        zero = f" ({self.zero})" if self.zero and self.least == 0 else ""
        return f"{_text(self.least or 0)}{zero} or more"


@dataclasses.dataclass(frozen=True)
class NotBlank:
    """A text that is not blank.

    Attributes:
        what: a description of the text, for messages.
    """

    what: str = "a name"

    def contains(self, value: str) -> bool:
        """Returns whether a text is not blank."""
        return bool(value.strip())

    def describe(self, value: object) -> str:
        """Describes the text."""
        del value
        return self.what


def _text(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def counted(zero: str = "") -> Range:
    """Returns the range of a count that can be 0, with the meaning of 0."""
    return Range(least=0, most=LARGEST_INT, zero=zero)


PositiveInt = Annotated[int, Range(least=1, most=LARGEST_INT)]
Count = Annotated[int, counted()]
# Random keys keep 32 bits of a seed: a larger one would silently be another.
Seed = Annotated[int, Range(least=-(2**31), most=2**32 - 1)]
Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(least=0)]
Share = Annotated[float, Range(least=0, most=1)]
Decay = Annotated[float, Range(least=0, below=1)]
Name = Annotated[str, NotBlank()]
Path = Annotated[str, NotBlank("a path")]
