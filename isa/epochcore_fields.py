"""Operands that many instructions of the systolic array have."""

from __future__ import annotations

from isa.fields import Field, Kind

UNARY = (
    *("identity", "neg", "abs", "sign", "square", "sqrt", "rsqrt", "reciprocal", "exp", "log", "sin", "cos", "tanh"),
    *("erf", "sigmoid", "silu", "relu", "gelu", "gelu_tanh", "softplus", "elu", "selu", "hardsigmoid", "hardswish"),
    *("mish", "softsign", "floor", "ceil", "round", "heaviside", "heaviside_or_equal"),
    *("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh"),
)
BINARY = ("add", "sub", "mul", "div", "max", "min", "pow", "greater", "greater_or_equal", "equal")
REDUCE = ("sum", "mean", "max", "min", "prod")
PATTERNS = ("each", "one", "tile", "repeat")
MODES = ("mac", "fri", "fri.x", "tri", "tri.x", "sel", "mac.os")
ENGINES = ("load", "preload", "compute", "vector", "store")


def spad(name: str, doc: str) -> Field:
    """A place in the scratchpad."""
    return Field(name, Kind.ADDR, 22, doc, space="spad", unit="words")


def param(name: str, doc: str) -> Field:
    """A place in the memory of parameters."""
    return Field(name, Kind.ADDR, 26, doc, space="param", unit="words")


def words(doc: str, name: str = "words", bits: int = 22, low: int = 1) -> Field:
    """How many words; 0 by default where they may be none."""
    return Field(name, Kind.IMM, bits, doc, low=low, default=None if low else 0, unit="words")


def flag(name: str, doc: str) -> Field:
    """A word that stands in the text or does not."""
    return Field(name, Kind.FLAG, 1, doc)


def held(name: str) -> Field:
    """The flag of an operand that is one row for all steps."""
    return flag(f"{name}_held", f"`{name}` is one row, the same at every step.")


def pattern(name: str, bits: int = 2) -> Field:
    """Which word of an operand meets which word of the result."""
    doc = (
        f"How `{name}` meets word f of the result: `each` with its word f, `one` with its only word, `tile` with "
        "word f mod `inner`, `repeat` with word f div `inner`."
    )
    return Field(f"{name}_pattern", Kind.ENUM, bits, doc, choices=PATTERNS, default="each")


STEPS = Field("steps", Kind.REG, 4, "Register with the number of steps.")
DST = spad("dst", "First word of the result.")
SRC = spad("src", "First word of the operand.")
STATE = spad("state", "First word of what is carried from chunk to chunk: one row, read and then replaced.")
DST_PITCH = words("Words from one step of the result to the next.", "dst_pitch")
SRC_PITCH = words("Words from one step of the operand to the next.", "src_pitch")
INNER = Field("inner", Kind.IMM, 14, "Period of `tile`, length of `repeat`.", low=1, default=1, unit="words")
REVERSE = flag("reverse", "Walk the steps from the last to the first.")
BEFORE = flag("before", "Read the state out before it is updated.")
COMPLEX = flag("complex", "Values are complex: a second half of every row is the imaginary part.")
