"""Hypothesis strategies for operands, instructions and programs, derived from an instruction set's table.

For tests only: this is the one module that imports hypothesis.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from isa.check import reserved_words
from isa.fields import Field, Kind, Value
from isa.frozen import FrozenMap
from isa.program import DTYPES, PORT_KINDS, Instruction, Json, Loc, Port, Program, Section
from isa.spec import InstructionSet, InstructionSpec

# Strategies are made once: hypothesis looks through each new one before it draws, which takes longer than the drawing.
_UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_WORDS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,6}", fullmatch=True)
_ARCHS = _UNICODE | st.just("name: any\nrows: 64\n")
_LOCS = st.lists(st.builds(Loc, _UNICODE, _UNICODE, st.lists(_UNICODE, max_size=2).map(tuple)), max_size=3)


def operands(
    field: Field, isa: InstructionSet, labels: Sequence[str], constants: Sequence[str]
) -> st.SearchStrategy[Value]:
    """Values of `field`, its bounds and its default among them. `labels` and `constants` are what there is
    to name.
    """
    named = {Kind.REG: [register.name for register in isa.registers], Kind.LABEL: labels, Kind.DATA: constants}
    return _operands(field, tuple(named.get(field.kind, ())))


@cache
def _operands(field: Field, names: tuple[str, ...]) -> st.SearchStrategy[Value]:
    values = _values(field, names)
    return values if field.default is None else st.just(field.default) | values


def _values(field: Field, names: tuple[str, ...]) -> st.SearchStrategy[Value]:
    match field.kind:
        case Kind.ADDR | Kind.IMM:
            low, high = field.range
            return st.sampled_from([low, high]) | st.integers(low, high)
        case Kind.FLOAT:
            return st.floats(allow_nan=False, width=32 if field.bits == 32 else 64)
        case Kind.REG | Kind.LABEL:
            return st.sampled_from(names)
        case Kind.DATA:
            return st.sampled_from(names) if names else st.just("")
        case Kind.ENUM:
            return st.sampled_from(field.choices)
        case Kind.FLAG:
            return st.booleans()


def instructions(
    isa: InstructionSet, labels: Sequence[str] = (), constants: Sequence[str] = (), locs: int = 0
) -> st.SearchStrategy[Instruction]:
    """Instructions of `isa` that can stand in a section with these labels, constants and `locs` sources.

    Those that need a label or constant are left out where there is none.
    """
    usable = [
        spec
        for spec in isa.instructions
        if not _needs(spec, Kind.LABEL, labels) and not _needs(spec, Kind.DATA, constants)
    ]
    return st.sampled_from(usable).flatmap(lambda spec: of_spec(spec, isa, labels, constants, locs))


def of_spec(
    spec: InstructionSpec, isa: InstructionSet, labels: Sequence[str] = (), constants: Sequence[str] = (), locs: int = 0
) -> st.SearchStrategy[Instruction]:
    """Instructions of one spec."""
    fields = {field.name: operands(field, isa, labels, constants) for field in spec.fields}
    source = st.none() | st.integers(0, locs - 1) if locs else st.none()
    return st.builds(Instruction, st.just(spec.mnemonic), st.fixed_dictionaries(fields).map(FrozenMap), source)


def _needs(spec: InstructionSpec, kind: Kind, there: Sequence[str]) -> bool:
    return not there and any(field.kind is kind and not field.optional for field in spec.fields)


@st.composite
def sections(
    draw: st.DrawFn, isa: InstructionSet, name: str, constants: Sequence[str] = (), locs: int = 0, max_size: int = 12
) -> Section:
    """Sections with labels at distinct places, the end among them."""
    size = draw(st.integers(0, max_size))
    places = sorted(draw(st.sets(st.integers(0, size), max_size=4)))
    labels = draw(_labels(reserved_words(isa), len(places)))
    code = draw(st.lists(instructions(isa, labels, constants, locs), min_size=size, max_size=size))
    return Section(name, tuple(code), FrozenMap(dict(zip(labels, places, strict=True))))


@cache
def _labels(reserved: frozenset[str], count: int) -> st.SearchStrategy[list[str]]:
    free = _WORDS.filter(lambda word: word not in reserved)
    return st.lists(free, min_size=count, max_size=count, unique=True)


@cache
def constants() -> st.SearchStrategy[NDArray[Any]]:
    """Small constants of every element type, bit patterns of NaN included; no axes and empty axes too."""
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    return st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(np.dtype(dtype), shapes))


@cache
def json_values() -> st.SearchStrategy[Json]:
    """Small JSON values."""
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _UNICODE
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_UNICODE, inner, max_size=3)
    )


@cache
def ports() -> st.SearchStrategy[Port]:
    """Ports of every kind."""
    shapes = st.lists(st.integers(0, 99), max_size=3).map(tuple)
    return st.builds(Port, _UNICODE, shapes, st.sampled_from(PORT_KINDS), st.sampled_from(DTYPES), json_values())


@cache
def _data() -> st.SearchStrategy[dict[str, NDArray[Any]]]:
    return st.dictionaries(_WORDS | _UNICODE.filter(bool), constants(), max_size=4)


@cache
def _meta() -> st.SearchStrategy[dict[str, Json]]:
    return st.dictionaries(_UNICODE, json_values(), max_size=3)


@cache
def _interface() -> st.SearchStrategy[list[Port]]:
    return st.lists(ports(), max_size=2, unique_by=lambda port: port.name)


@st.composite
def programs(draw: st.DrawFn, isa: InstructionSet, max_sections: int = 3) -> Program:
    """Whole programs of `isa`: any names, constants, sources, ports and meta that text and file can hold."""
    data, locs = draw(_data()), draw(_LOCS)
    section_names = draw(st.lists(_WORDS, max_size=max_sections, unique=True))
    return Program(
        target=isa.name,
        isa_version=isa.version,
        arch=draw(_ARCHS),
        sections=tuple(draw(sections(isa, name, sorted(data), len(locs))) for name in section_names),
        data=FrozenMap(data),
        locs=tuple(locs),
        inputs=tuple(draw(_interface())),
        outputs=tuple(draw(_interface())),
        meta=FrozenMap(draw(_meta())),
    )
