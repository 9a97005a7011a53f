"""The instruction set of EpochCore, a systolic array with states in place (reconstructed: the paper leaves it open).

An instruction covers a tile over a stretch of time. Lengths are in machine registers: the code is the same
for every sequence and batch. A value that changes with time lies in the scratchpad as `steps` rows of `pitch`
words; a value given once a sequence is one row. A complex vector is its real half, then its imaginary half.
"""

from __future__ import annotations

from dataclasses import replace

from isa.spec import Field, InstructionSet, InstructionSpec, Kind, Term

UNARY = (
    *("identity", "neg", "abs", "sign", "square", "sqrt", "rsqrt", "reciprocal", "exp", "log", "sin", "cos", "tanh"),
    *("erf", "sigmoid", "silu", "relu", "gelu", "gelu_tanh", "softplus", "elu", "selu", "hardsigmoid", "hardswish"),
    *("mish", "softsign", "floor", "ceil", "round", "heaviside", "heaviside_or_equal"),
)
BINARY = ("add", "sub", "mul", "div", "max", "min", "pow", "greater", "greater_or_equal", "equal")
REDUCE = ("sum", "mean", "max", "min", "prod")
PATTERNS = ("each", "one", "tile", "repeat")
MODES = ("mac", "fri", "fri.x", "tri", "tri.x", "sel", "mac.os")
ENGINES = ("load", "preload", "compute", "vector", "store")

REGISTERS = (
    Term("one", "Always 1: the steps of a value that is given once a sequence."),
    Term("rT", "Steps of the sequence at the model's input rate, set by the host."),
    Term("rB", "Samples in the batch, set by the host."),
    Term("n0", "Steps of the present chunk at the model's input rate, set by `chunks`."),
    *(Term(f"n{i}", "Steps of the present chunk at a lower rate, set by `rate`.") for i in range(1, 8)),
)


def _spad(name: str, doc: str) -> Field:
    return Field(name, Kind.ADDR, 22, doc, space="spad", unit="words")


def _param(name: str, doc: str) -> Field:
    return Field(name, Kind.ADDR, 26, doc, space="param", unit="words")


def _words(doc: str, name: str = "words", bits: int = 17) -> Field:
    return Field(name, Kind.IMM, bits, doc, low=1, unit="words")


def _flag(name: str, doc: str) -> Field:
    return Field(name, Kind.FLAG, 1, doc)


def _held(name: str) -> Field:
    return _flag(f"{name}_held", f"`{name}` is one row, the same at every step.")


def _pattern(name: str, bits: int = 2) -> Field:
    doc = (
        f"How `{name}` meets word f of the result: `each` with its word f, `one` with its only word, `tile` with "
        "word f mod `inner`, `repeat` with word f div `inner`."
    )
    return Field(f"{name}_pattern", Kind.ENUM, bits, doc, choices=PATTERNS, default="each")


STEPS = Field("steps", Kind.REG, 4, "Register with the number of steps.")
DST = _spad("dst", "First word of the result.")
SRC = _spad("src", "First word of the operand.")
STATE = _spad("state", "First word of what is carried from chunk to chunk: one row, read and then replaced.")
DST_PITCH = _words("Words from one step of the result to the next.", "dst_pitch")
SRC_PITCH = _words("Words from one step of the operand to the next.", "src_pitch")
INNER = Field("inner", Kind.IMM, 14, "Period of `tile`, length of `repeat`.", low=1, default=1, unit="words")
REVERSE = _flag("reverse", "Walk the steps from the last to the first.")
BEFORE = _flag("before", "Read the state out before it is updated.")
COMPLEX = _flag("complex", "Values are complex: a second half of every row is the imaginary part.")

