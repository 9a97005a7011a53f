"""Passes by name: ours, those of installed packages (entry-point group `ssmc.passes`), those registered in Python."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar, get_type_hints

from ssmc.diagnostics import UserError
from ssmc.passes.base import Pass

GROUP = "ssmc.passes"
PassClass = TypeVar("PassClass", bound=type[Pass])

# In the order of a usual pipeline; imported when asked for.
BUILTIN = (
    "fold_constants:FoldConstants",
    "fold_norms:FoldNorms",
    "discretize:Discretize",
    "diagonalize:Diagonalize",
    "halve_conjugates:HalveConjugates",
    "fold_liquid:FoldLiquid",
    "fold_readout:FoldReadout",
    "choose_banks:ChooseBanks",
    "share_decays:ShareDecays",
    "scale_states:ScaleStates",
    "quantize:Quantize",
    "tile:Tile",
    "balance_columns:BalanceColumns",
    "map_weights:MapWeights",
    "couple:Couple",
    "calibrate:Calibrate",
    "choose_units:ChooseUnits",
    "schedule:Schedule",
)

_registered: dict[str, type[Pass]] = {}


@dataclass(frozen=True)
class Option:
    """One option of a pass: its field's type as text, and its default (MISSING: must be given)."""

    name: str
    type: str
    default: Any


@dataclass(frozen=True)
class PassInfo:
    """A pass as `ssmc passes` tells it."""

    name: str
    doc: str
    lossy: bool
    tolerance: float
    options: tuple[Option, ...]


def register(pass_class: PassClass) -> PassClass:
    """Make a pass known by its name; usable as a decorator. Raises UserError for an unfit class or a taken name."""
    _check(pass_class, f"{pass_class.__module__}.{pass_class.__qualname__}")
    taken = _installed().get(pass_class.name) or _registered.get(pass_class.name)
    # A notebook cell that is run again defines the same class anew.
    if taken is not None and (taken.__module__, taken.__qualname__) != (pass_class.__module__, pass_class.__qualname__):
        raise UserError(
            f"the name '{pass_class.name}' belongs to the pass {taken.__module__}.{taken.__qualname__}",
            hint="choose another name",
        )
    _registered[pass_class.name] = pass_class
    return pass_class


def pass_classes() -> dict[str, type[Pass]]:
    """Every known pass by name. Raises UserError where an installed one cannot be loaded."""
    return {**_installed(), **_registered}


def available() -> tuple[PassInfo, ...]:
    """Every known pass with its options and documentation: ours in pipeline order, then the others."""
    return tuple(describe(pass_class) for pass_class in pass_classes().values())


def describe(pass_class: type[Pass]) -> PassInfo:
    """Name, documentation and options of a pass."""
    types = get_type_hints(pass_class)
    options = []
    for field in fields(pass_class):  # type: ignore[arg-type]  # checked to be a dataclass
        default = field.default if field.default_factory is MISSING else field.default_factory()
        options.append(Option(field.name, _type_text(types[field.name]), default))
    tolerance = next((float(o.default) for o in options if o.name == "tolerance"), pass_class.tolerance)
    doc = inspect.getdoc(pass_class) or ""
    return PassInfo(pass_class.name, doc, pass_class.lossy, tolerance, tuple(options))


def _type_text(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


@cache
def _installed() -> dict[str, type[Pass]]:
    found: dict[str, type[Pass]] = {}
    for entry in BUILTIN:
        module, _, name = entry.partition(":")
        pass_class = getattr(import_module(f"ssmc.passes.{module}"), name)
        found[pass_class.name] = pass_class
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        where = f"entry point '{point.name}' of group '{GROUP}'"
        try:
            pass_class = point.load()
        except Exception as error:  # someone else's package may fail in any way
            raise UserError(
                "the pass cannot be loaded", where=where, why=str(error), hint="repair or uninstall its package"
            ) from error
        _check(pass_class, where)
        found.setdefault(pass_class.name, pass_class)
    return found


def _check(pass_class: Any, where: str) -> None:
    """Raise UserError unless the class is a complete pass."""
    if not (isinstance(pass_class, type) and issubclass(pass_class, Pass)):
        raise UserError("a pass is a subclass of ssmc.passes.Pass", where=where)
    if not is_dataclass(pass_class) or inspect.isabstract(pass_class):
        raise UserError("a pass is a frozen dataclass with a method run(graph, context)", where=where)
    name = getattr(pass_class, "name", None)
    if not (isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name)):
        raise UserError(f"a pass's name is in kebab-case, as 'share-decays'; not {name!r}", where=where)
