"""Program files: deterministic, atomic, open to other tools, and no damage goes unseen."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from isa import (
    Instruction,
    InstructionSet,
    IsaError,
    Loc,
    Port,
    Program,
    SectionBuilder,
    assemble,
    disassemble,
    load,
    load_data,
    save,
)
from tests.examples import examples
from tests.isa.every_kind import EVERY_KIND


def demo() -> Program:
    code = SectionBuilder(EVERY_KIND, "main")
    code.loc = 0
    code.label("top")
    code.emit(
        "all", to=3, by="rT", what="gain", where="top", how="up", count=7, shift=-3, scale=0.1, wide=1e300, again=True
    )
    code.loc = None
    code.emit("maybe", what="poles", last=True)
    code.emit("stop")
    return Program(
        "every-kind",
        "2.3",
        arch="rows: 64\n",
        sections=(code.build(),),
        data={
            "gain": np.arange(12, dtype=np.int8).reshape(3, 4),
            "poles": np.array([1 + 2j, -0.0 - 1j]),
            "small": np.array([[1j]], np.complex64),
            "none": np.zeros((0, 3), np.float16),
            "one": np.float32(3.0),
        },
        locs=(Loc("layers.0", "ssm", ("/scan/MatMul", "/scan/Ä")),),
        inputs=(Port("u", (8,), "stream", binding={"core": 0}),),
        outputs=(Port("y", (10,), "sequence"),),
        meta={"ideal": True, "report": {"loss": 1e-5}},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save(demo(), tmp_path / "demo.ssmx", EVERY_KIND)
    return tmp_path / "demo.ssmx"


def test_a_file_holds_the_program_and_the_constants_of_its_text(path: Path) -> None:
    program = load(path, EVERY_KIND)
    assert program == demo()
    assert assemble(disassemble(program, EVERY_KIND), sets=EVERY_KIND, data=load_data(path)) == program


def test_any_safetensors_tool_opens_it(path: Path) -> None:
    tensors = load_file(path)
    assert tensors["code/main"].shape == (3, EVERY_KIND.word_bytes)
    assert tensors["code/main"][0, 0] == EVERY_KIND.by_mnemonic["all"].opcode
    np.testing.assert_array_equal(tensors["data/gain"], demo().data["gain"])
    np.testing.assert_array_equal(tensors["data/poles"], [[1, 2], [-0.0, -1]])
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["target"] == "every-kind"
    assert metadata["arch"] == "rows: 64\n"
    assert json.loads(metadata["locs"]) == [["layers.0", "ssm", "/scan/MatMul", "/scan/Ä"]]
    assert json.loads(metadata["meta"]) == {"ideal": True, "report": {"loss": 1e-5}}


def test_constants_come_from_any_safetensors_file(tmp_path: Path) -> None:
    save_file({"gain": np.ones(3, np.float32)}, tmp_path / "weights.safetensors")
    assert load_data(tmp_path / "weights.safetensors")["gain"].tolist() == [1, 1, 1]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(path: Path) -> None:
    before = path.read_bytes()
    broken = replace(demo(), sections=(replace(demo().sections[0], code=(Instruction("stop", {}, 99),)),))
    with pytest.raises(IsaError, match="source 99"):
        save(broken, path, EVERY_KIND)
    assert path.read_bytes() == before
    (path.parent / "folder.ssmx").mkdir()
    with pytest.raises(OSError):
        save(demo(), path.parent / "folder.ssmx", EVERY_KIND)
    assert sorted(p.name for p in path.parent.iterdir()) == ["demo.ssmx", "folder.ssmx"]


def rewrite(path: Path, **changes: str) -> None:
    """Change metadata and seal the file again, as another writer might."""
    from isa import container

    tensors, metadata = container._read(path)
    metadata.pop("sha256")
    metadata |= changes
    metadata["sha256"] = container._checksum(tensors, metadata)
    path.write_bytes(b"".join(container._serialise(tensors, metadata)))


def other_code(path: Path, byte: int, value: int) -> None:
    from isa import container

    tensors, metadata = container._read(path)
    tensors["code/main"] = tensors["code/main"].copy()
    tensors["code/main"][2, byte] = value
    metadata["sha256"] = container._checksum(tensors, {k: v for k, v in metadata.items() if k != "sha256"})
    path.write_bytes(b"".join(container._serialise(tensors, metadata)))


def refused(path: Path, isa: InstructionSet = EVERY_KIND) -> str:
    with pytest.raises(IsaError) as caught:
        load(path, isa)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def test_what_is_said_of_files_that_are_not_programs(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    assert refused(tmp_path / "absent.ssmx") == "there is no such file"
    assert refused(tmp_path) == "this is a folder, not a program file"
    for content in (b"PK\x03\x04" + bytes(100), b"not a program", bytes(9)):
        path.write_bytes(content)
        assert refused(path) == "not a program file, but of another kind: compile a model to get one"
    for content in (b"", b"hello", whole[:-1], whole[: len(whole) // 2], whole[:20], whole[:9], whole[:8]):
        path.write_bytes(content)
        assert refused(path).startswith("not a program file, or a truncated or corrupted one (")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert refused(path) == (
        "the file is corrupted (its checksum does not match): copy it again or compile the model again"
    )
    save_file({"x": np.ones(3)}, path)
    assert refused(path) == (
        "not a program file of this release (it is a safetensors file of another kind, not 'ssmx 1'): "
        "compile the model again"
    )


PORT = '[{"name": %s, "shape": %s, "kind": "stream", "dtype": "float32", "binding": null}]'
SOURCES = '[{"name": "main", "labels": {"top": 0}, "locs": [%s]}]'


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "ssmx 9"}, "not a program file of this release (its format is 'ssmx 9', not 'ssmx 1')"),
        ({"isa_version": "2.9"}, "this is for every-kind ISA version 2.9, and here is version 2.3"),
        ({"isa_version": "soon"}, "this is for every-kind ISA version soon, and here is version 2.3"),
        ({"isa_table": "0"}, "written for another encoding of every-kind 2.3 than this one"),
        ({"target": "abacus"}, "there is no instruction set 'abacus' (there is every-kind)"),
        ({"sections": "[1]"}, "not a well-formed program ("),
        ({"sections": "["}, "not a well-formed program ("),
        ({"locs": "[]"}, "section 'main', instruction 0 (all): source 0 is not in the program's table of 0"),
        ({"inputs": PORT % ("7", "[4]")}, "7 is not a name for an input"),
        ({"inputs": PORT % ('"u"', "[0.5]")}, "port 'u' has a shape that is no list of whole numbers"),
        ({"inputs": PORT % ('"u"', "[65536, 65536]")}, "no machine holds more than"),
        ({"outputs": f"[{PORT[1:-1]}, {PORT[1:-1]}]" % ('"y"', "[4]", '"y"', "[4]")}, "output 'y' is declared 2 times"),
        ({"sections": SOURCES % "[0, 9223372036854775808]"}, "section 'main': its sources are not those of"),
        ({"sections": SOURCES % "[0.5, 3]"}, "source 0.5 is not in the program's table"),
        ({"extra": "1"}, "the file is corrupted"),
    ],
)
def test_what_is_said_of_programs_that_are_not_for_us(path: Path, changes: dict[str, str], message: str) -> None:
    rewrite(path, **changes)
    assert message in refused(path)


@pytest.mark.parametrize(
    ("byte", "value", "message"),
    [
        (0, 0x33, "section 'main', instruction 2: every-kind 2.3 has no opcode 0x33"),
        (5, 1, "section 'main', instruction 2: 'stop' has bits set beyond its 8"),
        (0, 0x7F, "section 'main', instruction 2: operand 'what' of 'all': names no constant"),
        (0, 0xFF, "section 'main', instruction 2: operand 'to' of 'maybe': 0 is out of range 4..99"),
    ],
)
def test_what_is_said_of_code_that_is_not_of_the_instruction_set(
    path: Path, byte: int, value: int, message: str
) -> None:
    other_code(path, byte, value)
    assert refused(path).startswith(message)


@settings(max_examples=examples(400), deadline=None)
@given(st.data())
def test_flipped_bytes_are_an_error_or_change_nothing(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "demo.ssmx")
        save(demo(), path, EVERY_KIND)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.just(len(content)) | st.integers(0, len(content)))
        path.write_bytes(bytes(content[:cut]))
        with suppress(IsaError):
            assert load(path, EVERY_KIND) == demo()
        with suppress(IsaError):
            constants = load_data(path)
            # A flip in the format's key makes it a foreign file, whose tensors keep their full names.
            assert constants.keys() == demo().data.keys() or "code/main" in constants or not constants
