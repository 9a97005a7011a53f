"""What befalls a command from outside: names, permissions, closed pipes, full disks, passes that fail."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ssmc.cli.output import readable
from ssmc.diagnostics import UserError
from ssmc.driver import compile_model
from ssmc.ir import Graph
from ssmc.passes import Context, Pass
from tests.cli.conftest import Ssmc
from tests.cli.test_bad_input import COMPILE, refused

LONG = "a" * 5000
LINE = 600  # characters that a line of a message may have


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", LONG),
        ("compile", "scan.onnx", "--target", LONG),
        ("compile", "scan.onnx", "--target", "cim", "-o", f"{LONG}.ssmx"),
        ("compile", "scan.onnx", "--target", "cim", "--arch", LONG),
        ("compile", "scan.onnx", "--target", "cim", "--arch", f"cim-large{{{LONG}=1}}"),
        ("compile", "scan.onnx", "--target", "cim", "--passes", LONG),
        ("compile", "scan.onnx", "--target", "cim", "--passes", "tile{" * 1000),
        ("run", LONG, "--input", "x.npz"),
        ("run", "scan.onnx", "--input", LONG),
        ("asm", LONG),
        (LONG,),
        ("inspect", f"--{LONG}"),
    ],
)
def test_messages_are_short_whatever_the_names_are(ssmc: Ssmc, folder: Path, arguments: tuple[str, ...]) -> None:
    outcome = ssmc(*arguments)
    assert outcome.status == 2 and "rror: " in outcome.err and "defect" not in outcome.err
    assert max(map(len, outcome.err.splitlines())) < LINE, outcome.err[:1000]


def test_a_message_moves_no_cursor() -> None:
    assert readable("a\x1b[2Jb\0\x9f\tc\n") == "a\\x1b[2Jb\\x00\\x9f\tc\n"
    assert readable("x" * 320) == "x" * 320
    assert readable("y" * 5000 + " z") == "y" * 120 + "...(4840 more)..." + "y" * 40 + " z"


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", ""),
        ("asm", ""),
        ("disasm", ""),
        ("run", "p.ssmx", "--input", ""),
        ("run", "p.ssmx", "--input", "x.npz", "--output", ""),
        ("compile", "scan.onnx", "--target", "cim", "-o", ""),
        ("compile", "scan.onnx", "--target", "cim", "--calibrate", ""),
    ],
)
def test_an_empty_name_is_no_file(ssmc: Ssmc, folder: Path, arguments: tuple[str, ...]) -> None:
    before = set(folder.iterdir())
    outcome = ssmc(*arguments)
    assert outcome.status == 2 and "the name of a file is empty" in outcome.err and set(folder.iterdir()) == before


def test_a_folder_that_takes_no_files(ssmc: Ssmc, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before the work."""
    before = set(folder.iterdir())
    monkeypatch.setattr("ssmc.files.os.access", lambda *_: False)
    monkeypatch.setattr("ssmc.driver.load_model", None)
    refused(ssmc(*COMPILE, "scan.onnx"), folder, before, "p.ssmx: the file cannot be written", "no permission")


def test_files_that_may_not_be_read(ssmc: Ssmc, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ssmc("compile", "scan.onnx", "--target", "cim", "-o", "p.ssmx").status == 0
    before = set(folder.iterdir())

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(np, "load", deny)
        refused(ssmc("run", "p.ssmx", "--input", "x.npz"), folder, before, "x.npz: no permission to read this file")
    with monkeypatch.context() as patch:
        patch.setattr("safetensors.safe_open", lambda *_, **__: deny())
        patch.setattr("isa.container.os.access", lambda *_: False)
        refused(ssmc("disasm", "p.ssmx"), folder, before, "p.ssmx: no permission to read this file")


def test_an_array_beyond_the_memory(ssmc: Ssmc, folder: Path) -> None:
    assert ssmc("compile", "scan.onnx", "--target", "cim", "-o", "p.ssmx").status == 0
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 5, 200), }".ljust(117) + b"\n"
    with zipfile.ZipFile(folder / "huge.npz", "w") as file:
        file.writestr("u.npy", b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header)
    before = set(folder.iterdir())
    refused(ssmc("run", "p.ssmx", "--input", "huge.npz"), folder, before, "huge.npz: it holds 10{15} numbers .at most")


