"""What architecture files of every target have in common: mistakes that YAML itself would let pass."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ssmc.diagnostics import UserError
from ssmc.target import Backend, backend

TARGETS = ("cim", "epochcore")


def changed(target: Backend, pattern: str, replacement: str, folder: Path) -> str:
    """The default architecture with one line changed, as a file."""
    text = target.arch_text(target.load_arch(None))
    new, count = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
    assert count == 1
    path = folder / "own.yaml"
    path.write_text(new)
    return str(path)


def refused(target: Backend, path: str) -> str:
    with pytest.raises(UserError) as caught:
        target.load_arch(path)
    assert re.match(rf"{re.escape(path)}:\d+:\d+: ", str(caught.value))
    return str(caught.value)


@pytest.mark.parametrize("name", TARGETS)
def test_a_key_given_twice_is_refused(name: str, tmp_path: Path) -> None:
    target = backend(name)
    path = changed(target, r"^( +)rows: \d+$", r"\1rows: 64\n\1rows: 32", tmp_path)
    said = refused(target, path)
    line = next(i for i, text in enumerate(Path(path).read_text().splitlines(), 1) if text.strip() == "rows: 32")
    assert f":{line}:" in said and "rows' is given twice" in said and f"first: line {line - 1}" in said


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("value", ["true", "no", "lots", "64.5", ".nan", "[64]", "{}", ""])
def test_what_is_no_whole_number_is_refused(name: str, value: str, tmp_path: Path) -> None:
    target = backend(name)
    assert "rows'" in refused(target, changed(target, r"rows: \d+$", f"rows: {value}", tmp_path))


@pytest.mark.parametrize("name", TARGETS)
def test_a_number_without_a_point_is_a_number(name: str, tmp_path: Path) -> None:
    target = backend(name)
    assert "rows: 100\n" in target.arch_text(target.load_arch(changed(target, r"rows: \d+$", "rows: 1e2", tmp_path)))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("content", ["", "- 1\n", "word\n", "# nothing\n"])
def test_a_file_without_keys_is_refused(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(content)
    assert "mapping" in refused(backend(name), str(tmp_path / "own.yaml"))


@pytest.mark.parametrize("name", TARGETS)
def test_a_name_nearly_right_is_told(name: str, tmp_path: Path) -> None:
    target = backend(name)
    with pytest.raises(UserError, match=f"did you mean '{target.default_arch}'"):
        target.load_arch(target.default_arch.replace("-", "_"))
    (tmp_path / "own.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not text"):
        target.load_arch(str(tmp_path / "own.yaml"))
    with pytest.raises(UserError, match="cannot be read"):
        target.load_arch(str(tmp_path))
