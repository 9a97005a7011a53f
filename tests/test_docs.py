"""The pages in docs: what they quote of programs is in these programs, and what they point to is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ssmc.cli.main import run
from ssmc.ir import Graph, StreamType, Tensor
from ssmc.passes import Context, PassManager, available, parse_pipeline
from ssmc.target import backends

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)]*)?\)")
ADDRESS = re.compile(r"\b(spad|param|v)\[\d+\]")
BRACES = re.compile(r"([a-z][\w-]*\{[\w.]+=[^{}`']*\})")
SESSION = re.compile(r"(?ms)^```console\n\$ ssmc compile (.*?)\n.*?^```$.*?^```text\n(.*?)^```$")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = [link for link, _ in LINK.findall(page.read_text("utf-8"))]
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_pass_in_the_guide_is_a_pass() -> None:
    (source,) = re.findall(r"(?ms)^```python\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    made: dict[str, Any] = {}
    exec(source, made)
    graph = Graph()
    u = graph.add("input", [], {"name": "u", "type": StreamType((1,)), "axes": "btf"})
    y = graph.add("linear", [u], {"weight": Tensor([[0.5, 0.0001]])})
    graph.add("output", [y], {"name": "y"})
    found = PassManager([made["DropSmall"](below=0.01)]).run(graph, Context())
    assert [node.op["weight"].array.tolist() for node in found.nodes("linear")] == [[[0.5, 0.0]]]


def test_the_listings_are_parts_of_the_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Line for line, in this order, whatever stands between them; where in a memory things lie may change."""
    sessions = SESSION.findall((ROOT / "docs" / "assembly.md").read_text("utf-8"))
    assert len(sessions) == 2
    monkeypatch.chdir(ROOT)
    for command, listing in sessions:
        words = command.split()
        words[words.index("-o") + 1] = str(tmp_path / "p.ssmx")
        assert run(["compile", *words]) == 0
        capsys.readouterr()
        assert run(["disasm", str(tmp_path / "p.ssmx")]) == 0
        printed = iter([_instruction(line) for line in capsys.readouterr().out.splitlines()])
        missing = [line for line in listing.splitlines() if not any(_instruction(line) == other for other in printed)]
        assert not missing, f"docs/assembly.md quotes what `ssmc compile {command}` does not give (any more)"


def test_a_machine_of_ones_own_is_checked_and_run_as_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def session() -> str:
        lines = []
        for line in (command.removeprefix("$ ") for command in re.findall(r"(?m)^\$ .*$", block)):
            run(line.replace(" samples/", f" {ROOT}/samples/").split()[1:])
            said = capsys.readouterr()
            lines.append(f"$ {line}\n{said.out}{said.err}")
        return "".join(lines)

    monkeypatch.chdir(tmp_path)
    wrong, right = re.findall(r"(?ms)^```console\n(.*?)^```$", (ROOT / "docs" / "architectures.md").read_text("utf-8"))
    assert run(["targets", "epochcore", "--arch", "tpu-like-128"]) == 0
    text = capsys.readouterr().out
    for old, new in (("name: .*", "name: mine"), ("rows: 128", "rows: 64"), ("cols: 128", "cols: 64")):
        text = re.sub(old, new, text, count=1)
    text = text.replace("mac.os", "mac.os\n  - fri").replace("mac_depth: 1", "mac_dept: 4")
    for block, key in ((wrong, "mac_dept"), (right, "mac_depth")):
        Path("mine.yaml").write_text(text.replace("mac_dept:", f"{key}:"))
        assert session() == block


def test_quoted_passes_and_architectures_are_taken() -> None:
    """Names, options and keys of all `NAME{KEY=VALUE,...}` in the pages; `N` and `K` stand for numbers."""
    quoted = {
        re.sub(r"(?<==)[A-Z]\b", "2", " ".join(text.split()))
        for page in PAGES
        for text in BRACES.findall(page.read_text("utf-8"))
    }
    passes = {info.name for info in available()}
    targets = {arch: target for target in backends().values() for arch in target.architectures()}
    taken = {"pass": 0, "arch": 0}
    for text in sorted(quoted):
        name = text.partition("{")[0]
        if name in passes:
            parse_pipeline(text)
            taken["pass"] += 1
        elif name in targets:
            targets[name].load_arch(text)
            taken["arch"] += 1
    assert min(taken.values()) > 3


def _instruction(line: str) -> str:
    return ADDRESS.sub(r"\1[]", " ".join(line.partition(";")[0].split()))
