"""Instructions of the crossbar chip's vector unit: moves, functions, and what carries words through time."""

from __future__ import annotations

from isa.cim_fields import DST, FEATURES, HELD, LINE, SRC, VECTORS, WORDS, A, B, data, flag, size, vector
from isa.fields import Field, Kind
from isa.spec import InstructionSpec

UNARY_FUNCTIONS = (
    *("identity", "neg", "abs", "sign", "square", "sqrt", "rsqrt", "reciprocal", "exp", "log", "sin", "cos", "tanh"),
    *("erf", "sigmoid", "silu", "relu", "gelu", "gelu_tanh", "softplus", "elu", "selu", "hardsigmoid", "hardswish"),
    *("mish", "softsign", "floor", "ceil", "round", "heaviside", "heaviside_or_equal"),
    *("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh"),
)
BINARY_FUNCTIONS = ("add", "sub", "mul", "div", "max", "min", "pow", "greater", "greater_or_equal", "equal")
REDUCE_FUNCTIONS = ("sum", "mean", "max", "min", "prod")
TABLE = Field("fn", Kind.ENUM, 6, "The table.", choices=UNARY_FUNCTIONS)


def _taken_in_turn(name: str) -> tuple[Field, Field]:
    return (
        size(f"{name}_words", f"Words of `{name}`, taken in turn; 0: as many as the result.", default=0, low=0),
        size(f"{name}_repeat", f"Results that take the same word of `{name}`.", default=1),
    )


MOVES = (
    InstructionSpec(
        "load", 0x10, (DST, data("data", "The constant.")), "vector", "Copy a constant into the registers."
    ),
    InstructionSpec(
        "fill",
        0x11,
        (DST, WORDS, Field("value", Kind.FLOAT, 64, "What every word becomes.", default=0.0)),
        "vector",
        "Set words to one value.",
    ),
    InstructionSpec("copy", 0x12, (DST, SRC, WORDS), "vector", "Copy words."),
    InstructionSpec(
        "gather",
        0x13,
        (DST, SRC, size("span", "Words of the operand."), data("index", "Offset of each word, int64.")),
        "vector",
        "dst[i] = src[index[i]]: slices, transposes, broadcasts.",
    ),
    InstructionSpec(
        "embed",
        0x14,
        (DST, SRC, size("count", "Words that are row numbers."), data("table", "(rows, features).")),
        "vector",
        "Put the named row of a table for every word; a negative number counts from the end.",
    ),
)

VECTOR = (
    InstructionSpec(
        "unary",
        0x30,
        (DST, SRC, WORDS, TABLE),
        "vector",
        "Look every word up in a table.",
    ),
    InstructionSpec(
        "binary",
        0x31,
        (
            DST,
            A,
            B,
            WORDS,
            *_taken_in_turn("a"),
            *_taken_in_turn("b"),
            Field("fn", Kind.ENUM, 6, "The function.", choices=BINARY_FUNCTIONS),
        ),
        "vector",
        "dst = fn(a, b), word by word; dst[i] takes a[(i / a_repeat) mod a_words].",
    ),
    InstructionSpec(
        "gate",
        0x32,
        (DST, A, B, WORDS, TABLE),
        "vector",
        "dst = a fn(b), word by word.",
    ),
    InstructionSpec(
        "select",
        0x33,
        (DST, vector("condition", "First word of the condition."), A, B, WORDS),
        "vector",
        "dst = a where the condition is not zero, else b.",
    ),
    InstructionSpec(
        "norm",
        0x34,
        (
            DST,
            SRC,
            FEATURES,
            VECTORS,
            size("groups", "Equal groups of a vector, normalised apart.", default=1),
            Field("kind", Kind.ENUM, 2, "Whether the mean is subtracted.", choices=("layer", "rms")),
            Field("epsilon", Kind.FLOAT, 64, "Added to the variance."),
            data("scale", "(features,)", default=""),
            data("shift", "(features,)", default=""),
        ),
        "vector",
        "Layer or RMS norm of every vector.",
    ),
    InstructionSpec(
        "softmax",
        0x35,
        (
            DST,
            SRC,
            FEATURES,
            VECTORS,
            flag("log", "Log-softmax."),
        ),
        "vector",
        "Softmax of every vector.",
    ),
    InstructionSpec(
        "reduce",
        0x36,
        (
            DST,
            SRC,
            size("outer", "Results before the reduced axis.", default=1),
            size("words", "Words that become one."),
            size("inner", "Results after the reduced axis.", default=1),
            Field("fn", Kind.ENUM, 4, "The reduction.", choices=REDUCE_FUNCTIONS),
        ),
        "vector",
        "Reduce the middle one of three axes.",
    ),
    InstructionSpec(
        "contract",
        0x37,
        (
            DST,
            A,
            B,
            size("groups", "Products, one after another.", default=1),
            size("rows", "Rows of `a`."),
            size("inner", "Columns of `a`, rows of `b`."),
            size("cols", "Columns of `b`."),
        ),
        "vector",
        "Matrix products of two computed operands.",
    ),
)

TIME = (
    InstructionSpec(
        "fir",
        0x40,
        (DST, SRC, WORDS, LINE, data("kernel", "(words, taps), tap 0 meets the present input.")),
        "vector",
        "Filter every word over time: dst = sum_j kernel_j src_{k-j}; the line holds the last inputs.",
    ),
    InstructionSpec(
        "delay",
        0x41,
        (DST, SRC, WORDS, LINE, size("steps", "Steps later.")),
        "vector",
        "Give the words of some steps ago, zeros first.",
    ),
    InstructionSpec(
        "prime",
        0x42,
        (SRC, WORDS, LINE, HELD),
        "vector",
        "Set a line's past inputs, (words, steps), oldest first.",
    ),
    InstructionSpec(
        "tail",
        0x43,
        (DST, WORDS, LINE, HELD),
        "vector",
        "Read a line's past inputs, (words, steps), oldest first.",
    ),
    InstructionSpec(
        "pool",
        0x44,
        (
            SRC,
            WORDS,
            LINE,
            Field("kind", Kind.ENUM, 3, "How.", choices=("sum", "mean", "max", "first", "last")),
        ),
        "vector",
        "Fold the words into an accumulator over time.",
    ),
    InstructionSpec("pooled", 0x45, (DST, WORDS, LINE), "vector", "Read an accumulator."),
    InstructionSpec(
        "window",
        0x46,
        (
            SRC,
            WORDS,
            LINE,
            size("steps", "Rounds of a window."),
            Field("kind", Kind.ENUM, 3, "How.", choices=("sum", "mean", "max")),
        ),
        "vector",
        "Fold the words into an accumulator that begins anew every `steps` rounds.",
    ),
    InstructionSpec(
        "windowed",
        0x47,
        (DST, WORDS, LINE),
        "vector",
        "Take the value of a window that is full.",
    ),
)
