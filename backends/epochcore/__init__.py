"""EpochCore: its architecture files, the lowering to its instructions, its simulator and its costs."""

from backends.epochcore.backend import EpochCore

BACKEND = EpochCore()

__all__ = ["BACKEND"]
