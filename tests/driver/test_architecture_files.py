"""What architecture files of every target have in common: mistakes that YAML itself would let pass."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import yaml

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


ANCHORS = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{k: *a{i - 1}, l: *a{i - 1}}}\n" for i in range(1, 40))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: [1, 2020-13-45]\n", r":1:8: '2020-13-45' cannot be read as"),
        (f"a: {'9' * 5000}\n", r":1:4: '9{40}' cannot be read as"),
        ("a: 1\nb: !!bool maybe\n", r":2:4: 'maybe' cannot be read as"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deep"),
        ("a: &a {b: *a}\n", "more than 4000 values"),
        (ANCHORS, "more than 4000 values"),
        ("".join(f"k{i}: 1\n" for i in range(3000)), "more than 4000 values"),
    ],
)
def test_yaml_that_is_none_of_ours_is_refused(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(content)
    for changes in ("", "{crossbar.rows=32}"):
        with pytest.raises(UserError, match=says.partition(": ")[2] or says):
            backend("cim").load_arch(f"{tmp_path / 'own.yaml'}{changes}")


@pytest.mark.parametrize("value", ["2020-13-45", "9" * 5000, "!!int x", "[" * 5000])
def test_a_change_to_what_is_no_value_is_refused(value: str) -> None:
    with pytest.raises(UserError, match=r"is not a value"):
        backend("cim").load_arch(f"cim-large{{crossbar.adc_bits={value}}}")


def test_a_file_with_a_key_twice_is_refused_with_changes_too(tmp_path: Path) -> None:
    target = backend("cim")
    path = changed(target, r"^( +)rows: \d+$", r"\1rows: 64\n\1rows: 32", tmp_path)
    with pytest.raises(UserError, match="rows' is given twice"):
        target.load_arch(f"{path}{{crossbar.adc_bits=6}}")


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


@pytest.mark.parametrize(("name", "rows"), [("cim", "crossbar.rows"), ("epochcore", "array.rows")])
def test_a_change_in_braces(name: str, rows: str, tmp_path: Path) -> None:
    target = backend(name)
    other = target.load_arch(f"{target.default_arch}{{{rows}=32}}")
    whole = target.arch_text(other)
    assert "rows: 32\n" in whole and f"name: {target.default_arch}{{{rows}=32}}" in whole
    (tmp_path / "whole.yaml").write_text(whole)
    assert target.load_arch(str(tmp_path / "whole.yaml")) == other
    assert target.load_arch(f"{target.default_arch}{{}}") == target.load_arch(None)
    file = changed(target, r"rows: \d+$", "rows: 16", tmp_path)
    assert "rows: 32\n" in target.arch_text(target.load_arch(f"{file}{{ {rows} = 32, }}"))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("loud=1", "unknown key 'loud'"),
        ("array.rowz=1", "rowz|unknown key 'array'"),
        ("name.x=1", "is not a change"),
        ("mesh", "is not a change"),
        ("=3", "is not a change"),
        ("name=[1", "is not a value"),
    ],
)
def test_a_change_that_is_none(name: str, change: str, says: str) -> None:
    target = backend(name)
    with pytest.raises(UserError, match=says):
        target.load_arch(f"{target.default_arch}{{{change}}}")
    with pytest.raises(UserError, match=f"did you mean '{target.default_arch}'"):
        target.load_arch(target.default_arch.replace("-", "_") + "{mesh.cores=2}")


@pytest.mark.parametrize(("name", "wrong"), [("cim", "crossbar.rows=0"), ("epochcore", "array.rows=0")])
def test_a_wrong_change_has_no_line(name: str, wrong: str) -> None:
    """The text that it makes is nobody's."""
    target = backend(name)
    source = f"{target.default_arch}{{{wrong}}}"
    with pytest.raises(UserError, match=wrong.partition("=")[0]) as caught:
        target.load_arch(source)
    assert str(caught.value).startswith(f"{source}: ")


def test_a_list_in_braces() -> None:
    """Its commas do not end the change."""
    target = backend("epochcore")
    made = target.load_arch("epochcore-small{array.modes=[mac, fri], array.rows=32}")
    assert made.array.modes == ("mac", "fri") and made.array.rows == 32
    with pytest.raises(UserError, match="is not a value"):
        target.load_arch("epochcore-small{array.modes=[mac,fri}")


def test_as_many_changes_as_one_likes() -> None:
    """More than the name of a file could hold."""
    sizes = {"port_words_in": 24, "port_words_out": 24, "states_per_element": 3, "handover_steps": 5, "column_words": 2}
    given = [*(f"array.{name}={size}" for name, size in sizes.items()), "array.modes=[mac, mac.os, fri, fri.x]"]
    given += [
        "memory.scratchpad_words=65536",
        "memory.parameter_words=65536",
        "memory.stream_words=4096",
        "dram.latency_cycles=7",
    ]
    made = backend("epochcore").load_arch(f"epochcore-small{{{','.join([*given, 'memory.bank_ports=2'])}}}")
    assert len(",".join(given)) > 255 and made.memory.bank_ports == 2
    assert {name: getattr(made.array, name) for name in sizes} == sizes


def flat(value: object, path: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {path: value}
    return {key: v for name, inside in value.items() for key, v in flat(inside, f"{path}.{name}".strip(".")).items()}


@pytest.mark.parametrize(("name", "base"), [("cim", None), ("epochcore", "epochcore-128{memory.banks=0}")])
def test_every_key_is_told_with_what_it_is_where_it_is_left_out(name: str, base: str | None, tmp_path: Path) -> None:
    """Without banks: one port each, as where that key is left out, would be too few of them."""
    target = backend(name)
    told = {key.path: key for key in target.arch_keys()}
    whole = yaml.safe_load(target.arch_text(target.load_arch(base)))
    assert list(told) == list(flat(whole)) and all(key.meaning for key in told.values())
    file = tmp_path / "own.yaml"
    for path, key in told.items():
        less = copy.deepcopy(whole)
        *sections, last = path.split(".")
        inside = less
        for section in sections:
            inside = inside[section]
        del inside[last]
        file.write_text(yaml.safe_dump(less))
        if key.default is None:
            with pytest.raises(UserError, match=f"'{re.escape(path)}' is missing"):
                target.load_arch(str(file))
        else:
            found = flat(yaml.safe_load(target.arch_text(target.load_arch(str(file)))))[path]
            assert json.dumps(found).strip('"') == key.default
            assert type(found) is not str or key.values.startswith("text") or found in key.values
