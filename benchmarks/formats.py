"""`python -m benchmarks.formats`: accuracy of the trained samples by number format; writes docs/formats.md.

Every accuracy is that of a sample's whole test set, run by the simulator in the format's own arithmetic. The units of
fixed-point states are chosen on the sample's calibration data, which are training sequences.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

import samples
from backends.epochcore.arch import Arch, arch_text, load_arch
from backends.epochcore.formats import overflows
from ssmc import demo
from ssmc.driver import compile_model, load_model

PAGE = Path(__file__).parent.parent / "docs" / "formats.md"
ARCH = "epochcore-128"
ALLOWED = 0.005  # half a point

Changes = Mapping[str, Any]
UNITS = "units"  # how units of states are chosen, an option of the pass choose-units; all else are `numbers`
TABLE: Mapping[str, Changes] = {
    "float32": {"format": "float32"},
    "bfloat16, float32 states": {"format": "bfloat16", "state_format": "float32"},
    "bfloat16, float32 states, `a` itself": {"format": "bfloat16", "state_format": "float32", "decay": "plain"},
    "bfloat16": {"format": "bfloat16"},
    "bfloat16, truncated": {"format": "bfloat16", "rounding": "truncate"},
    "float16, float32 states": {"format": "float16", "state_format": "float32"},
    "float16": {"format": "float16"},
    "float16, `a` itself": {"format": "float16", "decay": "plain"},
    "float16, truncated": {"format": "float16", "rounding": "truncate"},
    "fixed: 8-bit weights, 16-bit vectors and parameters, 32-bit states": {},
    "... truncated": {"rounding": "truncate"},
    "... 8-bit vectors": {"activation_bits": 8},
    "... 8-bit parameters": {"parameter_bits": 8},
    "... 8-bit parameters, `a` itself": {"parameter_bits": 8, "decay": "plain"},
    "... 6-bit parameters": {"parameter_bits": 6},
    "... 6-bit parameters, `a` itself": {"parameter_bits": 6, "decay": "plain"},
    "... 24-bit states": {"state_bits": 24, "state_fraction_bits": 21},
    "... 16-bit states": {"state_bits": 16, "state_fraction_bits": 13},
    "... 16-bit states, truncated": {"state_bits": 16, "state_fraction_bits": 13, "rounding": "truncate"},
    "... 16-bit states, room for no more than is seen": {"state_bits": 16, "state_fraction_bits": 15},
    "... the same, wrapping round": {"state_bits": 16, "state_fraction_bits": 15, "overflow": "wrap"},
    "... 12-bit states": {"state_bits": 12, "state_fraction_bits": 9},
    "... 10-bit states": {"state_bits": 10, "state_fraction_bits": 7},
    "... 8-bit states": {"state_bits": 8, "state_fraction_bits": 5},
    "... 24-bit states, units by decays alone": {"state_bits": 24, "state_fraction_bits": 18, UNITS: "off"},
    "... 16-bit states, units by decays alone": {"state_bits": 16, "state_fraction_bits": 10, UNITS: "off"},
    "... the same, two bits fewer before the point": {"state_bits": 16, "state_fraction_bits": 12, UNITS: "off"},
    "... 4-bit weights": {"weight_bits": 4},
}
# What is narrowed, in this order, widest first; a state keeps three bits, with its sign, before the point: room for
# four times what it reaches in the calibration data.
WIDTHS: Mapping[str, tuple[int, ...]] = {
    "state_bits": (32, 24, 20, 18, 16, 14, 12, 11, 10, 9, 8),
    "parameter_bits": (16, 14, 12, 10, 8, 7, 6, 5, 4),
    "activation_bits": (16, 12, 10, 8, 7, 6, 5, 4),
    "weight_bits": (8, 7, 6, 5, 4, 3),
    "accumulator_bits": (52, 40, 32, 28, 24, 22, 20, 18, 16),
}
USUAL = ("float32", "bfloat16", "float16", "fixed: 8-bit weights, 16-bit vectors and parameters, 32-bit states")
WHOLE_BITS = 3
NEVER = 1e-9  # |1 - a| of what does not decay


@dataclass
class Runner:
    """A sample, its model, and the formats in which it has been run."""

    name: str
    known: dict[str, tuple[float, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sample = samples.load(self.name)
        self.model = load_model(self.sample.model_path)
        self.reference = demo.reference_accuracy(self.sample, self.model)

    def accuracy(self, changes: Changes) -> tuple[float, int]:
        """Accuracy on the test set, and how many numbers did not fit."""
        numbers = {name: value for name, value in changes.items() if name != UNITS}
        text = arch_text(changed(load_arch(ARCH), numbers))
        passes = f"default,choose-units{{by={changes[UNITS]}}}" if UNITS in changes else None
        if (key := f"{passes} {text}") not in self.known:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "arch.yaml"
                path.write_text(text, encoding="utf-8")
                program = compile_model(
                    self.model,
                    "epochcore",
                    arch=str(path),
                    passes=passes,
                    calibration=self.sample.calibration,
                    validate=False,
                )
                counted = overflows(load_arch(str(path)).numbers)
            result = program.run(self.sample.test)
            outside = sum(result.stats.notes[counted].values())
            self.known[key] = self.sample.accuracy(result.outputs), outside
        return self.known[key]

    def slowest(self) -> float:
        """The smallest |1 - a| of a state that decays by a constant, 0 where there is none."""
        made = compile_model(self.model, "epochcore", arch=ARCH, ideal=True, validate=False).compilation
        assert made is not None
        nodes = made.graph.nodes("tile.ssm", "tile.state")
        near = [abs(1 - node.op["decay"].array).ravel() for node in nodes if not node.op.get("asynchronous")]
        return float(min((distance for part in near for distance in part if distance > NEVER), default=0.0))

    def near(self, changes: Changes) -> bool:
        return self.accuracy(changes)[0] >= self.reference - ALLOWED - 1e-9


def changed(arch: Arch, changes: Changes) -> Arch:
    """The architecture with other numbers, validated."""
    content = arch.model_dump(mode="json")
    content["numbers"].update(changes)
    return Arch.model_validate(content)


def with_width(name: str, bits: int) -> Changes:
    return {name: bits, **({"state_fraction_bits": bits - WHOLE_BITS} if name == "state_bits" else {})}


def alone(runner: Runner, name: str) -> int:
    """The fewest bits of one width, the others as they are, before the first that loses more than half a point."""
    return _fewest([runner], name, {})


def narrowest(runners: list[Runner]) -> dict[str, int]:
    """Widths that hold together: one after the other is narrowed as far as every accuracy stays, and kept so."""
    found: dict[str, int] = {}
    for name in WIDTHS:
        found[name] = _fewest(runners, name, found)
    return found


def _fewest(runners: list[Runner], name: str, others: Mapping[str, int]) -> int:
    kept = WIDTHS[name][0]
    for bits in WIDTHS[name][1:]:
        if not all(runner.near(together({**others, name: bits})) for runner in runners):
            break
        kept = bits
    return kept


def together(widths: Mapping[str, int]) -> Changes:
    merged: dict[str, Any] = {}
    for name, bits in widths.items():
        merged |= with_width(name, bits)
    return merged


def page(runners: list[Runner], told: Callable[[str], None]) -> str:
    """docs/formats.md; `told` hears what is being done."""
    names = [runner.name for runner in runners]
    told("formats")
    lines = [
        "# Accuracy by number format",
        "",
        f"Written by `python -m benchmarks.formats`: the trained samples on `{ARCH}` with other `numbers` in its file,",
        "whole test sets, in percent; in brackets how many states or sums did not fit. **Bold** is within half a point",
        "of onnxruntime. Weights are rounded after training, without any training in the format. Units of fixed-point",
        "states are chosen on calibration data (`choose-units`); a state narrower than 32 bits has room for four times",
        "what is seen there unless a row says otherwise. By decays alone (`choose-units{by=off}`) a state counts in",
        "units of `1 / (1 - |a|)`: those of counters and totals, which never decay, are too coarse for 16 bits then.",
        "",
        *_table(["format", *names], _rows(runners, TABLE)),
        "",
    ]
    told("widths")
    fewest = {runner.name: {name: alone(runner, name) for name in WIDTHS} for runner in runners}
    rows = [[name, *(str(fewest[sample][name]) for sample in names)] for name in WIDTHS]
    lines += [
        "## The narrowest fixed point",
        "",
        "Fewest bits of each width within half a point, the others as in the packaged file "
        f"(a state has {WHOLE_BITS} bits before the point):",
        "",
        *_table(["width", *names], rows),
        "",
        "One narrowed after the other, in this order, each with the ones before: for each sample, and for all of them:",
        "",
    ]
    told("narrowest")
    rows = []
    for name, some in [*((runner.name, [runner]) for runner in runners), ("all", runners)]:
        widths = narrowest(some)
        rows.append([name, *map(str, widths.values()), _percent(some, widths)])
    lines += [*_table(["sample", *WIDTHS, "accuracy, %"], rows), "", *_still(runners), "", *_floats(runners), ""]
    return "\n".join(lines)


def summary(runners: list[Runner]) -> list[str]:
    """The usual formats in a table, and the narrowest ones that stay within half a point on every sample."""
    widths = narrowest(runners)
    told = ", ".join(f"`{name}` {bits}" for name, bits in widths.items())
    return [
        *_table(["format", *(runner.name for runner in runners)], _rows(runners, USUAL)),
        "",
        *_floats(runners),
        "The narrowest fixed point, one width narrowed after the other:",
        f"{told} ({_percent(runners, widths)} %).",
    ]


def _rows(runners: list[Runner], formats: Iterable[str]) -> Iterator[list[str]]:
    yield ["onnxruntime", *(f"**{100 * runner.reference:.2f}**" for runner in runners)]
    for name in formats:
        changes = TABLE[name]
        cells = []
        for runner in runners:
            accuracy, outside = runner.accuracy(changes)
            text = f"{100 * accuracy:.2f}"
            cells.append((f"**{text}**" if runner.near(changes) else text) + (f" ({outside:,})" if outside else ""))
        yield [name, *cells]


def _still(runners: list[Runner]) -> list[str]:
    """What rounding leaves of the slowest decays."""
    slowest = {runner.name: runner.slowest() for runner in runners}
    counts = ", ".join(f"{0.5 / distance:.0f} in {name}" for name, distance in slowest.items() if distance)
    expected = ", ".join(f"{2 ** (bits - 1 - WHOLE_BITS):,} with {bits} bits" for bits in (16, 12, 10))
    return [
        "What limits narrow states is slow decay: where `|1 - a| |x|` is under half a count a state stands still, that",
        "is within `1 / (2 |1 - a|)` counts of zero, of the slowest decays (other than 1)",
        f"{counts}. What a state reaches in the calibration data is",
        f"at least {expected}.",
    ]


def _floats(runners: list[Runner]) -> list[str]:
    holds = {name: all(runner.near(TABLE[name]) for runner in runners) for name in TABLE if not name.startswith("...")}
    narrow = [name for name in ("bfloat16", "float16", "bfloat16, float32 states", "float32") if holds[name]]
    best = f"`{narrow[0]}`" if narrow else "none"
    return [f"The narrowest floating-point format that stays within half a point on every sample: {best}."]


def _percent(runners: list[Runner], widths: Mapping[str, int]) -> str:
    return ", ".join(f"{100 * runner.accuracy(together(widths))[0]:.2f}" for runner in runners)


def _table(head: list[str], rows: Any) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


@click.command()
@click.option("--only", default="", help="Samples whose name contains this; nothing is written to docs then.")
def main(only: str) -> None:
    """Run every format, print the tables, write docs/formats.md."""
    runners = [Runner(name) for name in samples.names() if only in name]
    text = page(runners, lambda what: click.echo(f"{what} ...", err=True))
    click.echo(text)
    if not only:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
