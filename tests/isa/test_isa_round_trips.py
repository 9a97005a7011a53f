"""Text, binary and file hold the same program: whatever goes in comes out."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isa import (
    FrozenMap,
    InstructionSet,
    Loc,
    Port,
    Program,
    Section,
    assemble,
    decode,
    disassemble,
    encode,
    instruction,
    load,
    load_set,
    save,
)
from isa.strategies import of_spec, programs
from tests.examples import examples
from tests.isa.every_kind import EVERY_KIND

SETS = {"cim": load_set("cim"), "epochcore": load_set("epochcore"), EVERY_KIND.name: EVERY_KIND}
any_program = st.sampled_from(sorted(SETS)).flatmap(lambda name: programs(SETS[name]))
slow = settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def through_binary(program: Program, isa: InstructionSet) -> tuple[Section, ...]:
    words = encode(program, isa)
    return tuple(
        decode(
            section.name,
            words[section.name],
            isa,
            labels=section.labels,
            constants=list(program.data),
            locs=[ins.loc for ins in section.code],
        )
        for section in program.sections
    )


@slow
@given(any_program)
def test_text_is_read_back_as_the_same_program(program: Program) -> None:
    text = disassemble(program, SETS)
    again = assemble(text, sets=SETS, data=program.data)
    assert again == program
    assert disassemble(again, SETS) == text
    before, after = encode(program, SETS), encode(again, SETS)
    assert {name: words.tobytes() for name, words in before.items()} == {
        name: words.tobytes() for name, words in after.items()
    }


def test_minus_zero_is_not_the_default_zero() -> None:
    code = instruction(EVERY_KIND, "maybe", bias=-0.0)
    program = Program(EVERY_KIND.name, EVERY_KIND.version, sections=(Section("main", (code,)),))
    again = assemble(disassemble(program, EVERY_KIND), sets=EVERY_KIND)
    assert encode(again, EVERY_KIND)["main"].tobytes() == encode(program, EVERY_KIND)["main"].tobytes()


@slow
@given(any_program)
def test_binary_is_decoded_to_the_same_code(program: Program) -> None:
    assert through_binary(program, SETS[program.target]) == program.sections


@slow
@given(any_program)
def test_a_file_is_loaded_as_the_same_program_and_saved_as_the_same_bytes(program: Program) -> None:
    with TemporaryDirectory() as folder:
        first, second = Path(folder, "first.ssmx"), Path(folder, "second.ssmx")
        save(program, first, SETS)
        again = load(first, SETS)
        save(again, second, SETS)
        assert again == program
        assert first.read_bytes() == second.read_bytes()
        assert len(list(Path(folder).iterdir())) == 2


EVERY_INSTRUCTION = [(name, spec.mnemonic) for name, isa in SETS.items() for spec in isa.instructions]


@pytest.mark.parametrize(("target", "mnemonic"), EVERY_INSTRUCTION)
def test_every_instruction_survives_text_and_binary(target: str, mnemonic: str) -> None:
    isa = SETS[target]
    spec = isa.by_mnemonic[mnemonic]
    data = {"first": np.zeros(3), "second": np.ones((2, 2))}

    @settings(max_examples=examples(20), deadline=None)
    @given(of_spec(spec, isa, ("start", "end"), tuple(data), 1))
    def survives(instruction: object) -> None:
        section = Section("main", (instruction,) * 2, FrozenMap({"start": 0, "end": 2}))  # type: ignore[arg-type]
        program = Program(target, isa.version, sections=(section,), data=data, locs=(Loc("layer", "op", ("node",)),))
        assert assemble(disassemble(program, isa), sets=isa, data=data) == program
        assert through_binary(program, isa) == program.sections

    survives()


def test_a_section_of_no_instructions_and_a_program_of_no_sections() -> None:
    empty = Program("cim", "3.2")
    assert assemble(disassemble(empty)) == empty
    hollow = Program(
        "cim", "3.2", sections=(Section("main", (), FrozenMap({"here": 0})),), outputs=(Port("y", (), "state"),)
    )
    assert assemble(disassemble(hollow)) == hollow
