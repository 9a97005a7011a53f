"""In which form a layer is computed: what there is to choose from, and what the pipeline asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from backends.epochcore.lower.flow import WORDS
from backends.epochcore.lower.objective import CYCLES, Costs
from ssmc.ir import Graph

# Steps of the sequence that a choice is made for, where nobody says: LRA's shortest.
STEPS = 1024
# What the array keeps of a matrix product, and in which order (see `dataflow`).
DATAFLOWS = ("weights", "weights-by-rows", "results")
NAMES = (
    *("state in place", "segmented", "scan", "chunked", "convolution", "vector unit", "mat-vec"),
    "weights in place",
)
MOST_STEPS = 65536  # of a chunk
LEAST = 256  # chunks that are cut into segments are multiples of it


@dataclass(frozen=True)
class Form:
    """A form of a layer: its `name`, the `span` of its windows in steps, the `mode` of its matrix products, the
    `segments` of time that it takes at once, the `parts` of its channels that follow each other."""

    name: str
    span: int = 0
    mode: str = "mac"
    segments: int = 1
    parts: int = 1

    def __str__(self) -> str:
        if self.parts > 1:
            return f"{self.name}, {self.parts} parts of the channels"
        if self.segments > 1:
            return f"{self.name}, {self.segments} segments of time at once"
        span = f", windows of {self.span} steps" if self.span else ""
        name = "one mat-vec a step" if self.name == "mat-vec" else self.name
        return f"{name}{span}{', results in place' if self.mode == 'mac.os' else ''}"


@dataclass(frozen=True)
class Alternative:
    """A form with the cycles and joules that the timing model predicts for the layer by itself; `least` where these are
    lower bounds, and another form serves the objective better. None where it cannot be had, with the `objection`."""

    form: Form
    cycles: int | None = None
    joules: float | None = None
    least: bool = False
    chosen: bool = False
    objection: str = ""

    @property
    def costs(self) -> Costs | None:
        """Cycles and joules, where they are known."""
        return None if self.cycles is None or self.joules is None or self.least else (self.cycles, self.joules)

    @property
    def told(self) -> dict[str, Any]:
        """As the program file holds it."""
        return {
            "form": str(self.form),
            "cycles": self.cycles,
            "joules": self.joules,
            "least": self.least,
            "chosen": self.chosen,
            "objection": self.objection,
        }


@dataclass(frozen=True)
class Request:
    """What the pipeline says of forms: one by `name` and `span` alone ("" and 0: any), for sequences of `steps`; of
    matrix products one `dataflow` for all, of bidirectional layers whether their `directions` share passes ("": by
    cost). `forced` is the form of every layer while alternatives are timed. Time is cut into `segments` (0: by cost)
    in chunks of `chunk` steps (0: it is not, `refused` says why). Sequences come `batch` at a time (0: nobody says),
    so many of them are run `together` (0: by cost). Channels lie in at most so many `groups` of a column's rows (0: by
    cost). What costs is said by the `objective`, what runs in the loop of its readers by `loops` (see `flow`).
    Parameters of scans are in the scratchpad from the beginning on, or `streamed`: there for the loop that needs them.
    States of many layers share loops, or are `apart`: those of a loop take at most such a part of the scratchpad.
    """

    name: str = ""
    span: int = 0
    steps: int = STEPS
    dataflow: str = ""
    forced: Form | None = None
    segments: int = 0
    chunk: int = 0
    refused: str = ""
    directions: str = ""
    batch: int = 0
    together: int = 0
    groups: int = 0
    objective: str = CYCLES
    loops: str = WORDS
    streamed: bool = False
    apart: int = 0


def request_of(graph: Graph) -> Request:
    """The request that the pass `schedule` leaves in the graph's attributes."""
    asked: Any = graph.attributes.get("schedule", {})
    form, dataflow, directions = (str(asked.get(name, "")) for name in ("form", "dataflow", "directions"))
    steps, segments = int(asked.get("steps", 0)), int(asked.get("segments", 0))
    # short sequences lose what long ones gain: nobody's guess is good enough. A length that only the file has is none
    # to go by either: programs are as large for short sequences as for long ones unless somebody asks for one length.
    known = (steps > 0 and not asked.get("by_file")) or segments > 0 or form == "segmented"
    steps = steps or STEPS
    chunk = int(asked.get("chunk", min(-(-steps // LEAST) * LEAST, MOST_STEPS - LEAST))) if known else 0
    refused = "" if known else "nobody says how long usual sequences are: give calibration data, or schedule{steps=...}"
    window = int(asked.get("window", 0))
    batch, together, groups = (int(asked.get(name, 0)) for name in ("batch", "together", "groups"))
    made = Request(form, window, steps, dataflow, None, segments, chunk, refused, directions, batch, together, groups)
    return replace(made, objective=str(asked.get("objective", CYCLES)))
