"""The instruction set of the crossbar compute-in-memory chip (reconstructed; the published chip's own is not known)."""

from __future__ import annotations

from isa.spec import Field, InstructionSet, InstructionSpec, Kind, Term

_ADDRESS, _SIZE, _INDEX = 20, 20, 16

UNARY_FUNCTIONS = (
    *("identity", "neg", "abs", "sign", "square", "sqrt", "rsqrt", "reciprocal", "exp", "log", "sin", "cos", "tanh"),
    *("erf", "sigmoid", "silu", "relu", "gelu", "gelu_tanh", "softplus", "elu", "selu", "hardsigmoid", "hardswish"),
    *("mish", "softsign", "floor", "ceil", "round", "heaviside", "heaviside_or_equal"),
)
BINARY_FUNCTIONS = ("add", "sub", "mul", "div", "max", "min", "pow", "greater", "greater_or_equal", "equal")
REDUCE_FUNCTIONS = ("sum", "mean", "max", "min", "prod")


def _vector(name: str, doc: str) -> Field:
    return Field(name, Kind.ADDR, _ADDRESS, doc, space="v")


def _size(name: str, doc: str, default: int | None = None, low: int = 1) -> Field:
    return Field(name, Kind.IMM, _SIZE, doc, low=low, default=default)


def _index(name: str, doc: str, default: int | None = None) -> Field:
    return Field(name, Kind.IMM, _INDEX, doc, default=default)


def _flag(name: str, doc: str) -> Field:
    return Field(name, Kind.FLAG, 1, doc)


def _data(name: str, doc: str, default: str | None = None) -> Field:
    return Field(name, Kind.DATA, 16, doc, default=default)


_DST = _vector("dst", "First word of the result.")
_SRC = _vector("src", "First word of the operand.")
_A, _B = _vector("a", "First word of the first operand."), _vector("b", "First word of the second operand.")
_WORDS = _size("words", "Words.")
_CHANNEL = _index("channel", "Message channel.")
_NODE = _size("node", "First state node of the bank.", low=0)
_LINE = _index("line", "Which of the core's lines.")
_END = Field("end", Kind.LABEL, 24, "First place after the body.")
_STRIDE = _size("stride", "Steps from one round to the next.", default=1)
_OFFSET = _size("offset", "Step of the first round.", default=0, low=0)
_BEFORE = _flag("before", "Give the states as the event before left them.")
_COMPLEX = _flag("complex", "The vectors are halves, real parts then imaginary parts.")
_TIMED = _flag("timed", "The elapsed time is the word `dt`, else one step.")
_DT = Field("dt", Kind.ADDR, _ADDRESS, "Time elapsed since the event before.", space="v", default=0)
_CLOCK = _index("clock", "Which of the core's clocks.")
_BANK = Field("bank", Kind.ENUM, 2, "The kind of state node.", choices=("volatile", "digital"))

_CONTROL = (
    InstructionSpec("halt", 0x00, (), "control", "The core stops."),
    InstructionSpec(
        "loop",
        0x01,
        (Field("count", Kind.REG, 5, "Register with the number of steps."), _STRIDE, _OFFSET, _END),
        "control",
        "Run the body for the steps offset, offset + stride, ... below `count`.",
        "The body is an event handler: it runs when its messages are there, and the core sleeps until then.",
    ),
    InstructionSpec(
        "every",
        0x02,
        (_STRIDE, _OFFSET, _END),
        "control",
        "Within a loop, run the body at the steps offset, offset + stride, ... only.",
        "Stride and offset count the loop register's steps, not the rounds of an enclosing body.",
    ),
)

