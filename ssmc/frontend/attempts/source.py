"""A file as it was read and listed, and the sizes that it is studied at."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssmc.frontend.loops.alike import join_alike
from ssmc.frontend.loops.layers import in_layers
from ssmc.frontend.proofs.baked import File
from ssmc.frontend.proofs.levels import fixed_levels
from ssmc.frontend.proofs.reference import runner
from ssmc.frontend.simplify.early_cuts import cut_early
from ssmc.frontend.simplify.unmet_limits import without_unmet_limits
from ssmc.frontend.source.cosines import exact_cosines, with_exact
from ssmc.frontend.source.interface import concrete_shapes, dynamic_axes, input_types, is_dynamic, sample_inputs
from ssmc.frontend.source.listing import Listing, list_calls
from ssmc.frontend.source.padded import round_before_padding
from ssmc.frontend.source.proto import ModelFile
from ssmc.frontend.source.sizes import BATCH, stored_steps, studied_length
from ssmc.frontend.source.statics import fold_statics
from ssmc.frontend.source.values import require_allowed
from ssmc.frontend.unrolled.reroll import reroll
from ssmc.ir.graph import Graph, Value
from ssmc.ir.types import TensorType

MANY = 2000  # nodes of a file that onnxruntime takes long to read


@dataclass(eq=False)
class Source:
    """A file as it was read, and the models that it can be read as."""

    path: Path
    model: ModelFile
    graph: Graph
    tolerance: float
    aside: Executor  # where onnxruntime reads and runs the file meanwhile
    dropped: int = 0  # nodes of the file that round, and that the graph does without

    def __post_init__(self) -> None:
        self.turned = False  # is what looks like the batch read as time?
        self.as_stored: Listing | None = None
        tables = exact_cosines(self.graph)
        if tables:
            self.as_stored = list_calls(self.graph)
            fold_statics(self.as_stored)
            self.graph = with_exact(self.graph, tables)
        self.file: Listing = list_calls(self.graph)  # as it is, for the proofs
        padded = round_before_padding(self.graph)
        listing = self.file if padded is self.graph else list_calls(padded)
        self.graph = reroll(padded, listing)
        self.listing: Listing = listing if self.graph is padded else list_calls(self.graph)
        fold_statics(self.listing)
        if self.file is not self.listing:
            fold_statics(self.file)
        require_allowed(self.file)
        off = {Value(name): table.off for name, table in tables.items()}
        self.listing.off.update(off)
        if self.as_stored is not None:
            self.as_stored.off.update(off)
        self.listing = cut_early(self.listing)
        # A model of many nodes keeps onnxruntime busy for a second before it runs; meanwhile it is lifted here.
        if len(self.file.calls) > MANY and not self.model.weights:
            self.aside.submit(runner, str(self.path))
        self.types: dict[str, TensorType] = input_types(self.graph)
        self.stored = min(stored_steps(self.listing), default=0)
        self.study(studied_length(self.listing, self.stored, self.types, fixed_levels(self.listing) is None))
        self.listing = in_layers(without_unmet_limits(self.listing, self.point(0)), self.point(0))
        self.as_listed, static = self.listing, not is_dynamic(self.types)[1]
        self.listing = join_alike(self.listing, self.point(0)) if static else self.listing

    def study(self, length: int) -> None:
        """Study a dynamic length at so many steps."""
        self.length = length
        self.shapes = concrete_shapes(self.types, *self.sizes(BATCH, length))

    def sizes(self, batch: int, length: int) -> tuple[int, int]:
        """What the axes that are taken for the batch and for time are, by their places and names, in a reading."""
        return (length, batch) if self.turned else (batch, length)

    def is_dynamic(self) -> tuple[bool, bool]:
        """Is the batch dynamic, is the length? In a reading."""
        found = is_dynamic(self.types)
        return found[::-1] if self.turned else found

    def read_along(self, axes: Mapping[str, str]) -> Source:
        """Itself as it is read along these axes: a time axis that looks like a batch is as long as time is."""
        letters = dynamic_axes(self.types)
        if not any((a, told) == ("t", "b") for n in axes for a, told in zip(axes[n], letters[n], strict=True)):
            return self
        other = copy(self)
        other.turned = True
        other.study(self.length)
        return other

    def as_file(self) -> File:
        """The file as it is, to be run at other sizes."""
        declared = {node.op["name"]: node.types[0] for node in self.graph.outputs()}
        return File(self.path, self.file, self.types, declared, self.length)  # type: ignore[arg-type]

    def point(self, seed: int) -> dict[Value, Any]:
        """Random inputs at the sizes that are studied."""
        return sample_inputs(self.listing, self.shapes, self.types, seed)
