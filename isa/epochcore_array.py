"""What runs on the array: matrices, and states in its elements."""

from __future__ import annotations

from isa.epochcore_fields import (
    BEFORE,
    COMPLEX,
    DST,
    DST_PITCH,
    MODES,
    REVERSE,
    SRC,
    SRC_PITCH,
    STEPS,
    flag,
    held,
    param,
    spad,
    words,
)
from isa.fields import Field, Kind
from isa.spec import InstructionSpec

STREAM = (DST, DST_PITCH, SRC, SRC_PITCH, STEPS)
ACCUMULATE = flag("accumulate", "Add to the result that is there.")

ARRAY = (
    InstructionSpec(
        "preload",
        0x30,
        (
            param("src", "First word of the parameters: weights by rows, or what the mode needs."),
            param("scale", "First word of the scales of the columns, where `scaled`."),
            param("bias", "First word of the biases of the columns, where `biased`."),
            Field("rows", Kind.IMM, 12, "Rows of processing elements in use.", low=1),
            Field("cols", Kind.IMM, 12, "Columns in use; of states also more than the array has: see below.", low=1),
            Field("mode", Kind.ENUM, 3, "What the parameters are for.", choices=MODES),
            COMPLEX,
            flag("scaled", "Products of a column are multiplied by its scale; of `sel`, states are divided by it."),
            flag("biased", "A column starts from its bias."),
            Field("segments", Kind.IMM, 8, "How often the parameters are there, side by side.", default=1, low=1),
            Field("span", Kind.IMM, 16, "Steps of a segment, where there are several.", default=1, low=1),
            Field("groups", Kind.IMM, 7, "Groups of the array's rows that columns of states lie in.", default=1, low=1),
            Field("tiles", Kind.IMM, 10, "Tiles of weights, for as many passes in turn.", default=1, low=1),
        ),
        "preload",
        "Shift parameters into the shadow registers of the array; the next array instruction takes them over.",
        "Runs under the array's computation, and waits until the parameters before have been taken over. With `mac.os` "
        "nothing is shifted in: the weights stream from the parameter memory, and `rows` are the terms of a sum. "
        "Where elements hold several states, rows and columns of states may be more than the array's: ceil(rows / R) "
        "states of a channel lie in an element, R the array's rows of states, and column n lies with column n - C, C "
        "its columns of states, as long as an element has room. It steps its states one after the other. "
        "With several `segments` (modes mac, fri and fri.x) a pass works on stretches of time at once: the steps, in "
        "the order in which they are taken, are cut every `span`, copy g of the parameters takes stretch g, with "
        "states of its own, and its elements sleep when that has ended. Copies lie beside each other, those of "
        "weights on the diagonal. "
        "With several `groups` columns of states lie below each other, too: column n lies in the array's column n mod "
        "C and in group n div C, modulo the groups, each of as many rows as its states take (of ceil(rows / (R div "
        "groups)) in an element); only then does it share an element with another. Elements hand on a word, and a sum, "
        "for every group. "
        "Scales are those of integer weights, or (`sel`) what fixed-point states are divided by in the elements, as "
        "elements of other modes have it among their parameters: powers of two. "
        "Of several `tiles` (modes mac and mac.os, one segment) the first one is shifted in: the pass brings the "
        "others itself. All of them lie in one constant, as do their scales and their biases.",
    ),
    InstructionSpec(
        "state.load",
        0x31,
        (
            SRC,
            words(
                "Words of the states: columns of all segments times rows, by columns; twice that if complex.", bits=22
            ),
        ),
        "preload",
        "Put states into the shadow registers of the processing elements; the next array instruction takes them over.",
    ),
    InstructionSpec(
        "state.store",
        0x32,
        (
            DST,
            words("Words of the states, as in `state.load`.", bits=22),
            flag("last", "Those of one segment alone: of the one that took the last step."),
        ),
        "compute",
        "Take the states out of the processing elements.",
    ),
    InstructionSpec(
        "mac",
        0x33,
        (
            *STREAM,
            ACCUMULATE,
            words("Words from the operand of a tile to that of the next one.", "src_next", low=0),
            words("Words from the result of a tile to that of the next one.", "dst_next", low=0),
        ),
        "compute",
        "y = x W (+ bias), `rows` words in and `cols` words out at every step.",
        "The dataflow is that of the preload: weights stay in place with `mac`, results with `mac.os`. "
        "A preload of several tiles makes it as many passes in turn, tile n with the words n `src_next` further on, "
        "and results n `dst_next` further on: while one runs, the weights of the next one are shifted in, as a preload "
        "would do it. It must be the first one after that preload, and keeps its parameter memory until it ends.",
    ),
    InstructionSpec(
        "fri",
        0x34,
        (*STREAM, ACCUMULATE, REVERSE, BEFORE),
        "compute",
        "State stationary: in a column x <- a x + b u in every row, y = sum of Re(c x) down the column, plus d u.",
        "`cols` words in and out at every step. The FRI-MAC of the paper as we read it.",
    ),
    InstructionSpec(
        "fri.x",
        0x35,
        (*STREAM, REVERSE, BEFORE),
        "compute",
        "State stationary: x <- a x + v with a drive of its own and the state itself read out, `cols` states.",
        "A complex row has its imaginary half `pitch` / 2 words after its real half.",
    ),
    InstructionSpec(
        "tri",
        0x38,
        (*STREAM, ACCUMULATE, REVERSE, BEFORE),
        "compute",
        "Liquid-S4: x <- (a + b u) x + b u, otherwise as `fri`.",
        "The TRI-MAC of the paper as we read it.",
    ),
    InstructionSpec(
        "tri.x",
        0x36,
        (*STREAM, REVERSE, BEFORE),
        "compute",
        "Liquid-S4 with a drive of its own: x <- (a + v) x + v, otherwise as `fri.x`.",
    ),
    InstructionSpec(
        "sel",
        0x37,
        (
            DST,
            spad("a", "First word of the decay."),
            SRC,
            words("Words from one step to the next, the same for all three.", "pitch"),
            STEPS,
            REVERSE,
            BEFORE,
            held("a"),
        ),
        "compute",
        "Selective: x <- a x + v with the decay streamed beside the drive, otherwise as `fri.x`.",
    ),
)
