"""An instruction set with every kind of operand, for tests that must not depend on a real target."""

from __future__ import annotations

from isa import Field, InstructionSet, InstructionSpec, Kind, Term

EVERY_KIND = InstructionSet(
    name="every-kind",
    version="2.3",
    word_bytes=32,
    doc="One of each.",
    registers=(Term("rT", "Steps."), Term("rB", "Batch."), Term("r0", "Free.")),
    spaces=(Term("mem", "The memory."), Term("io", "The other memory.")),
    timings=(Term("step", "One cycle."), Term("long", "Many.")),
    instructions=(
        InstructionSpec("stop", 0, (), "step", "Stop."),
        InstructionSpec(
            "all",
            0x7F,
            (
                Field("to", Kind.ADDR, 12, "Where to.", space="mem"),
                Field("by", Kind.REG, 3, "How often."),
                Field("what", Kind.DATA, 8, "A constant."),
                Field("where", Kind.LABEL, 16, "A place."),
                Field("how", Kind.ENUM, 2, "A way.", choices=("up", "down", "left")),
                Field("count", Kind.IMM, 7, "A number.", low=1, high=100, unit="words"),
                Field("shift", Kind.IMM, 5, "A signed number.", low=-16),
                Field("scale", Kind.FLOAT, 32, "A factor."),
                Field("wide", Kind.FLOAT, 64, "A wide factor."),
                Field("again", Kind.FLAG, 1, "Once more."),
            ),
            "long",
            "Do everything.",
            notes="Nothing real.",
        ),
        InstructionSpec(
            "maybe",
            0xFF,
            (
                Field("to", Kind.ADDR, 12, "Where to.", low=4, high=99, space="mem", default=8),
                Field("by", Kind.REG, 3, "How often.", default="r0"),
                Field("what", Kind.DATA, 8, "A constant or none.", default=""),
                Field("how", Kind.ENUM, 1, "A way.", choices=("up", "down"), default="down"),
                Field("shift", Kind.IMM, 5, "A signed number.", low=-7, high=9, default=-1),
                Field("scale", Kind.FLOAT, 32, "A factor.", default=0.1),
                Field("quiet", Kind.FLAG, 1, "Say nothing."),
                Field("last", Kind.FLAG, 1, "The end."),
                Field("bias", Kind.FLOAT, 32, "A term.", default=0.0),
                Field("either", Kind.ADDR, 9, "Here or there.", space="mem", other="io", default=0),
            ),
            "step",
            "Do something or nothing.",
        ),
    ),
)