CONTROL = (
    InstructionSpec("halt", 0x00, (), "control", "The machine stops."),
    InstructionSpec(
        "samples",
        0x01,
        (Field("end", Kind.LABEL, 24, "First place after the code that is run."),),
        "control",
        "Run the code up to `end` once for every sample of the batch, rB times.",
        "Samples do not see each other's values; a simulator may run them side by side.",
    ),
    InstructionSpec(
        "chunks",
        0x02,
        (
            Field("limit", Kind.IMM, 24, "Most steps in a chunk: what the scratchpad has room for.", low=1),
            Field("end", Kind.LABEL, 24, "First place after the code that is run."),
            _flag("backward", "Chunks come from the end of the sequence to its beginning."),
            Field(
                "multiple", Kind.IMM, 16, "Every chunk but the last one in time has a multiple of it.", default=1, low=1
            ),
        ),
        "control",
        "Run the code up to `end` once for every chunk of the rT steps: as few as `limit` allows, of about equal n0.",
        "As RISC-V's vsetvl does for vectors; rT = 0 runs nothing. Loops over chunks do not nest.",
    ),
    InstructionSpec(
        "rate",
        0x03,
        (
            Field("dst", Kind.REG, 4, "Register n1..n7 that counts the steps at the lower rate."),
            Field("src", Kind.REG, 4, "Register that counts the steps at the higher rate."),
            Field("stride", Kind.IMM, 16, "Steps that become one.", low=1),
            Field("offset", Kind.IMM, 16, "Which of them, where one is taken.", default=0),
            _flag("windows", "A step is complete with the last of its `stride`, not with the step that is taken."),
        ),
        "control",
        "Set `dst` to the steps of the present chunk at a lower rate.",
        "After t steps of `src` there are max(0, ceil((t - offset) / stride)) steps of `dst`, with `windows` "
        "floor(t / stride); a chunk holds the difference between its end and its start.",
    ),
)

TRANSFER = (
    InstructionSpec(
        "fetch",
        0x10,
        (_param("dst", "First word in the parameter memory."), Field("src", Kind.DATA, 16, "The constant.")),
        "load",
        "Copy a constant from DRAM into the parameter memory, where it does not lie there already.",
    ),
    InstructionSpec(
        "const",
        0x11,
        (DST, Field("src", Kind.DATA, 16, "The constant."), _words("Words of the constant.")),
        "load",
        "Copy a constant from DRAM into the scratchpad, as one row for all samples.",
    ),
    InstructionSpec(
        "load",
        0x12,
        (
            DST,
            Field("src", Kind.ADDR, 12, "Number of the stream in the host's table.", space="stream"),
            _words("Words a step."),
            STEPS,
            _flag("mirror", "The stream is read from its last step to its first."),
        ),
        "load",
        "Copy the present chunk of a stream, or with `one` a value of the sequence, from DRAM into the scratchpad.",
    ),
    InstructionSpec(
        "store",
        0x20,
        (
            Field("dst", Kind.ADDR, 12, "Number of the stream in the host's table.", space="stream"),
            SRC,
            _words("Words a step."),
            STEPS,
        ),
        "store",
        "Copy the present chunk of a stream, or with `one` a value of the sequence, from the scratchpad to DRAM.",
    ),
)

ARRAY = (
    InstructionSpec(
        "preload",
        0x30,
        (
            _param("src", "First word of the parameters: weights by rows, or what the mode needs."),
            _param("scale", "First word of the column scales of integer weights, where `scaled`."),
            _param("bias", "First word of the biases of the columns, where `biased`."),
            Field("rows", Kind.IMM, 12, "Rows of processing elements in use.", low=1),
            Field("cols", Kind.IMM, 12, "Columns in use.", low=1),
            Field("mode", Kind.ENUM, 3, "What the parameters are for.", choices=MODES),
            COMPLEX,
            _flag("scaled", "Products of a column are multiplied by its scale."),
            _flag("biased", "A column starts from its bias."),
        ),
        "preload",
        "Shift parameters into the shadow registers of the array; the next array instruction takes them over.",
        "Runs under the array's computation, and waits until the parameters before have been taken over. With `mac.os` "
        "nothing is shifted in: the weights stream from the parameter memory, and `rows` are the terms of a sum.",
    ),
    InstructionSpec(
        "state.load",
        0x31,
        (SRC, _words("Words of the states: columns times rows, by columns; twice that where complex.", bits=22)),
        "preload",
        "Put states into the shadow registers of the processing elements; the next array instruction takes them over.",
    ),
    InstructionSpec(
        "state.store",
        0x32,
        (DST, _words("Words of the states, as in `state.load`.", bits=22)),
        "compute",
        "Take the states out of the processing elements.",
    ),
    InstructionSpec(
        "mac",
        0x33,
        (DST, DST_PITCH, SRC, SRC_PITCH, STEPS, _flag("accumulate", "Add to the result that is there.")),
        "compute",
        "y = x W (+ bias), `rows` words in and `cols` words out at every step.",
        "The dataflow is that of the preload: weights stay in place with `mac`, results with `mac.os`.",
    ),
    InstructionSpec(
        "fri",
        0x34,
        (
            DST,
            DST_PITCH,
            SRC,
            SRC_PITCH,
            STEPS,
            _flag("accumulate", "Add to the result that is there."),
            REVERSE,
            BEFORE,
        ),
        "compute",
        "State stationary: in a column x <- a x + b u in every row, y = sum of Re(c x) down the column, plus d u.",
        "`cols` words in and out at every step. The FRI-MAC of the paper as we read it.",
    ),
    InstructionSpec(
        "fri.x",
        0x35,
        (DST, DST_PITCH, SRC, SRC_PITCH, STEPS, REVERSE, BEFORE),
        "compute",
        "State stationary: x <- a x + v with a drive of its own and the state itself read out, `cols` states.",
        "A complex row has its imaginary half `pitch` / 2 words after its real half.",
    ),
    InstructionSpec(
        "tri",
        0x38,
        (
            DST,
            DST_PITCH,
            SRC,
            SRC_PITCH,
            STEPS,
            _flag("accumulate", "Add to the result that is there."),
            REVERSE,
            BEFORE,
        ),
        "compute",
        "Liquid-S4: x <- (a + b u) x + b u, otherwise as `fri`.",
        "The TRI-MAC of the paper as we read it.",
    ),
    InstructionSpec(
        "tri.x",
        0x36,
        (DST, DST_PITCH, SRC, SRC_PITCH, STEPS, REVERSE, BEFORE),
        "compute",
        "Liquid-S4 with a drive of its own: x <- (a + v) x + v, otherwise as `fri.x`.",
    ),
    InstructionSpec(
        "sel",
        0x37,
        (
            DST,
            _spad("a", "First word of the decay."),
            SRC,
            _words("Words from one step to the next, the same for all three.", "pitch"),
            STEPS,
            REVERSE,
            BEFORE,
            _held("a"),
        ),
        "compute",
        "Selective: x <- a x + v with the decay streamed beside the drive, otherwise as `fri.x`.",
    ),
)

