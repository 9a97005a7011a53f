"""The pages in docs: what they quote of programs is in these programs, and what they point to is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ssmc.cli.main import run
from ssmc.ir import Graph, StreamType, Tensor
from ssmc.passes import Context, PassManager

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)]*)?\)")
ADDRESS = re.compile(r"\b(spad|param|v)\[\d+\]")
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


def _instruction(line: str) -> str:
    return ADDRESS.sub(r"\1[]", " ".join(line.partition(";")[0].split()))
