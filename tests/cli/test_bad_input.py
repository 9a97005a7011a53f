"""Bad input, each kind: status 2, one message that says what and what to do, no traceback, nothing written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import samples
from tests.cli.conftest import Outcome, Ssmc

COMPILE = ("compile", "--target", "cim", "-o", "p.ssmx", "--emit", "asm,ir,report")


def refused(outcome: Outcome, folder: Path, before: set[Path], *says: str) -> None:
    assert outcome.status == 2, outcome
    assert outcome.out == ""
    assert "Traceback" not in outcome.err and "this is a defect" not in outcome.err
    assert outcome.err.count("error: ") == 1 and "error: " in outcome.err.splitlines()[0], outcome.err
    for part in says:
        assert re.search(part, outcome.err), f"{part!r} is not in:\n{outcome.err}"
    assert set(folder.iterdir()) == before, "something was written"


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("text.onnx", ["text.onnx", "not an ONNX"]),
        ("cut.onnx", ["cut.onnx"]),
        ("empty.onnx", ["empty.onnx"]),
        ("none.onnx", ["none.onnx"]),
        ("folder.onnx", ["folder.onnx"]),
        ("no_ssm.onnx", ["no_ssm.onnx", "no state-space"]),
        ("unsupported.onnx", ["Hardmax_over_time", "Softmax_attention"]),
        ("nan.onnx", ["'C'|MatMul_C", "NaN|finite"]),
    ],
)
def test_models(ssmc: Ssmc, folder: Path, model: str, says: list[str]) -> None:
    (folder / "text.onnx").write_text("this is no model\n" * 20)
    (folder / "cut.onnx").write_bytes((folder / "scan.onnx").read_bytes()[:700])
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "folder.onnx").mkdir()
    before = set(folder.iterdir())
    refused(ssmc(*COMPILE, model), folder, before, *says)


@pytest.mark.parametrize("tolerance", ["0", "-1", "nan", "1"])
def test_a_tolerance_that_is_none(ssmc: Ssmc, folder: Path, tolerance: str) -> None:
    before = set(folder.iterdir())
    refused(ssmc(*COMPILE, "scan.onnx", "--lift-tolerance", tolerance), folder, before, "between 0 and 1")


def test_an_unstable_system_on_a_device_that_can_only_decay(ssmc: Ssmc, folder: Path) -> None:
    text = samples.arch_path("cim-published").read_text()
    (folder / "volatile.yaml").write_text(text.replace("digital:\n  per_core: 128 ", "digital:\n  per_core: 0 "))
    before = set(folder.iterdir())
    outcome = ssmc(*COMPILE, "unstable.onnx", "--arch", "volatile.yaml")
    refused(outcome, folder, before, "can only decay", "body/Mul", r"Abar = 1\.02")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"v": np.zeros((2, 5, 2))}, ["no input 'v'", "'u' is missing", r"u: float32 \(batch, time, 2\)"]),
        ({"u": np.zeros((2, 5, 3))}, ["'u' has the shape 2x5x3", "takes .batch, time, 2."]),
        ({"u": np.zeros((5, 2))}, ["'u' has 2 axes"]),
        ({"u": np.full((1, 5, 2), np.inf)}, ["'u' is inf at"]),
    ],
)
@pytest.mark.parametrize("command", ["run", "verify"])
def test_inputs(ssmc: Ssmc, folder: Path, command: str, arrays: dict[str, np.ndarray], says: list[str]) -> None:
    np.savez(folder / "bad.npz", **arrays)
    assert ssmc("compile", "scan.onnx", "--target", "epochcore", "-o", "p.ssmx").status == 0
    before = set(folder.iterdir())
    given = ("p.ssmx", "--output", "y.npz", "--stats", "s.json", "--trace", "t.json")
    arguments = given if command == "run" else ("scan.onnx", "--target", "epochcore")
    refused(ssmc(command, *arguments, "--input", "bad.npz"), folder, before, *says)


@pytest.mark.parametrize("target", ["cim", "epochcore"])
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("name:", "nmae: x\nname:", [r"bad\.yaml:\d+", "nmae"]),
        (r"rows: \d+", "rows: -4", [r"bad\.yaml:\d+", "rows", "-4|greater than|at least"]),
        (r"rows: \d+", "rows: many", [r"bad\.yaml:\d+", "rows"]),
        ("name:", "name: [", [r"bad\.yaml", "YAML"]),
    ],
)
def test_architectures(ssmc: Ssmc, folder: Path, target: str, old: str, new: str, says: list[str]) -> None:
    base = {"cim": "cim-published", "epochcore": "epochcore-small"}[target]
    text, count = re.subn(rf"(?m)^(\s*){old}", rf"\1{new}", samples.arch_path(base).read_text(), count=1)
    assert count == 1
    (folder / "bad.yaml").write_text(text)
    before = set(folder.iterdir())
    command = ("compile", "scan.onnx", "--target", target, "-o", "p.ssmx", "--arch")
    refused(ssmc(*command, "bad.yaml"), folder, before, *says)
    refused(ssmc(*command, "nowhere.yaml"), folder, before, "nowhere.yaml")


@pytest.mark.parametrize("target", ["cim", "epochcore"])
def test_an_architecture_too_small(ssmc: Ssmc, folder: Path, target: str) -> None:
    if target == "cim":
        text = samples.arch_path("cim-published").read_text()
        text = re.sub(r"per_core: \d+", "per_core: 1", text).replace("reloads: true", "reloads: false")
    else:
        text = samples.arch_path("epochcore-small").read_text()
        text = re.sub(r"scratchpad_words: \d+", "scratchpad_words: 16", text)
    (folder / "small.yaml").write_text(text)
    before = set(folder.iterdir())
    command = ("compile", "scan.onnx", "--target", target, "-o", "p.ssmx", "--arch", "small.yaml")
    refused(ssmc(*command), folder, before, "does not fit", "demand", "bound", "gap", "do: ")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("frobnicate", [r"bad\.asm:\d+:\d+", "no instruction 'frobnicate'"]),
        ("loop qq, end=top", [r"bad\.asm:\d+:\d+", "loop", "expected"]),
        ("loop rT, stride=99999999999, end=top", [r"bad\.asm:\d+:\d+", "stride", "99999999999"]),
    ],
)
def test_assembly(ssmc: Ssmc, folder: Path, line: str, says: list[str]) -> None:
    assert ssmc("compile", "scan.onnx", "--target", "cim", "-o", "p.ssmx").status == 0
    text = ssmc("disasm", "p.ssmx").out
    place = text.index("\n    ", text.index(".section")) + 1
    (folder / "bad.asm").write_text(text[:place] + "top:\n    " + line + "\n" + text[place:])
    before = set(folder.iterdir())
    outcome = ssmc("asm", "bad.asm", "-o", "q.ssmx", "--data", "p.ssmx")
    refused(outcome, folder, before, *says, r"\^")


@pytest.mark.parametrize("damage", ["flip", "cut", "short", "empty", "text", "none", "onnx"])
def test_programs(ssmc: Ssmc, folder: Path, damage: str) -> None:
    assert ssmc("compile", "scan.onnx", "--target", "epochcore", "-o", "p.ssmx").status == 0
    whole = (folder / "p.ssmx").read_bytes()
    middle = len(whole) // 2
    spoilt = {
        "flip": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "cut": whole[:middle],
        "short": whole[:6],
        "empty": b"",
        "text": b"no program",
        "onnx": (folder / "scan.onnx").read_bytes(),
    }
    if damage != "none":
        (folder / "bad.ssmx").write_bytes(spoilt[damage])
    before = set(folder.iterdir())
    refused(ssmc("run", "bad.ssmx", "--input", "x.npz", "--output", "y.npz"), folder, before, r"bad\.ssmx")
    refused(ssmc("disasm", "bad.ssmx", "-o", "y.asm"), folder, before, r"bad\.ssmx")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("compile", "scan.onnx", "--target", "tpu"), ["no target is called 'tpu'", "cim, epochcore"]),
        (("compile", "scan.onnx", "--target", "cim", "--passes", "tiel"), ["tiel", "did you mean 'tile'"]),
        (("compile", "scan.onnx", "--target", "cim", "--passes", "share-decays{levles=2}"), ["levles", "levels"]),
        (("compile", "scan.onnx", "--target", "cim", "--emit", "asm,bin"), ["--emit cannot write 'bin'", "report"]),
        (("compile", "scan.onnx", "--target", "cim", "-o", "p.bin"), [r"ends in \.ssmx"]),
        (("compile", "scan.onnx", "--target", "cim", "-o", "no/p.ssmx"), ["the folder does not exist"]),
        (("compile", "scan.onnx", "--target", "cim", "--calibrate", "none.npz"), ["none.npz", "no such file"]),
        (("compile", "scan.onnx", "--target", "cim", "--calibrate", "scan.onnx"), ["scan.onnx", "not a readable"]),
        (("compile", "step.onnx", "--target", "cim", "--state", "x"), ["--state is IN=OUT, not 'x'"]),
        (("compile", "step.onnx", "--target", "cim", "--state", "q=x_next"), ["'q'"]),
        (("compile", "scan.onnx", "--target", "cim", "--print-ir-after", "fold"), ["no pass 'fold'"]),
        (
            ("compile", "scan.onnx", "--target", "epochcore", "--print-ir-after", "couple"),
            ["does not run the pass 'couple'"],
        ),
        (
            ("verify", "scan.onnx", "--target", "epochcore", "--input", "x.npz", "--print-ir-after", "couple"),
            ["does not run the pass 'couple'"],
        ),
        (
            ("verify", "scan.onnx", "--target", "epochcore", "--input", "x.npz", "--tolerance", "nan"),
            ["a tolerance is a number from 0 on, not nan"],
        ),
        (
            ("compile", "scan.onnx", "--target", "epochcore", "--passes", "default,schedule{steps=-1}"),
            ["steps is 0 or more"],
        ),
        (
            ("compile", "scan.onnx", "--target", "epochcore", "--passes", "default, quantise"),
            [r"pipeline:1:10: no pass is called 'quantise'", r"    default, quantise\n {13}\^{8}\n", "'quantize'"],
        ),
        (
            ("compile", "scan.onnx", "--target", "epochcore", "--passes", "schedule{batch=4},default"),
            [r"an earlier schedule\{batch=4\} would have no effect", r"do: .*'default,schedule\{batch=4\}'"],
        ),
        (
            ("compile", "scan.onnx", "--target", "epochcore", "--passes", "default,schedule{form=mat-vec}"),
            ["no layer of the model has the form 'mat-vec'", "--explain"],
        ),
        (("passes", "quantise"), ["no pass 'quantise'", "did you mean 'quantize'"]),
        (("compile", ".", "--target", "cim"), [r"error: \.: this is a folder"]),
        (("compile", "x.npz", "--target", "cim"), ["x.npz: not an ONNX file", r"do: .*\.onnx"]),
        (
            ("compile", "scan.onnx", "--target", "cim", "--arch", "cim-large{mesh.rows=2"),
            ["one pair of braces", "do: "],
        ),
        (("asm", "."), [r"error: \.: the assembly cannot be read", "directory"]),
        (("asm", "x.npz"), ["x.npz: not a text file", "ssmc disasm"]),
        (("asm", "p.asm", "-o", "p.asm"), [r"ends in \.ssmx", r"do: .*-o p\.ssmx"]),
        (("disasm", "scan.onnx"), ["scan.onnx: not a program file", "compile a model"]),
        (("run", "p.ssmx", "--input", "x.npz", "--noise", "pink"), ["no noise preset 'pink'", "leave --noise out"]),
        (("isa", "z80"), ["no target is called 'z80'"]),
        (("demo", "--sample", "mnist"), ["no sample is called 'mnist'"]),
    ],
)
def test_usage(ssmc: Ssmc, folder: Path, arguments: tuple[str, ...], says: list[str]) -> None:
    if arguments[0] == "run":
        assert ssmc("compile", "scan.onnx", "--target", "epochcore", "-o", "p.ssmx").status == 0
    before = set(folder.iterdir())
    refused(ssmc(*arguments), folder, before, *says)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "p.ssmx", "--input", "x.npz", "--output", "p.ssmx"),
        ("run", "p.ssmx", "--input", "x.npz", "--stats", "./x.npz"),
        ("run", "p.ssmx", "--input", "x.npz", "--stats", "s.json", "--trace", "s.json"),
        ("disasm", "p.ssmx", "-o", "p.ssmx"),
    ],
)
def test_nothing_is_written_over_what_is_read(ssmc: Ssmc, folder: Path, arguments: tuple[str, ...]) -> None:
    assert ssmc("compile", "scan.onnx", "--target", "epochcore", "-o", "p.ssmx", "--emit", "asm").status == 0
    before, whole = set(folder.iterdir()), (folder / "p.ssmx").read_bytes()
    refused(ssmc(*arguments), folder, before, "reads or writes this file already")
    assert (folder / "p.ssmx").read_bytes() == whole


@pytest.mark.parametrize("command", ["compile", "run", "verify"])
def test_a_seed_is_not_negative(ssmc: Ssmc, folder: Path, command: str) -> None:
    before = set(folder.iterdir())
    given = ("p.ssmx",) if command == "run" else ("scan.onnx", "--target", "cim")
    outcome = ssmc(command, *given, "--seed", "-1", *(() if command == "compile" else ("--input", "x.npz")))
    assert outcome.status == 2 and "-1 is not in the range" in outcome.err and set(folder.iterdir()) == before


@pytest.mark.parametrize("arguments", [("compil",), ("run",), ("compile", "scan.onnx"), ("run", "--blok", "3")])
def test_wrong_usage_shows_the_usage(ssmc: Ssmc, folder: Path, arguments: tuple[str, ...]) -> None:
    before = set(folder.iterdir())
    outcome = ssmc(*arguments)
    assert outcome.status == 2 and outcome.err.startswith("Usage: ssmc") and "Traceback" not in outcome.err
    assert set(folder.iterdir()) == before


def test_debug_shows_the_traceback(ssmc: Ssmc, folder: Path) -> None:
    for arguments in (("--debug", "isa", "z80"), ("isa", "z80", "--debug")):
        outcome = ssmc(*arguments)
        assert outcome.status == 2 and "Traceback" in outcome.err and "no target is called 'z80'" in outcome.err
