"""The README tells the truth: its sessions are run and print what it says, its Python is executed.

`pytest --renew-goldens tests/test_readme.py` writes what they print into it.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?\Z")
INDEX = re.compile(r"\[?\d+[,\]]\Z")
RULE = re.compile(r"─+\Z")
BLOCK = re.compile(r"(?ms)^```(console|python)\n(.*?)^```$")


def same(said: str, printed: str) -> bool:
    """Equal word by word; numbers may differ by rounding, errors below 1e-5 in size, and so where the worst one is
    and how wide that makes a table."""
    left, right = said.split(), printed.split()
    return len(left) == len(right) and all(map(same_word, left, right))


def same_word(said: str, printed: str) -> bool:
    if any(kind.match(said) and kind.match(printed) for kind in (INDEX, RULE)):
        return True
    if said == printed or not (NUMBER.match(said) and NUMBER.match(printed)):
        return said == printed
    a, b = float(said), float(printed)
    return abs(a - b) <= 0.02 * max(abs(a), abs(b)) or max(abs(a), abs(b)) < 1e-5


def execute(arguments: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{arguments}\n{done.stderr}"
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines()) + "\n"


def session(block: str, folder: Path) -> str:
    """A block of `$ ssmc ...` lines with what they print now."""
    lines = []
    for part in re.split(r"(?m)^\$ ", block)[1:]:
        command = re.match(r"(?:.*\\\n)*.*\n", part)
        assert command is not None
        words = shlex.split(command[0].replace("\\\n", " "))
        assert words[0] == "ssmc"
        lines.append(f"$ {command[0]}{execute(['-m', 'ssmc', *words[1:]], folder)}")
    return "".join(lines)


def script(block: str, folder: Path) -> str:
    """A block of Python whose last line says what it prints, with what it prints now."""
    head, mark, _ = block.rpartition("# prints ")
    return f"{head}{mark}{execute(['-c', block], folder)}"


@pytest.mark.long
def test_the_readme(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    text = README.read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert {kind for kind, _ in blocks} == {"console", "python"}
    stale = []
    for kind, said in blocks:
        now = session(said, tmp_path) if kind == "console" else script(said, tmp_path)
        if not same(said, now):
            stale.append(f"the README says:\n{said}\nit prints:\n{now}")
        text = text.replace(said, now)
    if request.config.getoption("--renew-goldens"):
        README.write_text(text, encoding="utf-8")
    else:
        assert not stale, "\n".join(stale)
