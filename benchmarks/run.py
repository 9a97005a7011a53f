"""`python -m benchmarks.run`: measure, print, and write docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import click

from benchmarks.imports import import_costs
from benchmarks.large import large_costs
from benchmarks.measures import (
    Result,
    compile_times,
    event_sequences,
    help_time,
    product_rates,
    program_sizes,
    simulation_ratio,
)
from benchmarks.pathx import path_x

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


@click.command()
def main() -> None:
    """Measure everything (a quarter of an hour), print it, and write docs/benchmarks.md.

    Ends with status 1 where a goal is not reached.
    """
    results = [help_time(), *compile_times(), simulation_ratio(), *program_sizes(), *import_costs(), *large_costs()]
    results += [path_x(), *product_rates(), event_sequences()]
    text = page(results)
    PAGE.write_text(text, encoding="utf-8")
    print(text)
    raise SystemExit(not all(result.reached for result in results))


def page(results: list[Result]) -> str:
    """The results as Markdown."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "onnxruntime"))
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks.run`; run it to measure your own machine.",
        "",
        f"{_processor()}, {platform.system()}, Python {platform.python_version()}, {packages}.",
        "",
        "| what | goal | measured | reached |",
        "|---|---|---|---|",
    ]
    lines += [f"| {r.what} | {r.goal} | {r.measured} | {'yes' if r.reached else '**no**'} |" for r in results]
    return "\n".join(lines) + "\n"


def _processor() -> str:
    name = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # no such file outside Linux
    return f"{name}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