_MESSAGES = (
    InstructionSpec(
        "recv",
        0x08,
        (_DST, _WORDS, _CHANNEL),
        "message",
        "Sleep until a message comes on a channel and take it.",
    ),
    InstructionSpec(
        "send",
        0x09,
        (_SRC, _WORDS, _CHANNEL, _index("core", "The core that receives.")),
        "message",
        "Send words to a core (or to the core itself, for a later step).",
    ),
    InstructionSpec("emit", 0x0A, (_SRC, _WORDS, _CHANNEL), "message", "Send words to the host."),
    InstructionSpec(
        "collect",
        0x0D,
        (_DST, _WORDS, _CHANNEL, _size("copies", "Channels that take turns.", low=2)),
        "message",
        "Sleep until the step's message comes on the channel whose turn it is, and take it.",
        "Copies of a layer take turns: round k of this loop takes from channel + k mod copies.",
    ),
    InstructionSpec(
        "keep",
        0x0B,
        (_SRC, _WORDS, _index("buffer", "Which of the core's stream buffers.")),
        "message",
        "Append a step's words to a stream buffer, for another sweep over the sequence.",
    ),
    InstructionSpec(
        "fetch",
        0x0C,
        (
            _DST,
            _WORDS,
            _index("buffer", "Which of the core's stream buffers."),
            _flag("backward", "From the last step to the first."),
        ),
        "message",
        "Read the next step's words from a stream buffer.",
    ),
)

_MOVES = (
    InstructionSpec(
        "load", 0x10, (_DST, _data("data", "The constant.")), "vector", "Copy a constant into the registers."
    ),
    InstructionSpec(
        "fill",
        0x11,
        (_DST, _WORDS, Field("value", Kind.FLOAT, 64, "What every word becomes.", default=0.0)),
        "vector",
        "Set words to one value.",
    ),
    InstructionSpec("copy", 0x12, (_DST, _SRC, _WORDS), "vector", "Copy words."),
    InstructionSpec(
        "gather",
        0x13,
        (_DST, _SRC, _size("span", "Words of the operand."), _data("index", "Offset of each word, int64.")),
        "vector",
        "dst[i] = src[index[i]]: slices, transposes, broadcasts.",
    ),
    InstructionSpec(
        "embed",
        0x14,
        (_DST, _SRC, _size("count", "Words that are row numbers."), _data("table", "(rows, features).")),
        "vector",
        "Put the named row of a table for every word; a negative number counts from the end.",
    ),
)

_CROSSBAR = (
    InstructionSpec(
        "program",
        0x20,
        (
            _index("array", "Which of the core's arrays."),
            _index("row", "First row."),
            _index("col", "First column of weights."),
            _data("weights", "(rows, columns) of what the conductances shall mean."),
            _data("scale", "(columns,) weight that full conductance stands for."),
            _flag("erase", "Cells that hold something are written again."),
        ),
        "programming",
        "Write weights into an array, each as a differential pair of devices; once, or again before a sweep.",
    ),
    InstructionSpec(
        "mvm",
        0x21,
        (
            _DST,
            _SRC,
            _index("array", "Which of the core's arrays."),
            _index("row", "First row driven."),
            _size("rows", "Rows driven."),
            _index("col", "First column read."),
            _size("cols", "Columns read."),
            _size("vectors", "Vectors, one after another.", default=1),
            _size("src_step", "Words from one input vector to the next.", default=0, low=0),
            _size("dst_step", "Words from one output vector to the next.", default=0, low=0),
            Field(
                "input_range", Kind.FLOAT, 32, "Largest |input| of the DAC; 0: as the architecture says.", default=0.0
            ),
            Field(
                "output_range", Kind.FLOAT, 32, "Largest |sum| of the ADC; 0: as the architecture says.", default=0.0
            ),
            _flag("accumulate", "Add to the result digitally instead of replacing it."),
        ),
        "crossbar",
        "Drive rows with a vector and read the columns: DAC, array, ADC, digital scale.",
    ),
)

