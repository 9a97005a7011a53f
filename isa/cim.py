"""The instruction set of the crossbar compute-in-memory chip (reconstructed; the published chip's own is not known)."""

from __future__ import annotations

from isa.cim_fields import (
    ANALOG_DST,
    ANALOG_SRC,
    BANK,
    BEFORE,
    CHANNEL,
    CLOCK,
    COMPLEX,
    DST,
    DT,
    END,
    NODE,
    OFFSET,
    SRC,
    STRIDE,
    TIMED,
    WORDS,
    A,
    data,
    flag,
    index,
    size,
)
from isa.cim_vector import MOVES, TIME, VECTOR
from isa.fields import Field, Kind
from isa.spec import InstructionSet, InstructionSpec, Term

_CONTROL = (
    InstructionSpec("halt", 0x00, (), "control", "The core stops."),
    InstructionSpec(
        "loop",
        0x01,
        (Field("count", Kind.REG, 5, "Register with the number of steps."), STRIDE, OFFSET, END),
        "control",
        "Run the body for the steps offset, offset + stride, ... below `count`.",
        "The body is an event handler: it runs when its messages are there, and the core sleeps until then.",
    ),
    InstructionSpec(
        "every",
        0x02,
        (STRIDE, OFFSET, END),
        "control",
        "Within a loop, run the body at the steps offset, offset + stride, ... only.",
        "Stride and offset count the loop register's steps, not the rounds of an enclosing body.",
    ),
)

_MESSAGES = (
    InstructionSpec(
        "recv",
        0x08,
        (DST, WORDS, CHANNEL),
        "message",
        "Sleep until a message comes on a channel and take it.",
    ),
    InstructionSpec(
        "send",
        0x09,
        (SRC, WORDS, CHANNEL, index("core", "The core that receives.")),
        "message",
        "Send words to a core (or to the core itself, for a later step).",
    ),
    InstructionSpec("emit", 0x0A, (SRC, WORDS, CHANNEL), "message", "Send words to the host."),
    InstructionSpec(
        "collect",
        0x0D,
        (DST, WORDS, CHANNEL, size("copies", "Channels that take turns.", low=2)),
        "message",
        "Sleep until the step's message comes on the channel whose turn it is, and take it.",
        "Copies of a layer take turns: round k of this loop takes from channel + k mod copies.",
    ),
    InstructionSpec(
        "keep",
        0x0B,
        (SRC, WORDS, index("buffer", "Which of the core's stream buffers.")),
        "message",
        "Append a step's words to a stream buffer, for another sweep over the sequence.",
    ),
    InstructionSpec(
        "fetch",
        0x0C,
        (
            DST,
            WORDS,
            index("buffer", "Which of the core's stream buffers."),
            flag("backward", "From the last step to the first."),
        ),
        "message",
        "Read the next step's words from a stream buffer.",
    ),
)

_CROSSBAR = (
    InstructionSpec(
        "program",
        0x20,
        (
            index("array", "Which of the core's arrays."),
            index("row", "First row."),
            index("col", "First column of weights."),
            data("weights", "(rows, columns) of what the conductances shall mean."),
            data("scale", "(columns,) weight that full conductance stands for."),
            data(
                "unit", "(columns,) what one of whole weights stands for; none: weights are what they say.", default=""
            ),
            flag("erase", "Cells that hold something are written again."),
        ),
        "programming",
        "Write weights into an array, each as a differential pair of devices; once, or again before a sweep.",
    ),
    InstructionSpec(
        "mvm",
        0x21,
        (
            ANALOG_DST,
            ANALOG_SRC,
            index("array", "Which of the core's arrays."),
            index("row", "First row driven."),
            size("rows", "Rows driven."),
            index("col", "First column read."),
            size("cols", "Columns read."),
            size("vectors", "Vectors, one after another.", default=1),
            size("src_step", "Words from one input vector to the next.", default=0, low=0),
            size("dst_step", "Words from one output vector to the next.", default=0, low=0),
            Field(
                "input_range",
                Kind.FLOAT,
                32,
                "Largest |input| of the DAC, or |state| of a line that drives a row; 0: as the architecture says, on "
                "lines each vector's own (programs for perfect devices carry none).",
                default=0.0,
            ),
            Field(
                "output_range", Kind.FLOAT, 32, "Largest |sum| of the ADC; 0: as the architecture says.", default=0.0
            ),
            flag("accumulate", "Add to the result (digitally, or currents on a line) instead of replacing it."),
        ),
        "crossbar",
        "Drive rows with a vector and read the columns: DAC, array, ADC, digital scale.",
        "Onto lines `a[...]` goes the columns' current, through no ADC and to no digital scale: one full conductance "
        "for all columns, a DAC range of the program's, single pairs with analog inputs. From lines that `charge` "
        "drives the states drive the rows, through no DAC.",
    ),
)

