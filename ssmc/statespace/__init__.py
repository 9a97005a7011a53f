"""The mathematics of one linear state-space system: no graph, no file format, numpy and scipy.linalg only."""

from ssmc.statespace.discretization import at_step, discretize
from ssmc.statespace.recurrence import simulate
from ssmc.statespace.system import StateSpace, StateSpaceError

__all__ = ["StateSpace", "StateSpaceError", "at_step", "discretize", "simulate"]