_STATES = (
    InstructionSpec(
        "preset",
        0x28,
        (_SRC, _WORDS, _NODE, _BANK),
        "state",
        "Set states, at the beginning of a sequence.",
    ),
    InstructionSpec("read", 0x29, (_DST, _WORDS, _NODE, _BANK), "state", "Read states as they stand."),
    InstructionSpec(
        "charge",
        0x2A,
        (
            _DST,
            _SRC,
            _WORDS,
            _NODE,
            _data("rates", "(words,) logarithm of the decay in one unit of time, below zero."),
            Field("window", Kind.FLOAT, 32, "Largest |state| of the device; 0: not known.", default=0.0),
            _DT,
            _TIMED,
            _BEFORE,
        ),
        "state",
        "Volatile bank: the states decay by the elapsed time, x <- exp(rate dt) x + src; read them.",
    ),
    InstructionSpec(
        "dstate",
        0x2B,
        (
            _DST,
            _SRC,
            _WORDS,
            _NODE,
            _data("decay", "(words,) Abar, or its logarithm in one unit of time where `timed`; halves where complex."),
            _DT,
            _TIMED,
            _BEFORE,
            _COMPLEX,
        ),
        "state",
        "Digital bank: x <- Abar x + src, then read it.",
    ),
    InstructionSpec(
        "sel",
        0x2C,
        (_DST, _A, _SRC, _WORDS, _NODE, _BEFORE, _COMPLEX),
        "state",
        "Digital bank with a streamed decay: x <- a x + src, then read it.",
    ),
    InstructionSpec(
        "spike",
        0x2F,
        (
            _DST,
            _SRC,
            _WORDS,
            _NODE,
            _data("rows", "(5, words) a, theta, and after firing: the decay, what `src` counts, what is added."),
            _flag("or_equal", "A potential equal to theta fires."),
            _flag("immediate", "A potential that is reached is reset in the same step, after it was read."),
            _BEFORE,
        ),
        "state",
        "Digital bank, neurons: x <- a x + src, or the fired form of it where x was above theta, then read it.",
    ),
    InstructionSpec(
        "tick",
        0x2D,
        (_CLOCK, _DT, _TIMED),
        "control",
        "Advance a clock by the elapsed time.",
    ),
    InstructionSpec(
        "rot",
        0x2E,
        (
            _DST,
            _SRC,
            _WORDS,
            _data("turns", "(words/2,) revolutions in one unit of time."),
            _CLOCK,
            _flag("backward", "Rotate by minus the angle."),
            _BEFORE,
        ),
        "vector",
        "Rotating frame: halves re|im times exp(2 pi i turns t), t the clock (with `before`: at the event before).",
    ),
)

_VECTOR = (
    InstructionSpec(
        "unary",
        0x30,
        (_DST, _SRC, _WORDS, Field("fn", Kind.ENUM, 6, "The table.", choices=UNARY_FUNCTIONS)),
        "vector",
        "Look every word up in a table.",
    ),
    InstructionSpec(
        "binary",
        0x31,
        (
            _DST,
            _A,
            _B,
            _WORDS,
            _size("a_words", "Words of `a`, taken in turn; 0: as many as the result.", default=0, low=0),
            _size("a_repeat", "Results that take the same word of `a`.", default=1),
            _size("b_words", "Words of `b`, taken in turn; 0: as many as the result.", default=0, low=0),
            _size("b_repeat", "Results that take the same word of `b`.", default=1),
            Field("fn", Kind.ENUM, 6, "The function.", choices=BINARY_FUNCTIONS),
        ),
        "vector",
        "dst = fn(a, b), word by word; dst[i] takes a[(i / a_repeat) mod a_words].",
    ),
    InstructionSpec(
        "gate",
        0x32,
        (_DST, _A, _B, _WORDS, Field("fn", Kind.ENUM, 6, "The table.", choices=UNARY_FUNCTIONS)),
        "vector",
        "dst = a fn(b), word by word.",
    ),
    InstructionSpec(
        "select",
        0x33,
        (_DST, _vector("condition", "First word of the condition."), _A, _B, _WORDS),
        "vector",
        "dst = a where the condition is not zero, else b.",
    ),
    InstructionSpec(
        "norm",
        0x34,
        (
            _DST,
            _SRC,
            _size("features", "Words of a vector."),
            _size("vectors", "Vectors, one after another.", default=1),
            _size("groups", "Equal groups of a vector, normalised apart.", default=1),
            Field("kind", Kind.ENUM, 2, "Whether the mean is subtracted.", choices=("layer", "rms")),
            Field("epsilon", Kind.FLOAT, 64, "Added to the variance."),
            _data("scale", "(features,)", default=""),
            _data("shift", "(features,)", default=""),
        ),
        "vector",
        "Layer or RMS norm of every vector.",
    ),
    InstructionSpec(
        "softmax",
        0x35,
        (
            _DST,
            _SRC,
            _size("features", "Words of a vector."),
            _size("vectors", "Vectors, one after another.", default=1),
            _flag("log", "Log-softmax."),
        ),
        "vector",
        "Softmax of every vector.",
    ),
    InstructionSpec(
        "reduce",
        0x36,
        (
            _DST,
            _SRC,
            _size("outer", "Results before the reduced axis.", default=1),
            _size("words", "Words that become one."),
            _size("inner", "Results after the reduced axis.", default=1),
            Field("fn", Kind.ENUM, 4, "The reduction.", choices=REDUCE_FUNCTIONS),
        ),
        "vector",
        "Reduce the middle one of three axes.",
    ),
    InstructionSpec(
        "contract",
        0x37,
        (
            _DST,
            _A,
            _B,
            _size("groups", "Products, one after another.", default=1),
            _size("rows", "Rows of `a`."),
            _size("inner", "Columns of `a`, rows of `b`."),
            _size("cols", "Columns of `b`."),
        ),
        "vector",
        "Matrix products of two computed operands.",
    ),
)

