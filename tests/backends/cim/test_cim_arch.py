"""Architecture files: the packaged ones, and the place of every mistake."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
from pydantic import BaseModel

from backends.cim import BACKEND
from backends.cim.arch import Architecture
from ssmc.diagnostics import UserError

TEXT = resources.files("samples").joinpath("arch", "cim-large.yaml").read_text(encoding="utf-8")


def test_packaged_architectures() -> None:
    assert BACKEND.architectures() == ("cim-isaac", "cim-large", "cim-published")
    assert BACKEND.default_arch in BACKEND.architectures()
    published = BACKEND.load_arch("cim-published")
    assert (published.arrays, published.crossbar.rows, published.crossbar.cols) == (4, 64, 64)
    large = BACKEND.load_arch(None)
    assert large.arrays >= 2 * 376  # DVS Lip, a pair of devices a weight
    assert large.name == "cim-large"


@pytest.mark.parametrize("name", BACKEND.architectures())
def test_every_number_names_its_source(name: str) -> None:
    text = resources.files("samples").joinpath("arch", f"{name}.yaml").read_text(encoding="utf-8")
    for line in text.splitlines():
        if re.search(r":\s*[-+0-9.]", line):
            assert re.search(r"#.*(ours|arXiv|NeuroSim|Wan 2022|RN-Net|ISAAC|published code|aihwkit)", line), line


def test_every_key_has_a_meaning() -> None:
    def walk(model: type[BaseModel]) -> None:
        for key, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                walk(field.annotation)
            else:
                assert field.description and field.description.endswith("."), key

    walk(Architecture)


def test_canonical_text_reads_back() -> None:
    for name in BACKEND.architectures():
        arch = BACKEND.load_arch(name)
        assert BACKEND.load_arch(BACKEND.arch_text(arch)) == arch


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("cores: 64 ", "coers: 64 ", (":6:3", "unknown key 'mesh.coers'", "did you mean 'cores'")),
        ("cores: 64 ", "cores: -4 ", (":6:10", "'mesh.cores'", "greater than or equal to 1; given -4")),
        ("rows: 64 ", "rows: many ", (":12:9", "'crossbar.rows'", "valid integer")),
        ("adc_bits: 8 ", "", (":11:", "'crossbar.adc_bits' is missing", "Bits of an ADC")),
        ("g_max: 40.0", "g_max: 0.5", (":11:3", "g_max (0.5 uS) must lie above g_min (1 uS)")),
        ("levels: 128 ", "slices: 8\n  levels: 128 ", (":11:3", "tell 7.21e+16 weights apart", "fewer slices")),
        ("hop_cycles: 1", "hop_cycles: [1", ("is not YAML",)),
        ("target: cim", "target: epochcore", ("'target'", "'cim'")),
        ("product_bits: 4.6", "product_bits: .inf", ("'devices.product_bits'", "finite")),
    ],
)
def test_mistakes_name_their_place(tmp_path: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "chip.yaml"
    assert old in TEXT
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(UserError) as caught:
        BACKEND.load_arch(str(path))
    message = str(caught.value)
    assert message.startswith(str(path))
    for word in words:
        assert word in message, message


def test_several_mistakes_in_one_message(tmp_path: Path) -> None:
    path = tmp_path / "chip.yaml"
    path.write_text(TEXT.replace("cores: 64", "coers: 64").replace("lanes: 16", "lanes: 0"))
    with pytest.raises(UserError) as caught:
        BACKEND.load_arch(str(path))
    assert all(word in str(caught.value) for word in ("mesh.coers", "mesh.cores", "vector.lanes"))


def test_not_an_architecture(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no architecture is called 'nowhere\.yaml' and there is no such file"
    ) as caught:
        BACKEND.load_arch("nowhere.yaml")
    assert "cim-published" in str(caught.value)
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="mapping"):
        BACKEND.load_arch(str(tmp_path / "list.yaml"))


def test_hops_are_a_metric() -> None:
    arch = BACKEND.load_arch(None)
    assert arch.mesh_width == 8 and arch.hops(0, 63) == 14 and arch.hops(9, 9) == 0
    assert all(arch.hops(a, b) == arch.hops(b, a) for a in range(0, 64, 5) for b in range(0, 64, 7))
