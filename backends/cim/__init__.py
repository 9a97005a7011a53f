"""The crossbar compute-in-memory chip with volatile states: architecture, lowering, simulator, costs."""

from backends.cim.backend import BACKEND

__all__ = ["BACKEND"]
