"""Why something cannot be lifted: words for the user, and what they say for decisions, which never read the words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto


class Kind(Flag):
    """What a reason says that something is decided by; a reason that is made of others is of all their kinds."""

    PLAIN = 0
    NOT_TIME = auto()  # an axis is scanned that is not the one taken for time
    PICKED = auto()  # a loop picks its steps from an axis that is not the one taken for time
    PART_OF_BATCH = auto()  # samples are treated apart, or they are steps
    NOT_FEATURES = auto()  # channels lie along the axis taken for time
    INDIVISIBLE = auto()  # at another length the steps may be cut into what they cannot be cut into here
    RISING = auto()  # steps are made of one step
    UNLIKE = auto()  # steps are not treated alike
    NONLINEAR = auto()  # a region is not linear in what enters it
    LINEAR = auto()  # it is, in all of it together
    ROUNDING = auto()  # what mixes time, or is carried, is rounded
    UNTRANSLATED = auto()  # another refusal tells why
    NOT_COMPARED = auto()  # no neuron: nothing is compared


@dataclass(frozen=True)
class Reason:
    """Words for the user, and the kinds of what they say."""

    text: str
    kind: Kind = Kind.PLAIN

    def __str__(self) -> str:
        return self.text

    def within(self, text: str) -> Reason:
        """Longer words in which these stand."""
        return Reason(text, self.kind)


def as_reason(told: Reason | str) -> Reason:
    """Words alone are a reason that nothing is decided by."""
    return Reason(told) if isinstance(told, str) else told
