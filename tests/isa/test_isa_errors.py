"""What the assembler says of each mistake, pinned as text in goldens/errors.txt."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isa import AsmError, IsaError, assemble, disassemble
from isa.strategies import programs
from tests.examples import examples
from tests.isa.every_kind import EVERY_KIND

HEAD = ".isa every-kind 2.3\n.data @gain float32 [2] values=[0.5, 1.0]\n"
ALL = "all mem[0], rT, @gain, top, up, count=1, shift=0, scale=1, wide=2"

MISTAKES = {
    "bad mnemonic": HEAD + "    stp\n",
    "unknown mnemonic with nothing near": HEAD + "    frobnicate\n",
    "missing operand": HEAD + "top:\n    all mem[0], rT, @gain, top, up, count=1\n",
    "extra operand": HEAD + "    stop mem[0]\n",
    "misspelt flag": HEAD + "    maybe quite\n",
    "misspelt operand name": HEAD + "    maybe shfit=3\n",
    "operand given twice": HEAD + "    maybe shift=3, shift=4\n",
    "flag given twice": HEAD + "    maybe quiet, quiet\n",
    "flag with a value": HEAD + "    maybe quiet=1\n",
    "number where an address belongs": HEAD + "top: " + ALL.replace("mem[0]", "0") + "\n",
    "address in the wrong memory": HEAD + "top: " + ALL.replace("mem[0]", "men[0]") + "\n",
    "address out of range": HEAD + "top: " + ALL.replace("mem[0]", "mem[4096]") + "\n",
    "address in neither memory": HEAD + "    maybe either=spad[0]\n",
    "address out of range in the other memory": HEAD + "    maybe either=io[256]\n",
    "address in a memory of another operand": HEAD + "    maybe to=io[4]\n",
    "address below zero": HEAD + "top: " + ALL.replace("mem[0]", "mem[-1]") + "\n",
    "integer out of range": HEAD + "top: " + ALL.replace("count=1", "count=101") + "\n",
    "signed integer out of range": HEAD + "    maybe shift=-8\n",
    "fraction where an integer belongs": HEAD + "    maybe shift=0.5\n",
    "integer of five thousand digits": HEAD + "    maybe shift=" + "9" * 5000 + "\n",
    "unknown register": HEAD + "top: " + ALL.replace("rT", "rS") + "\n",
    "unknown choice": HEAD + "top: " + ALL.replace("up", "dwn") + "\n",
    "constant where a float belongs": HEAD + "    maybe scale=@gain\n",
    "float beyond float32": HEAD + "    maybe scale=1e39\n",
    "word where a constant belongs": HEAD + "    maybe what=gain\n",
    "undeclared constant": HEAD + "    maybe what=@gian\n",
    "unknown label": HEAD + "top: " + ALL.replace("top", "tpo") + "\n",
    "duplicate label": HEAD + "top: stop\ntop: stop\n",
    "two labels at one place": HEAD + "top:\nhere: stop\n",
    "label that is a flag": HEAD + "quiet: stop\n",
    "label that is a register": HEAD + "rT: stop\n",
    "wrong ISA version": ".isa every-kind 3.0\n",
    "newer ISA version": ".isa every-kind 2.4\n",
    "wrong ISA name": ".isa every-kin 2.3\n",
    "ISA named twice": HEAD + ".isa every-kind 2.3\n",
    "no ISA": "    stop\n",
    "empty text": "",
    "unknown directive": HEAD + ".secton main\n",
    "section begun twice": HEAD + ".section a\n.section b\n.section a\n",
    "directive with too much": HEAD + ".section a b\n",
    "constant declared twice": HEAD + ".data @gain float32 [0] values=[]\n",
    "constant of an unknown type": HEAD + ".data @g flaot32 [2] values=[1, 2]\n",
    "constant with a bad shape": HEAD + ".data @g int8 [-1]\n",
    "constant with too few values": HEAD + ".data @g int8 [3] values=[1, 2]\n",
    "constant with a value too large": HEAD + ".data @g int8 [2] values=[1, 200]\n",
    "constant without values": HEAD + ".data @weight int8 [64, 64]\n",
    "constant of another shape in the data file": HEAD + ".data @given int8 [5]\n",
    "constant of other values in the data file": HEAD + '.data @given int8 [4] sha256="0123456789abcdef"\n',
    "port of an unknown kind": HEAD + ".input u steam [8] float32\n",
    "source not described": HEAD + ".loc 1\n",
    "source described twice": HEAD + '.loc 0 "a"\n.loc 0 "b"\n',
    "sources with a gap": HEAD + '.loc 0 "a"\n.loc 2 "b"\n',
    "meta that is not JSON": HEAD + '.meta report\n| {"a": 1,\n| b}\n',
    "meta with infinity": HEAD + ".meta report\n| Infinity\n",
    "meta given twice": HEAD + ".meta a 1\n.meta a 2\n",
    "block line alone": HEAD + "| text\n",
    "unclosed string": HEAD + '.loc "layer\n',
    "unknown escape": HEAD + '.loc "\\q"\n',
    "stray character": HEAD + "    stop $\n",
    "unclosed address": HEAD + "    maybe to=mem[3\n",
    "missing comma": HEAD + "    maybe shift=3 quiet\n",
    "number glued to a word": HEAD + "    maybe shift=12ab\n",
    "tabs before the mistake": HEAD + "\tmaybe\tshift=99\n",
}


def message(text: str) -> str:
    with pytest.raises(AsmError) as caught:
        assemble(text, "demo.asm", EVERY_KIND, {"given": np.zeros(4, np.int8)})
    error = caught.value
    assert str(error).startswith(f"demo.asm:{error.line}:{error.column}: error: ")
    return str(error)


def test_each_mistake_has_its_message(golden: Callable[[str, str], None]) -> None:
    texts = (f"== {what}\n{message(text)}\n" for what, text in MISTAKES.items())
    golden("errors.txt", "\n".join(texts))


def test_the_caret_stands_under_the_mistake() -> None:
    for text in MISTAKES.values():
        lines = message(text).split("\n")
        carets = [line for line in lines if set(line) <= {" ", "\t", "^"} and "^" in line]
        for caret in carets:
            source = lines[lines.index(caret) - 1]
            assert len(caret) <= len(source) + 1
            assert not source[caret.index("^") : caret.index("^") + 1].isspace()


@settings(max_examples=examples(150), deadline=None)
@given(program=programs(EVERY_KIND, max_sections=2), data=st.data())
def test_damaged_text_is_an_error_or_a_program_never_a_traceback(program: object, data: st.DataObject) -> None:
    text = disassemble(program, EVERY_KIND)  # type: ignore[arg-type]
    at = data.draw(st.integers(0, len(text)))
    upto = data.draw(st.integers(at, min(at + 10, len(text))))
    junk = data.draw(
        st.sampled_from(
            ["", " ", "\n", "@", '"', "[", "=", ",", ":", "-1", "x", ".isa", "| ", "{", "\x00", "é", "9" * 40]
        )
    )
    with suppress(IsaError):
        assemble(text[:at] + junk + text[upto:], "demo.asm", EVERY_KIND, program.data)  # type: ignore[attr-defined]
