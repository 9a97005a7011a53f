"""Pipelines as text, and the registry behind them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib.metadata import EntryPoint

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc import passes
from ssmc.diagnostics import UserError
from ssmc.ir import Graph
from ssmc.passes import Context, Pass, available, parse_pipeline, register, registry, show_pipeline
from ssmc.passes.quantize import Quantize
from ssmc.passes.registry import pass_classes
from ssmc.passes.share_decays import ShareDecays
from ssmc.passes.tile import Tile

CANONICAL = [
    "",
    "tile",
    "fold-constants,fold-norms,discretize,diagonalize,halve-conjugates,tile,map-weights,schedule",
    "discretize{method=bilinear}",
    "share-decays{levels=6,refit=false,ridge=0.001},quantize{weights=6}",
    "share-decays{levels=2,tolerance=0.05},tile{fold_input=false}",
    "diagonalize{max_condition=100.0,tolerance=1e-07}",
]


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


@pytest.mark.parametrize("text", CANONICAL)
def test_canonical_text_comes_back(text: str) -> None:
    assert show_pipeline(parse_pipeline(text)) == text


def test_text_and_python_are_the_same() -> None:
    assert parse_pipeline(" share-decays { levels = 6 },\n quantize{weights=8, decays=16} ,tile") == (
        ShareDecays(levels=6),
        Quantize(weights=8, decays=16),
        Tile(),
    )


def test_the_overview_has_every_pass_in_its_order() -> None:
    told = re.findall(r"(?m)^    ([a-z][a-z-]+)(?:{\w+=\d+})?  ", passes.__doc__ or "")
    assert told == [info.name for info in available()]


option_values = st.fixed_dictionaries(
    {},
    optional={
        "levels": st.none() | st.integers(1, 99),
        "refit": st.booleans(),
        "ridge": st.floats(0, 1e3),
        "length": st.none() | st.integers(2, 99),
        "tolerance": st.floats(0, allow_nan=False),
    },
)


@given(st.lists(option_values, max_size=3))
def test_passes_come_back_from_their_text(options: list[dict[str, object]]) -> None:
    passes = tuple(ShareDecays(**chosen) for chosen in options)  # type: ignore[arg-type]
    assert parse_pipeline(show_pipeline(passes)) == passes


@given(st.text(alphabet='abtile-_{}=,0123.e"\n ', max_size=30))
@settings(max_examples=300)
def test_any_text_is_passes_or_one_clear_error(text: str) -> None:
    try:
        passes = parse_pipeline(text)
    except UserError as error:
        assert error.where.startswith("pipeline:") and "^" in error.what
    else:
        assert parse_pipeline(show_pipeline(passes)) == passes


@pytest.mark.parametrize(
    ("text", "where", "told"),
    [
        ("tile,share-decay{levels=6}", "pipeline:1:6", "did you mean 'share-decays'"),
        ("share-decays{level=6}", "pipeline:1:14", "did you mean 'levels'"),
        ("share-decays{levels=6.5}", "pipeline:1:21", "cannot be 6.5"),
        ("share-decays{levels=many}", "pipeline:1:21", "valid integer"),
        ("share-decays{levels=0}", "pipeline:1:1", "at least 1"),
        ("share-decays{levels=1,levels=2}", "pipeline:1:23", "given twice"),
        ("discretize{method=zho}", "pipeline:1:19", "'zoh'"),
        ("quantize{weights=1}", "pipeline:1:1", "2 to 52"),
        ("tile\n,,schedule", "pipeline:2:2", "unexpected ','"),
        ("tile{fold_input=true", "pipeline:1:21", "ends too early"),
        ("tile;", "pipeline:1:5", "unexpected ';'"),
    ],
)
def test_mistakes_are_shown_in_place(text: str, where: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_pipeline(text)
    assert caught.value.where == where
    assert told in str(caught.value)
    line, caret = caught.value.what.splitlines()[1:]
    assert caret.index("^") - 4 == int(where.rpartition(":")[2]) - 1
    assert line.strip() in text


def test_a_targets_own_pipeline_stands_once() -> None:
    own = "quantize,tile"
    assert parse_pipeline("default,schedule", own) == parse_pipeline("quantize,tile,schedule")
    with pytest.raises(UserError, match="stands there twice") as caught:
        parse_pipeline("default,schedule,default", own)
    assert caught.value.where == "pipeline:1:18"


@dataclass(frozen=True)
class Nothing(Pass):
    """Does nothing.

    before  %y = f(%x)
    after   %y = f(%x)
    """

    name = "nothing"
    how: str
    often: int = 1

    def run(self, graph: Graph, context: Context) -> Graph:
        return graph


def test_a_registered_pass_is_known_by_name() -> None:
    register(Nothing)
    register(Nothing)  # a notebook cell run again
    assert parse_pipeline('nothing{how="a b"}') == (Nothing("a b"),)
    assert show_pipeline([Nothing("a b", 2), Nothing("slowly")]) == 'nothing{how="a b",often=2},nothing{how=slowly}'
    with pytest.raises(UserError, match="needs the option 'how'"):
        parse_pipeline("nothing")
    info = next(info for info in available() if info.name == "nothing")
    assert info.doc.startswith("Does nothing.")
    assert [(option.name, option.type) for option in info.options] == [("how", "str"), ("often", "int")]


def test_unfit_passes_are_refused() -> None:
    with pytest.raises(UserError, match="subclass"):
        register(int)  # type: ignore[type-var]

    class Plain(Pass):
        name = "plain"

        def run(self, graph: Graph, context: Context) -> Graph:
            return graph

    with pytest.raises(UserError, match="dataclass"):
        register(Plain)

    @dataclass(frozen=True)
    class Shouting(Plain):
        name = "SHOUT"

    with pytest.raises(UserError, match="kebab-case"):
        register(Shouting)

    @dataclass(frozen=True)
    class Other(Plain):
        name = "tile"

    with pytest.raises(UserError, match=r"belongs to the pass ssmc\.passes\.tile\.Tile"):
        register(Other)


@pytest.fixture
def fresh_entry_points(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    points: list[EntryPoint] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "ssmc.passes" else [])
    registry._installed.cache_clear()
    yield points
    registry._installed.cache_clear()


def test_passes_of_installed_packages_are_found(fresh_entry_points: list[EntryPoint]) -> None:
    fresh_entry_points.append(EntryPoint("nothing", f"{__name__}:Nothing", "ssmc.passes"))
    assert pass_classes()["nothing"] is Nothing


def test_a_broken_package_is_named(fresh_entry_points: list[EntryPoint]) -> None:
    fresh_entry_points.append(EntryPoint("broken", "no_such_module:Nothing", "ssmc.passes"))
    with pytest.raises(UserError, match="entry point 'broken'"):
        pass_classes()


def test_every_pass_tells_a_before_and_an_after_and_all_its_options() -> None:
    for info in available():
        assert "before" in info.doc and "after" in info.doc, info.name
        for option in info.options:
            assert f"`{option.name}" in info.doc or f"{option.name}=" in info.doc, (info.name, option.name)
    assert all(field.name for pass_class in pass_classes().values() for field in fields(pass_class))  # type: ignore[arg-type]
