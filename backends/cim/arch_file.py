"""Architecture files of this target: the packaged ones, and any by path."""

from __future__ import annotations

from functools import cache

from backends.cim.arch import Architecture
from ssmc import architecture

DEFAULT = "cim-large"


@cache
def architectures() -> tuple[str, ...]:
    """Names of the packaged architectures of this target."""
    return architecture.packaged("cim-")


def load_arch(source: str | None) -> Architecture:
    """A packaged name, the text of an architecture, or the path of a file. Raises UserError."""
    source = DEFAULT if source is None else source
    if "\n" in source:
        return parse_arch(source, "architecture")
    return parse_arch(*architecture.read(source, architectures()))


def arch_text(arch: Architecture) -> str:
    """Canonical YAML of an architecture."""
    return architecture.text_of(arch)


@cache
def parse_arch(text: str, file: str) -> Architecture:
    """An architecture from YAML text; `file` is for messages. Raises UserError."""
    return architecture.parse(Architecture, text, file)