VECTOR = (
    InstructionSpec(
        "unary",
        0x40,
        (DST, SRC, Field("fn", Kind.ENUM, 5, "The function.", choices=UNARY), _words("Words a step."), STEPS),
        "vector",
        "y = fn(x), word by word.",
    ),
    InstructionSpec(
        "binary",
        0x41,
        (
            DST,
            _spad("a", "First word of the left operand."),
            _spad("b", "First word of the right operand."),
            Field("fn", Kind.ENUM, 4, "The function.", choices=BINARY),
            _words("Words of the result a step."),
            STEPS,
            _held("a"),
            _held("b"),
            _pattern("a"),
            _pattern("b"),
            INNER,
        ),
        "vector",
        "y = fn(a, b), word by word.",
    ),
    InstructionSpec(
        "gate",
        0x42,
        (
            DST,
            _spad("a", "First word of what is gated."),
            _spad("b", "First word of the gate."),
            Field("fn", Kind.ENUM, 5, "The function of the gate.", choices=UNARY),
            _words("Words of the result a step."),
            STEPS,
            _held("a"),
            _held("b"),
            _pattern("a"),
            _pattern("b"),
            INNER,
        ),
        "vector",
        "y = a fn(b), word by word.",
    ),
    InstructionSpec(
        "select",
        0x43,
        (
            DST,
            _spad("c", "First word of the condition."),
            _spad("a", "First word of the operand taken where the condition is not zero."),
            _spad("b", "First word of the operand taken elsewhere."),
            _words("Words of the result a step."),
            STEPS,
            _held("c"),
            _held("a"),
            _held("b"),
        ),
        "vector",
        "y = a where c is not zero, else b, word by word.",
    ),
    InstructionSpec(
        "norm",
        0x44,
        (
            DST,
            SRC,
            _spad("par", "First word of epsilon and, where `affine`, the scales and then the shifts of one vector."),
            Field("kind", Kind.ENUM, 1, "Whether the mean is subtracted.", choices=("layer", "rms")),
            _words("Words a step."),
            Field("vectors", Kind.IMM, 12, "Vectors a step, normalised one by one with the same scales.", low=1),
            Field("groups", Kind.IMM, 12, "Equal groups of a vector, normalised one by one.", low=1),
            STEPS,
            _flag("affine", "Multiply by the scales and add the shifts."),
        ),
        "vector",
        "Layer or RMS normalisation.",
    ),
    InstructionSpec(
        "reduce",
        0x45,
        (
            DST,
            SRC,
            Field("fn", Kind.ENUM, 3, "The function.", choices=REDUCE),
            Field("outer", Kind.IMM, 16, "Blocks of `axis` times `inner` words a step.", low=1),
            Field("axis", Kind.IMM, 16, "Words that become one.", low=1),
            Field("inner", Kind.IMM, 16, "Words between two of them.", low=1),
            STEPS,
        ),
        "vector",
        "Reduce the middle one of three axes: `outer` times `inner` words remain.",
    ),
    InstructionSpec(
        "softmax",
        0x46,
        (
            DST,
            SRC,
            _words("Words a step."),
            Field("vectors", Kind.IMM, 16, "Equal vectors a step, each with a sum of one.", low=1),
            STEPS,
            _flag("log", "The logarithm of the softmax."),
        ),
        "vector",
        "Softmax.",
    ),
    InstructionSpec(
        "copy",
        0x47,
        (DST, DST_PITCH, SRC, SRC_PITCH, _words("Words copied a step."), STEPS, _held("src")),
        "vector",
        "Copy words, between other pitches or from one row to every step.",
    ),
    InstructionSpec(
        "gather",
        0x48,
        (
            DST,
            SRC,
            Field("index", Kind.DATA, 16, "Which word of the operand each word of the result is."),
            SRC_PITCH,
            _words("Words of the result a step."),
            STEPS,
        ),
        "vector",
        "Put words in another order, repeat or leave out some: y[f] = x[index[f]].",
    ),
    InstructionSpec(
        "contract",
        0x49,
        (
            DST,
            _spad("a", "First word of the left operand, (groups, m, k)."),
            _spad("b", "First word of the right operand, (groups, k, n)."),
            Field("groups", Kind.IMM, 14, "Products a step.", low=1),
            Field("m", Kind.IMM, 14, "Rows of the left operand.", low=1),
            Field("k", Kind.IMM, 10, "Terms of a sum.", low=1),
            Field("n", Kind.IMM, 10, "Columns of the right operand.", low=1),
            STEPS,
            _held("a"),
            _held("b"),
        ),
        "vector",
        "Matrix products of two computed values, at every step.",
    ),
    InstructionSpec(
        "lookup",
        0x4A,
        (
            DST,
            SRC,
            Field("table", Kind.DATA, 16, "The table, row by row, in DRAM."),
            _words("Words of a row."),
            _words("Row numbers a step.", "count"),
            STEPS,
        ),
        "load",
        "Rows of a table by computed numbers; a negative one counts from the end.",
    ),
)

