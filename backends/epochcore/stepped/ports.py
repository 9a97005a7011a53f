"""Words on their way between the scratchpad's banks and the ports of the array, cycle by cycle.

Word n lies in bank n modulo the banks. For each operand of a pass (of a complex one for each half: ours) a bank gives,
or takes, so many words a cycle. A pass takes the cycles that its words need in the worst of cases, where copies of its
parameters (segments, samples) begin in one bank, all of them: its steps come in even intervals, whatever the addresses.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache

from backends.epochcore.arch import Arch

Word = tuple[Hashable, int]  # of an operand: its address


def through(words: int, port: int) -> int:
    """Cycles for so many words that all are there."""
    cycles = 0
    while words > 0:
        words, cycles = words - port, cycles + 1
    return cycles


def reserved(copies: int, words: int, port: int, arch: Arch) -> int:
    """Cycles for `words` words of each of so many copies, whatever their addresses."""
    return 1 + max(served([(0, n) for _ in range(copies) for n in range(words)], port, arch), default=0)


def served(words: Sequence[Word], port: int, arch: Arch) -> tuple[int, ...]:
    """For each word the cycle in which it goes through ports of `port` words, the fullest bank first."""
    banks, ports = arch.memory.banks, arch.memory.bank_ports
    if not banks:
        return tuple(n // port for n in range(len(words)))
    return _served(tuple((operand, address % banks) for operand, address in words), port, ports)


@lru_cache(maxsize=4096)
def _served(words: tuple[Word, ...], port: int, ports: int) -> tuple[int, ...]:
    waiting: dict[Word, list[int]] = {}
    for number, word in enumerate(words):
        waiting.setdefault(word, []).append(number)
    found, cycle = [0] * len(words), 0
    while waiting:
        room = port
        for bank in sorted(waiting, key=lambda bank: -len(waiting[bank])):
            given = waiting[bank][: min(ports, room)]
            for number in given:
                found[number] = cycle
            room -= len(given)
            waiting[bank] = waiting[bank][len(given) :]
        waiting = {bank: left for bank, left in waiting.items() if left}
        cycle += 1
    return tuple(found)
