"""Which families cannot be built."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ssmc.frontend.unrolled.families import Family, ForeignFamily, NodeFamily, Reading
from ssmc.frontend.unrolled.unrolling import Unrolling


def close_failures(unrollings: Iterable[Unrolling]) -> set[Family]:
    """Families that cannot be built: an operand of theirs, or of what they read, could not be read."""
    users: dict[Family, list[Family]] = {}
    failed: list[Family] = []
    for unrolling in unrollings:
        for family in unrolling.families:
            references: list[Any] = []
            if isinstance(family, NodeFamily):
                references = family.operands
            elif isinstance(family, ForeignFamily):
                references = [family.source]
            for reference in references:
                if isinstance(reference, Reading):
                    users.setdefault(reference.family, []).append(family)
            if family.failed:
                failed.append(family)
    found = set(failed)
    while failed:
        for user in users.get(failed.pop(), []):
            if user not in found:
                found.add(user)
                failed.append(user)
    return found