TIME = (
    InstructionSpec(
        "scan",
        0x50,
        (
            DST,
            _spad("a", "First word of the decay."),
            SRC,
            STATE,
            _words("Words a step, both halves of a complex vector."),
            STEPS,
            _held("a"),
            COMPLEX,
            REVERSE,
            BEFORE,
        ),
        "vector",
        "x <- a x + v in the vector unit, a step after the other: what an array without state modes is left with.",
    ),
    InstructionSpec(
        "decay",
        0x51,
        (
            DST,
            SRC,
            _spad("rate", "First word of the rates A, one row."),
            _words("Words a step, both halves of a complex vector."),
            STEPS,
            COMPLEX,
        ),
        "vector",
        "y = exp(A dt) with the elapsed time dt, one word a step.",
    ),
    InstructionSpec(
        "pool",
        0x52,
        (
            STATE,
            SRC,
            Field("fn", Kind.ENUM, 2, "What is carried.", choices=("sum", "max", "last", "first")),
            _words("Words a step."),
            STEPS,
        ),
        "vector",
        "Reduce the steps into one row carried from chunk to chunk; `last` and `first` in the order of the chunks.",
    ),
    InstructionSpec(
        "average",
        0x53,
        (DST, SRC, _words("Words."), Field("count", Kind.REG, 4, "Register that counted the steps.")),
        "vector",
        "Divide one row by the number of all steps that a register has counted.",
    ),
    InstructionSpec(
        "fir",
        0x54,
        (
            DST,
            SRC,
            STATE,
            _spad("taps", "First word of the taps, channel by channel, the present one first."),
            _words("Channels.", "channels", 14),
            Field("length", Kind.IMM, 13, "Taps of a channel.", low=1),
            STEPS,
            REVERSE,
        ),
        "vector",
        "y_k = sum_j tap_j u_{k-j}, a channel at a time; carried are the last `length` - 1 inputs of every channel.",
    ),
    InstructionSpec(
        "delay",
        0x55,
        (
            DST,
            SRC,
            STATE,
            _words("Words a step."),
            Field("lag", Kind.IMM, 12, "Steps.", low=1, unit="steps"),
            STEPS,
        ),
        "vector",
        "The stream `lag` steps later; carried are its last `lag` steps.",
    ),
    InstructionSpec(
        "downsample",
        0x56,
        (
            DST,
            SRC,
            STATE,
            Field("kind", Kind.ENUM, 2, "What becomes of a window.", choices=("take", "mean", "sum", "max")),
            _words("Words a step."),
            Field("stride", Kind.IMM, 10, "Steps that become one.", low=1, unit="steps"),
            Field("offset", Kind.IMM, 10, "Which step `take` takes.", default=0, unit="steps"),
            Field("steps", Kind.REG, 4, "Register with the steps of the operand."),
            Field("result", Kind.REG, 4, "Register with the steps of the result."),
        ),
        "vector",
        "Every `stride` steps become one; carried is the window that the chunk's end has cut.",
    ),
    InstructionSpec(
        "unfold",
        0x59,
        (
            DST,
            SRC,
            STATE,
            _words("Channels.", "channels", 14),
            Field("span", Kind.IMM, 12, "Steps of a window.", low=1, unit="steps"),
            Field("past", Kind.IMM, 12, "Steps before a window that its row holds too.", unit="steps"),
            STEPS,
            Field("result", Kind.REG, 4, "Register with the number of windows."),
            REVERSE,
        ),
        "vector",
        "Windows of `span` steps become rows, channel by channel, each with the `past` steps before it.",
        "What a plain array multiplies at once (the `im2col` of convolutions). A window that the sequence's end cuts "
        "is filled up with zeros. Carried are the last `past` steps of every channel, the oldest first; with `reverse` "
        "what came before a window is what follows it.",
    ),
    InstructionSpec(
        "fold",
        0x5A,
        (
            DST,
            SRC,
            _words("Channels.", "channels", 14),
            Field("span", Kind.IMM, 12, "Steps of a window.", low=1, unit="steps"),
            STEPS,
            Field("result", Kind.REG, 4, "Register with the number of windows."),
        ),
        "vector",
        "Rows of `span` steps, channel by channel, become steps again: the inverse of `unfold`.",
    ),
    InstructionSpec(
        "spike",
        0x58,
        (
            DST,
            SRC,
            STATE,
            _spad("rows", "First word of five rows: a, theta, and after firing the decay, the gain of v, the offset."),
            _words("Neurons."),
            STEPS,
            _flag("or_equal", "A potential equal to theta fires."),
            _flag("immediate", "A potential that is reached is reset in the same step, after it was read."),
            REVERSE,
            BEFORE,
        ),
        "vector",
        "Neurons: x <- a x + v, or the fired form of it where x was above theta, a step after the other.",
    ),
    InstructionSpec(
        "fill",
        0x57,
        (DST, _words("Words.", bits=22), Field("value", Kind.FLOAT, 32, "The number.", default=0.0)),
        "vector",
        "Set one row to a number.",
    ),
)