_TIME = (
    InstructionSpec(
        "fir",
        0x40,
        (_DST, _SRC, _WORDS, _LINE, _data("kernel", "(words, taps), tap 0 meets the present input.")),
        "vector",
        "Filter every word over time: dst = sum_j kernel_j src_{k-j}; the line holds the last inputs.",
    ),
    InstructionSpec(
        "delay",
        0x41,
        (_DST, _SRC, _WORDS, _LINE, _size("steps", "Steps later.")),
        "vector",
        "Give the words of some steps ago, zeros first.",
    ),
    InstructionSpec(
        "prime",
        0x42,
        (_SRC, _WORDS, _LINE, _size("steps", "Steps held.")),
        "vector",
        "Set a line's past inputs, (words, steps), oldest first.",
    ),
    InstructionSpec(
        "tail",
        0x43,
        (_DST, _WORDS, _LINE, _size("steps", "Steps held.")),
        "vector",
        "Read a line's past inputs, (words, steps), oldest first.",
    ),
    InstructionSpec(
        "pool",
        0x44,
        (
            _SRC,
            _WORDS,
            _LINE,
            Field("kind", Kind.ENUM, 3, "How.", choices=("sum", "mean", "max", "first", "last")),
        ),
        "vector",
        "Fold the words into an accumulator over time.",
    ),
    InstructionSpec("pooled", 0x45, (_DST, _WORDS, _LINE), "vector", "Read an accumulator."),
    InstructionSpec(
        "window",
        0x46,
        (
            _SRC,
            _WORDS,
            _LINE,
            _size("steps", "Rounds of a window."),
            Field("kind", Kind.ENUM, 3, "How.", choices=("sum", "mean", "max")),
        ),
        "vector",
        "Fold the words into an accumulator that begins anew every `steps` rounds.",
    ),
    InstructionSpec(
        "windowed",
        0x47,
        (_DST, _WORDS, _LINE),
        "vector",
        "Take the value of a window that is full.",
    ),
)

CIM = InstructionSet(
    name="cim",
    version="1.0",
    doc="Programs are event-driven: a core sleeps in `recv` until a message comes, and states decay meanwhile. "
    "Section `coreN` is what core N runs for every sequence, `coreN.setup` what it runs once, when the chip is loaded.",
    registers=(Term("rT", "Steps of the sequence."), Term("rB", "Samples in the batch.")),
    spaces=(Term("v", "Vector registers of a core, in words."),),
    timings=(
        Term("control", "The sequencer alone."),
        Term("message", "The mesh, by words and hops."),
        Term("programming", "Write pulses, once."),
        Term("crossbar", "A pass through an array and its converters."),
        Term("state", "State nodes: a charge and a read, or multipliers."),
        Term("vector", "The vector unit, by words."),
    ),
    word_bytes=40,
    instructions=(*_CONTROL, *_MESSAGES, *_MOVES, *_CROSSBAR, *_STATES, *_VECTOR, *_TIME),
)
