"""Architecture files: what is packaged, and what is refused."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, arch_text, architectures, load_arch, parse_arch
from ssmc.diagnostics import UserError


def packaged(name: str) -> str:
    return files("samples").joinpath("arch", f"{name}.yaml").read_text(encoding="utf-8")


def test_packaged_architectures() -> None:
    assert {"epochcore-128", "epochcore-small", "tpu-like-128", "tpu-v1-256"} <= set(architectures())
    assert BACKEND.default_arch in BACKEND.architectures()
    assert load_arch(None).name == BACKEND.default_arch
    assert load_arch("tpu-like-128").array.modes == ("mac", "mac.os")


@pytest.mark.parametrize("name", architectures())
def test_every_number_says_where_it_comes_from(name: str) -> None:
    for line in packaged(name).splitlines():
        if re.match(r"\s*\w+:\s*[\d.]", line):
            assert re.search(r"#\s*\S+", line), f"{name}: {line}"


@pytest.mark.parametrize("name", architectures())
def test_text_round_trip(name: str) -> None:
    assert parse_arch(arch_text(load_arch(name))) == load_arch(name)


def test_every_field_is_explained() -> None:
    for part in ("array", "numbers", "memory", "dram", "vector", "energy"):
        fields = Arch.model_fields[part].annotation.model_fields  # type: ignore[union-attr]
        assert all(field.description for field in fields.values())


def broken(change: tuple[str, str], tmp_path: Path) -> UserError:
    path = tmp_path / "mine.yaml"
    path.write_text(packaged("epochcore-small").replace(*change))
    with pytest.raises(UserError) as caught:
        load_arch(str(path))
    return caught.value


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        (("  rows: 16", "  rows: -16"), "rows:", "'array.rows': input should be greater than or equal to 1; given -16"),
        (("  width:", "  wdith:"), "wdith:", "did you mean 'width'?"),
        (("  width:", "  wdith:"), "wdith:", "the key 'vector.width' is missing"),
        (("clock_hz:", "# clock_hz:"), "name:", "the key 'clock_hz' is missing"),
        (
            ("  shadow:", "  extra: 1\n  shadow:"),
            "extra:",
            "unknown key 'array.extra'\n  do:  the keys here are: rows, cols",
        ),
        (("complex: ganged", "complex: sideways"), "complex:", "'array.complex'"),
        (("state_bits: 24", "state_bits: 40"), "weight_bits:", "must not exceed 52"),
        (("clock_hz: 700.0e+6", "clock_hz: .nan"), "clock_hz:", "'clock_hz'"),
        (("modes: [mac", "modes: [macaroni"), "modes:", "'array.modes.0'"),
        (("modes: [mac, mac.os, fri", "modes: [fri"), "rows:", "modes must hold mac or mac.os"),
        (("modes: [mac, mac.os, fri, fri.x, tri, tri.x, sel]", "modes: []"), "rows:", "modes must hold mac or mac.os"),
        (("  cols: 16", "  cols: 1"), "rows:", "an array of 16 x 1 holds no complex state: ganged, it takes 2 x 2"),
        (("state_fraction_bits: 18", "state_fraction_bits: 24"), "weight_bits:", "one of them is the sign"),
    ],
)
def test_mistakes_are_told_with_their_line(change: tuple[str, str], key: str, message: str, tmp_path: Path) -> None:
    error = broken(change, tmp_path)
    text = packaged("epochcore-small").replace(*change).splitlines()
    line = next(i for i, content in enumerate(text, 1) if content.strip().startswith(key))
    assert f"mine.yaml:{line}" in str(error)
    assert message in str(error)


def test_not_yaml(tmp_path: Path) -> None:
    assert "mine.yaml:" in broken(("array:", "array: ["), tmp_path).where


def test_no_such_architecture() -> None:
    with pytest.raises(UserError, match="no architecture is called 'nowhere'"):
        load_arch("nowhere")