ROUNDINGS = ("nearest", "floor", "ceil")
_STATES = (
    InstructionSpec(
        "preset",
        0x28,
        (SRC, WORDS, NODE, BANK),
        "state",
        "Set states, at the beginning of a sequence.",
    ),
    InstructionSpec("read", 0x29, (DST, WORDS, NODE, BANK), "state", "Read states as they stand."),
    InstructionSpec(
        "charge",
        0x2A,
        (
            ANALOG_DST,
            ANALOG_SRC,
            WORDS,
            NODE,
            data("rates", "(words,) logarithm of the decay in one unit of time, below zero."),
            Field("window", Kind.FLOAT, 32, "Largest |state| of the device; 0: not known.", default=0.0),
            DT,
            TIMED,
            BEFORE,
        ),
        "state",
        "Volatile bank: the states decay by the elapsed time, x <- exp(rate dt) x + src; read them.",
        "Lines `a[...]` as `src`: columns' currents charge the nodes. As `dst`: the nodes drive lines.",
    ),
    InstructionSpec(
        "dstate",
        0x2B,
        (
            DST,
            SRC,
            WORDS,
            NODE,
            data("decay", "(words,) Abar, or its logarithm in one unit of time where `timed`; halves where complex."),
            DT,
            TIMED,
            BEFORE,
            COMPLEX,
        ),
        "state",
        "Digital bank: x <- Abar x + src, then read it.",
    ),
    InstructionSpec(
        "sel",
        0x2C,
        (DST, A, SRC, WORDS, NODE, BEFORE, COMPLEX),
        "state",
        "Digital bank with a streamed decay: x <- a x + src, then read it.",
    ),
    InstructionSpec(
        "spike",
        0x2F,
        (
            DST,
            SRC,
            WORDS,
            NODE,
            data("rows", "(5, words) a, theta, and after firing: the decay, what `src` counts, what is added."),
            flag("or_equal", "A potential equal to theta fires."),
            flag("immediate", "A potential that is reached is reset in the same step, after it was read."),
            BEFORE,
        ),
        "state",
        "Digital bank, neurons: x <- a x + src, or the fired form of it where x was above theta, then read it.",
    ),
    InstructionSpec(
        "rounded",
        0x27,
        (
            DST,
            SRC,
            WORDS,
            NODE,
            data("rows", "(1 + 5 n, words) a, then scale, shift, zero, low, high for each of n places that round."),
            flag("round_state", "A state is rounded as it is read."),
            flag("round_product", "a times the state is rounded, Re a where complex."),
            flag("round_cross", "Im a times the other half is rounded."),
            flag("round_turned", "The sum of both products is rounded."),
            flag("round_sum", "What an event reaches is rounded."),
            Field("rounding", Kind.ENUM, 2, "To which whole number.", default="nearest", choices=ROUNDINGS),
            flag("reached", "Give what an event reaches, before it is rounded."),
            BEFORE,
            COMPLEX,
        ),
        "state",
        "Digital bank, states that are rounded at every event: x <- S(P(a Q(x)) + src), then read it.",
        "Q, P and S are the identity where their place does not round, else scale (clip(round(x / scale + shift), low, "
        "high) - zero). Nearest is half to even; halves are rounded apart, T(P(p re) - R(q im)) and T(P(p im) + R(q "
        "re)) where products of complex states are.",
    ),
    InstructionSpec(
        "rounded.sums",
        0x26,
        (
            DST,
            SRC,
            WORDS,
            NODE,
            data("rows", "(5, words) scale, shift, zero, low, high of each number."),
            data("terms", "(3, terms) number, source, weight, by number; with gates a row more."),
            Field("rounding", Kind.ENUM, 2, "To which whole number.", default="nearest", choices=ROUNDINGS),
            flag("reached", "Give what sums reach, before they are rounded."),
            BEFORE,
            flag("gated", "Terms have gates, numbers like their sources, or -1."),
        ),
        "state",
        "Digital bank, an event whose every sum is rounded: number i is G(sum of its terms + src), then read it.",
        "A source below `words` is a number of the event before, words + j number j of this one, which stands earlier. "
        "A term with a gate counts only where that is not 0. G is as in `rounded`, the identity where scale is 0.",
    ),
    InstructionSpec(
        "tick",
        0x2D,
        (CLOCK, DT, TIMED),
        "control",
        "Advance a clock by the elapsed time.",
    ),
    InstructionSpec(
        "rot",
        0x2E,
        (
            DST,
            SRC,
            WORDS,
            data("turns", "(words/2,) revolutions in one unit of time."),
            CLOCK,
            flag("backward", "Rotate by minus the angle."),
            BEFORE,
        ),
        "vector",
        "Rotating frame: halves re|im times exp(2 pi i turns t), t the clock (with `before`: at the event before).",
    ),
)

CIM = InstructionSet(
    name="cim",
    version="3.2",
    doc="Programs are event-driven: a core sleeps in `recv` until a message comes, and states decay meanwhile. "
    "Section `coreN` is what core N runs for every sequence, `coreN.setup` what it runs once, when the chip is loaded.",
    registers=(Term("rT", "Steps of the sequence."), Term("rB", "Samples in the batch.")),
    spaces=(
        Term("v", "Vector registers of a core, in words."),
        Term(
            "a",
            "Analog lines of a core, a wire with a sample-and-hold each: from columns to state nodes, from state nodes "
            "to rows. They carry a value within an event, and no other instruction takes them.",
        ),
    ),
    timings=(
        Term("control", "The sequencer alone."),
        Term("message", "The mesh, by words and hops."),
        Term("programming", "Write pulses, once."),
        Term("crossbar", "A pass through an array and its converters."),
        Term("state", "State nodes: a charge and a read, or multipliers."),
        Term("vector", "The vector unit, by words."),
    ),
    word_bytes=40,
    instructions=(*_CONTROL, *_MESSAGES, *MOVES, *_CROSSBAR, *_STATES, *VECTOR, *TIME),
)