QUEUE = (
    *(
        _flag(f"pop.{engine}", f"Start when a token from the {engine} engine is there, and take it.")
        for engine in ENGINES
    ),
    *(_flag(f"push.{engine}", f"Give the {engine} engine a token at the end.") for engine in ENGINES),
)
SYNC = InstructionSpec(
    "sync",
    0x04,
    (Field("engine", Kind.ENUM, 3, "The engine that runs it.", choices=ENGINES),),
    "sync",
    "Wait until the engine has finished all that is before; then take and give tokens.",
)


def _queued(spec: InstructionSpec) -> InstructionSpec:
    """An instruction of an engine, with its tokens."""
    return replace(spec, fields=(*spec.fields, *QUEUE))


EPOCHCORE = InstructionSet(
    name="epochcore",
    version="2.0",
    doc="Load, preload, compute, vector and store engines, each with a queue in program order. They run apart from "
    "each other and wait for each other by tokens, first in, first out from each engine to each other one (as in VTA, "
    "arXiv 1807.04188). One instruction covers a tile over a stretch of time. "
    "The paper (arXiv 2507.21394) does not publish an instruction set: this one is ours. In an ideal program words are "
    "float32 where the model's are, and float64 around states; in a realistic one words are float32, and the array "
    "computes in the integers of its architecture file.",
    word_bytes=24,
    registers=REGISTERS,
    spaces=(
        Term("spad", "Scratchpad: streams, sequence values and constants, in words."),
        Term("param", "Parameter memory that feeds the array's shadow registers, in words."),
        Term("stream", "The host's table of streams in DRAM, by number."),
    ),
    timings=(
        Term("control", "The sequencer alone: free."),
        Term("sync", "A cycle of the engine that it names."),
        Term("load", "A transfer from DRAM, by latency and bandwidth."),
        Term("preload", "The way into the array's shadow registers, by rows, columns and ports."),
        Term("compute", "A pass over the array, by rows, columns, ports and steps."),
        Term("vector", "The vector unit, by words, width and the function's passes."),
        Term("store", "A transfer to DRAM, by latency and bandwidth."),
    ),
    instructions=CONTROL + tuple(_queued(spec) for spec in (SYNC, *TRANSFER, *ARRAY, *VECTOR, *TIME)),
)
