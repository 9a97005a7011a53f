"""Operands that many instructions of the crossbar chip have."""

from __future__ import annotations

from isa.fields import CONSTANT_BITS, Field, Kind

ADDRESS, SIZE, INDEX = 20, 20, 16
LINES = 1 << ADDRESS  # operands from here on are analog lines: see `analog`


def vector(name: str, doc: str) -> Field:
    """A vector in registers `v[...]`."""
    return Field(name, Kind.ADDR, ADDRESS, doc, space="v")


def analog(name: str, doc: str) -> Field:
    """A vector in registers `v[...]`, or on analog lines `a[...]`."""
    return Field(name, Kind.ADDR, ADDRESS + 1, doc, space="v", other="a")


def size(name: str, doc: str, default: int | None = None, low: int = 1) -> Field:
    """A count, of words or of steps."""
    return Field(name, Kind.IMM, SIZE, doc, low=low, default=default)


def index(name: str, doc: str, default: int | None = None) -> Field:
    """The number of one of many things, from 0 on."""
    return Field(name, Kind.IMM, INDEX, doc, default=default)


def flag(name: str, doc: str) -> Field:
    """A word that stands in the text or does not."""
    return Field(name, Kind.FLAG, 1, doc)


def data(name: str, doc: str, default: str | None = None) -> Field:
    """A constant of the program, by its name."""
    return Field(name, Kind.DATA, CONSTANT_BITS, doc, default=default)


DST = vector("dst", "First word of the result.")
SRC = vector("src", "First word of the operand.")
ANALOG_DST = analog("dst", "First word of the result, or the first line that it goes onto without a conversion.")
ANALOG_SRC = analog("src", "First word of the operand, or the first line that it is taken from without a conversion.")
A, B = vector("a", "First word of the first operand."), vector("b", "First word of the second operand.")
WORDS = size("words", "Words.")
FEATURES = size("features", "Words of a vector.")
VECTORS = size("vectors", "Vectors, one after another.", default=1)
HELD = size("steps", "Steps held.")
CHANNEL = index("channel", "Message channel.")
NODE = size("node", "First state node of the bank.", low=0)
LINE = index("line", "Which of the core's lines.")
END = Field("end", Kind.LABEL, 24, "First place after the body.")
STRIDE = size("stride", "Steps from one round to the next.", default=1)
OFFSET = size("offset", "Step of the first round.", default=0, low=0)
BEFORE = flag("before", "Give the states as the event before left them.")
COMPLEX = flag("complex", "The vectors are halves, real parts then imaginary parts.")
TIMED = flag("timed", "The elapsed time is the word `dt`, else one step.")
DT = Field("dt", Kind.ADDR, ADDRESS, "Time elapsed since the event before.", space="v", default=0)
CLOCK = index("clock", "Which of the core's clocks.")
BANK = Field("bank", Kind.ENUM, 2, "The kind of state node.", choices=("volatile", "digital"))