def _command(*arguments: str, **how: object) -> subprocess.CompletedProcess[str]:
    code = "from ssmc.cli.main import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], text=True, check=False, **how)  # type: ignore[call-overload,no-any-return]


def test_no_room_on_the_disk(ssmc: Ssmc, folder: Path) -> None:
    """A file is written whole or not at all."""
    assert ssmc("compile", "scan.onnx", "--target", "cim", "-o", "p.ssmx").status == 0
    before = set(folder.iterdir())
    limited = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # noqa: E731
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # Python itself would leave cut bytecode to other commands
    found = _command("disasm", "p.ssmx", "-o", "p.asm", capture_output=True, preexec_fn=limited, env=env)
    assert found.returncode == 2 and found.stderr.startswith("error: p.asm: the file cannot be written")
    assert set(folder.iterdir()) == before


def test_bytecode_that_was_cut(tmp_path: Path) -> None:
    """What a full disk leaves of Python's own files is told, and is no interrupt (click takes EOFError for one)."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(tmp_path)
    assert _command("targets", capture_output=True, env=env).returncode == 0
    (cut,) = tmp_path.rglob("listing.*.pyc")
    cut.write_bytes(cut.read_bytes()[:1000])
    found = _command("targets", capture_output=True, env=env)
    assert found.returncode == 2 and found.stderr.lstrip().startswith("error: a file ends too early: marshal")


def test_outputs_that_the_shell_closed(folder: Path) -> None:
    script = '"$0" -c "from ssmc.cli.main import main; main()" passes'
    for closing in (">&-", ">&- 2>&-", "<&- 2>&-"):
        found = subprocess.run(["bash", "-c", f"{script} {closing}", sys.executable], capture_output=True, check=False)
        assert found.returncode == 0 and found.stderr == b""


def test_assembly_with_a_byte_order_mark(ssmc: Ssmc, folder: Path) -> None:
    assert ssmc("compile", "scan.onnx", "--target", "cim", "-o", "p.ssmx", "--emit", "asm").status == 0
    (folder / "mark.asm").write_bytes(b"\xef\xbb\xbf" + (folder / "p.asm").read_bytes().replace(b"\n", b"\r\n"))
    assert ssmc("asm", "mark.asm", "-o", "q.ssmx", "--data", "p.ssmx").status == 0
    assert (folder / "q.ssmx").read_bytes() == (folder / "p.ssmx").read_bytes()


@dataclass(frozen=True)
class Failing(Pass):
    """Fails."""

    name = "failing"

    def run(self, graph: Graph, context: Context) -> Graph:
        return graph.no_such_thing  # type: ignore[attr-defined,no-any-return]


def test_a_pass_of_someone_elses_that_fails(folder: Path) -> None:
    with pytest.raises(UserError, match="pass 'failing': the pass failed") as caught:
        compile_model("scan.onnx", "cim", passes=[Failing()])
    assert "AttributeError" in caught.value.why and isinstance(caught.value.__cause__, AttributeError)


@pytest.mark.parametrize(
    ("target", "change", "says"),
    [
        ("cim", "crossbar.rows=1" + 30 * "0", "at most 2147483647"),
        ("cim", "devices.product_bits=100000", "less than or equal to 64"),
        ("cim", "devices.age_seconds=1e300", r"between 1e-30 and 1e\+30"),
        ("cim", "devices.stuck_low=0.7,devices.stuck_high=0.7", "more than all"),
        ("cim", "crossbar.adc_bits=4,crossbar.adc_bits=5", "'crossbar.adc_bits' is changed twice"),
        ("cim", "crossbar=1", "'crossbar' is a section; given 1"),
        ("cim", ".=1", "is not a change to an architecture"),
        ("epochcore", "clock_hz=1e15", "less than or equal to 1000000000000"),
        ("epochcore", "dram.bytes_per_second=1e-20", "greater than or equal to 1000"),
    ],
)
def test_numbers_beyond_all_machines(ssmc: Ssmc, folder: Path, target: str, change: str, says: str) -> None:
    before = set(folder.iterdir())
    name = {"cim": "cim-large", "epochcore": "epochcore-128"}[target]
    refused(ssmc(*COMPILE, "scan.onnx", "--target", target, "--arch", f"{name}{{{change}}}"), folder, before, says)


def test_another_targets_architecture(ssmc: Ssmc, folder: Path) -> None:
    outcome = ssmc(*COMPILE, "scan.onnx", "--arch", "epochcore-128")
    refused(outcome, folder, set(folder.iterdir()), "'epochcore-128' is one of another target")


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        (["x=y"], "'y' cannot be the next value of 'x'"),
        (["x=x_next", "x=y"], "names the input 'x' twice"),
        (["x=x_next", "u=x_next"], "next value of two states"),
        (["x=x_next", "u=y"], "none is left for data"),
    ],
)
def test_states_that_are_none(ssmc: Ssmc, folder: Path, pairs: list[str], says: str) -> None:
    before = set(folder.iterdir())
    given = [word for pair in pairs for word in ("--state", pair)]
    refused(ssmc("inspect", "step.onnx", *given), folder, before, says)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 0], [0, -1, 0, 0, 0]])
def test_labels_beyond_the_classes(ssmc: Ssmc, folder: Path, labels: list[int]) -> None:
    assert ssmc("compile", "scan.onnx", "--target", "cim", "-o", "p.ssmx").status == 0
    np.savez(folder / "labels.npz", labels=np.array(labels))
    before = set(folder.iterdir())
    outcome = ssmc("run", "p.ssmx", "--input", "x.npz", "--trials", "1", "--labels", "labels.npz")
    refused(outcome, folder, before, "labels from .* do not fit the output 'logits' of 3 classes")


def test_results_that_are_no_numbers(ssmc: Ssmc, folder: Path) -> None:
    np.savez(folder / "large.npz", u=np.full((1, 4, 2), 3e38, np.float32))
    before = set(folder.iterdir())
    outcome = ssmc("verify", "scan.onnx", "--target", "epochcore", "--ideal", "--input", "large.npz")
    refused(outcome, folder, before, "onnxruntime's own output 'logits' is -?(inf|nan) at")


def test_inputs_on_which_onnxruntime_fails(ssmc: Ssmc, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(feed: object) -> None:
        raise TypeError("no such size")

    monkeypatch.setattr("ssmc.frontend.proofs.reference.runner", lambda path: fails)
    before = set(folder.iterdir())
    outcome = ssmc("verify", "scan.onnx", "--target", "epochcore", "--ideal", "--input", "x.npz")
    refused(outcome, folder, before, "scan.onnx: onnxruntime cannot run the file on these inputs", "no such size")


@pytest.mark.parametrize(
    ("pipeline", "says"),
    [("defualt", "did you mean 'default'"), ("default{levels=2}", "takes no options"), ("TILE", "did you mean 'tile'")],
)
def test_names_that_are_nearly_right(ssmc: Ssmc, folder: Path, pipeline: str, says: str) -> None:
    refused(ssmc(*COMPILE, "scan.onnx", "--passes", pipeline), folder, set(folder.iterdir()), says)


def test_costs_of_sequences_without_end(ssmc: Ssmc, folder: Path) -> None:
    before = set(folder.iterdir())
    pipeline = f"default,schedule{{steps={10**20}}}"
    refused(ssmc(*COMPILE, "scan.onnx", "--passes", pipeline), folder, before, "steps is at most")


def test_links_that_lead_round_in_a_circle(ssmc: Ssmc, folder: Path) -> None:
    (folder / "p.ssmx").symlink_to("p.ssmx")
    outcome = ssmc("compile", "scan.onnx", "--target", "epochcore", "-o", "p.ssmx")
    assert outcome.status == 2 and "cannot be written" in outcome.err and "defect" not in outcome.err


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a file without an end")
def test_text_without_an_end_is_refused(ssmc: Ssmc, folder: Path) -> None:
    for arguments in (("asm", "/dev/zero", "-o", "z.ssmx"), (*COMPILE, "scan.onnx", "--arch", "/dev/zero")):
        outcome = ssmc(*arguments)
        assert outcome.status == 2 and "/dev/zero: this is more than" in outcome.err and "MiB of text" in outcome.err
