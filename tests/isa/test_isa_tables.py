"""Instruction sets check themselves, their manuals are true, and building programs from them is checked too."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isa import (
    Field,
    FrozenMap,
    Instruction,
    InstructionSpec,
    IsaError,
    Kind,
    Port,
    Program,
    Section,
    SectionBuilder,
    Term,
    disassemble,
    encode,
    find_set,
    instruction,
    load_set,
    names,
)
from isa.manual import DOCS, main, render, stale
from tests.isa.every_kind import EVERY_KIND


def spec(*fields: Field, **changes: Any) -> InstructionSpec:
    return replace(InstructionSpec("do", 1, fields, "step", "Do it."), **changes)


IMM = Field("n", Kind.IMM, 8, "A number.")

MISTAKES = [
    ({"version": "1"}, "version '1' is not MAJOR.MINOR"),
    ({"word_bytes": 12}, "a word of 12 bytes is not a multiple of 8 bytes"),
    ({"instructions": (spec(), spec(opcode=2))}, "mnemonic 'do' appears 2 times"),
    ({"instructions": (spec(), spec(mnemonic="undo"))}, "opcode 1 appears 2 times"),
    ({"registers": (Term("rT", "Steps."), Term("rT", "Steps."))}, "register 'rT' appears 2 times"),
    ({"registers": (Term("rT", " "),)}, "'rT' needs a plain name and a sentence"),
    ({"instructions": (spec(opcode=256),)}, "opcode 256 does not fit 8 bits"),
    ({"instructions": (spec(doc=""),)}, "instruction 'do': has no sentence"),
    ({"instructions": (spec(mnemonic="do it"),)}, "the mnemonic is not a plain word"),
    ({"instructions": (spec(timing="slow"),)}, "timing class 'slow' is not declared"),
    (
        {"instructions": (spec(*(replace(IMM, name=f"n{i}", bits=64) for i in range(4))),)},
        "needs 264 bits, the word has 256",
    ),
    ({"instructions": (spec(IMM, IMM),)}, "field 'n' appears twice"),
    ({"instructions": (spec(replace(IMM, doc="")),)}, "field 'n': needs a plain name and a sentence"),
    ({"instructions": (spec(replace(IMM, high=256)),)}, "range 0..256 does not fit 8 bits"),
    ({"instructions": (spec(replace(IMM, low=-129, high=0)),)}, "range -129..0 does not fit 8 bits"),
    ({"instructions": (spec(replace(IMM, low=-1, high=128)),)}, "range -1..128 does not fit 8 bits"),
    ({"instructions": (spec(replace(IMM, low=9, high=3)),)}, "range 9..3 does not fit 8 bits"),
    ({"instructions": (spec(replace(IMM, default=256)),)}, "default: 256 is out of range 0..255"),
    (
        {"instructions": (spec(Field("a", Kind.ADDR, 8, "A place.", space="attic")),)},
        "memory space 'attic' is not declared",
    ),
    ({"instructions": (spec(Field("r", Kind.REG, 1, "A register.")),)}, "3 registers do not fit 1 bits"),
    ({"instructions": (spec(Field("f", Kind.FLOAT, 16, "A float.")),)}, "a float has 32 or 64 bits"),
    (
        {"instructions": (spec(Field("e", Kind.ENUM, 1, "A way.", choices=("a", "b", "c"))),)},
        "3 choices do not fit 1 bits",
    ),
    (
        {"instructions": (spec(Field("e", Kind.ENUM, 1, "A way.", choices=("a", "a"))),)},
        "choices must be distinct plain words",
    ),
    ({"instructions": (spec(Field("x", Kind.FLAG, 2, "A flag.")),)}, "a flag is one bit, false by default"),
    ({"instructions": (spec(Field("l", Kind.LABEL, 8, "A place.", default="top")),)}, "a label cannot be optional"),
    (
        {"instructions": (spec(Field("d", Kind.DATA, 8, "A constant.", default="w")),)},
        'a constant can only default to ""',
    ),
    (
        {"instructions": (spec(Field("rT", Kind.FLAG, 1, "A flag."), Field("r", Kind.REG, 3, "A register.")),)},
        "a choice or register has the name of a flag",
    ),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_a_mistake_in_a_table_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(IsaError) as caught:
        replace(EVERY_KIND, **changes)
    assert str(caught.value).startswith("instruction set 'every-kind': ")
    assert message in str(caught.value)


def test_fields_lie_side_by_side_above_the_opcode() -> None:
    for isa in (EVERY_KIND, *map(load_set, names())):
        for each in isa.instructions:
            ends = [8] + [low + field.bits for field, low in each.layout]
            assert [low for _, low in each.layout] == ends[:-1]
            assert ends[-1] == each.bits <= 8 * isa.word_bytes


def test_code_words_are_little_endian_with_fields_from_the_table() -> None:
    code = instruction(EVERY_KIND, "maybe", to=9, by="rB", shift=-2, scale=1.0, last=True)
    program = Program("every-kind", "2.3", sections=(Section("main", (code,)),))
    word = int.from_bytes(encode(program, EVERY_KIND)["main"][0].tobytes(), "little")
    expected = 0xFF | 9 << 8 | 1 << 20 | 0 << 23 | 1 << 31 | 0b11110 << 32 | 0x3F800000 << 37 | 0 << 69 | 1 << 70
    assert word == expected


@pytest.mark.parametrize(
    ("name", "version", "encoding"), [("cim", "3.2", "890d1b3ad362d788"), ("epochcore", "10.0", "481cf1bf928b3db4")]
)
def test_a_version_stands_for_one_encoding(name: str, version: str, encoding: str) -> None:
    """Where this fails an instruction was added (raise the minor version) or changed (the major one)."""
    assert (load_set(name).version, load_set(name).fingerprint) == (version, encoding)


def test_programs_of_an_older_encoding_are_refused() -> None:
    with pytest.raises(IsaError, match=r"for epochcore ISA version 2\.0, and here is version \S+: compile the model"):
        find_set("epochcore", "2.0")
    with pytest.raises(IsaError, match="for cim ISA version"):
        find_set("cim", "1.1")
    assert find_set("cim", "3.2") is load_set("cim")


def test_a_set_reads_its_own_and_earlier_minor_versions() -> None:
    assert [EVERY_KIND.reads(v) for v in ("2.3", "2.0", "2.4", "1.3", "3.0", "2", "x.y")] == [True, True] + [False] * 5
    assert find_set("every-kind", "2.1", EVERY_KIND) is find_set("every-kind", "2.3", {"every-kind": EVERY_KIND})
    with pytest.raises(IsaError, match=r"there is no instruction set 'epochcor' .* did you mean 'epochcore'?"):
        load_set("epochcor")


def test_the_fingerprint_follows_the_encoding_and_nothing_else() -> None:
    wider = replace(EVERY_KIND, instructions=(spec(IMM), *EVERY_KIND.instructions))
    reworded = replace(EVERY_KIND, doc="Other words.")
    assert wider.fingerprint != EVERY_KIND.fingerprint == reworded.fingerprint


def test_manuals_in_docs_are_true() -> None:
    assert not stale(DOCS), "renew with python -m isa.manual --write"


def test_stale_manuals_are_named_and_written(tmp_path: Path, capsys: Any) -> None:
    folder = ["--folder", str(tmp_path / "docs")]
    assert main(folder) == 1
    assert "isa-cim.md: stale" in capsys.readouterr().out
    assert main([*folder, "--write"]) == 0
    assert main(folder) == 0
    assert (tmp_path / "docs" / "isa-cim.md").read_text() == render(load_set("cim"))


@pytest.mark.parametrize("name", names())
def test_a_manual_has_all_of_every_instruction(name: str) -> None:
    text = render(load_set(name))
    for each in load_set(name).instructions:
        entry = text.split(f"\n### {each.mnemonic}\n")[1].split("\n### ")[0]
        assert all(f"**{part}**" in entry for part in ("Format", "Fields", "Action", "Timing"))
        assert each.doc in entry
        common = text.split("## Common flags")[-1].split("\n## ")[0] if "[common flags]" in entry else ""
        assert all(f"| {field.name} |" in entry or f"| `{field.name}` |" in common for field in each.fields)


def test_a_builder_keeps_one_label_of_those_at_one_place() -> None:
    code = SectionBuilder(EVERY_KIND, "main")
    code.label("first")
    code.label("second")
    rest = {
        "what": "w",
        "how": "up",
        "count": 1,
        "shift": 0,
        "scale": np.float32(0.1),
        "wide": 0.1,
        "by": "rT",
        "to": 0,
    }
    code.emit("all", where="second", **rest)
    section = code.build()
    assert section.labels == {"first": 0}
    assert section.code[0]["where"] == "first"
    with pytest.raises(IsaError, match="label 'second' is placed twice"):
        code.label("second")


@pytest.mark.parametrize(
    ("mnemonic", "operands", "message"),
    [
        ("go", {}, "every-kind has no instruction 'go'"),
        ("stop", {"now": True}, "'stop' has no operand 'now'"),
        ("all", {}, "'all' lacks operand 'to'"),
        ("maybe", {"shift": 10}, "operand 'shift' of 'maybe': 10 is out of range -7..9"),
        ("maybe", {"shift": True}, "operand 'shift' of 'maybe': True is not an integer"),
        ("maybe", {"shift": 1.0}, "operand 'shift' of 'maybe': 1.0 is not an integer"),
        ("maybe", {"scale": 1e39}, "operand 'scale' of 'maybe': 1e+39 is not a float32 value"),
        ("maybe", {"scale": float("nan")}, "operand 'scale' of 'maybe': nan is not a float"),
        ("maybe", {"by": "r9"}, "operand 'by' of 'maybe': 'r9' is not a register of this machine"),
        ("maybe", {"how": "left"}, "operand 'how' of 'maybe': 'left' is not one of up, down"),
        ("maybe", {"quiet": 1}, "operand 'quiet' of 'maybe': 1 is not true or false"),
    ],
)
def test_instructions_are_checked_when_made(mnemonic: str, operands: dict[str, Any], message: str) -> None:
    with pytest.raises(IsaError) as caught:
        instruction(EVERY_KIND, mnemonic, **operands)
    assert str(caught.value) == message


def test_instructions_round_floats_to_their_field() -> None:
    made = instruction(EVERY_KIND, "maybe", scale=0.3)
    assert made["scale"] == float(np.float32(0.3))
    assert made["shift"] == -1
    assert isinstance(instruction(EVERY_KIND, "maybe", shift=np.int64(3))["shift"], int)


def one(code: Instruction, **section: Any) -> Program:
    return Program("every-kind", "2.3", sections=(Section("main", (code,), **section),))


STOP = Instruction("stop")

BROKEN = [
    (one(Instruction("go")), "section 'main', instruction 0 (go): every-kind has no such instruction"),
    (one(Instruction("maybe")), "missing or unknown operands: bias, by, either, how, last, quiet, scale, shift, to, "),
    (one(replace(STOP, loc=0)), "source 0 is not in the program's table of 0"),
    (one(instruction(EVERY_KIND, "maybe", what="w")), "operand 'what': no constant 'w'"),
    (one(STOP, labels={"a": 2}), "label 'a' names instruction 2, and there are 1"),
    (one(STOP, labels={"a": 0, "b": 0}), "labels a, b name the same instruction; keep one"),
    (one(STOP, labels={"quiet": 0}), "label 'quiet' is not a plain word or already means a flag or register"),
    (Program("every-kind", "2.3", sections=(Section("a b", ()),)), "'a b' is not a section name: use a plain word"),
    (Program("every-kind", "2.3", sections=(Section("a", ()),) * 2), "section 'a' appears 2 times"),
    (Program("every-kind", "2.3", inputs=(Port("u", (1,), "steam"),)), "port 'u' has kind 'steam'"),
    (Program("every-kind", "2.3", data={"": np.zeros(1)}), "'' is not a name for a constant"),
]


@pytest.mark.parametrize(("program", "message"), BROKEN)
def test_a_program_that_is_not_of_its_set_has_no_text_and_no_binary(program: Program, message: str) -> None:
    for form in (disassemble, encode):
        with pytest.raises(IsaError) as caught:
            form(program, EVERY_KIND)  # type: ignore[operator]
        assert message in str(caught.value)


def test_what_a_program_cannot_hold_is_refused_when_it_is_made() -> None:
    with pytest.raises(IsaError, match="constant 'w' has element type object"):
        Program("cim", "2.0", data={"w": np.array([None])})
    with pytest.raises(IsaError, match="meta 'loss' has no JSON form"):
        Program("cim", "2.0", meta={"loss": float("nan")})


def test_programs_are_values() -> None:
    program = one(instruction(EVERY_KIND, "maybe"))
    assert pickle.loads(pickle.dumps(program)) == program
    assert hash(program) == hash(one(instruction(EVERY_KIND, "maybe")))
    assert replace(program, meta={"a": 1}) != replace(program, meta={"a": 1.0})
    assert replace(program, meta={"a": 1}) != replace(program, meta={"a": True})
    one_type, other = np.zeros(2, np.int8), np.zeros(2, np.uint8)
    assert replace(program, data={"w": one_type}) != replace(program, data={"w": other})
    assert replace(program, data={"w": np.array([0.0])}) != replace(program, data={"w": np.array([-0.0])})
    with pytest.raises(ValueError, match="read-only"):
        replace(program, data={"w": one_type}).data["w"][0] = 1
    assert program.instruction_count == 1
    assert program.section("main").code[0].mnemonic == "maybe"
    assert FrozenMap({"a": 1}) == {"a": 1}
