"""The slow model: every element, register and token, cycle by cycle. It computes the numbers on the way, from the
memories as they are in that cycle, so that a token too few shows as a wrong result. For small arrays and for tests.

`grid` are the elements, `passes` what streams through them, `memory` the memories and the sequential parts around
them, `machine` the engines. Instructions whose time it cannot step (those of `passes` and `memory` are all) are
refused.
"""

from backends.epochcore.stepped.machine import run

__all__ = ["run"]
