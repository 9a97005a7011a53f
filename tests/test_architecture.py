"""The rooms import one way (the contracts stand in pyproject.toml), and no file is too long to read at a sitting."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("isa", "ssmc", "backends", "samples", "benchmarks", "tests")
MOST_LINES = 400


def test_import_contracts_hold() -> None:
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", script, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_files_are_short() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for f in FOLDERS for path in (ROOT / f).rglob("*.py")}
    assert len(lengths) > 100
    assert not {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > MOST_LINES}
