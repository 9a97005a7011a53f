"""Packing and placement: nothing overlaps, little is wasted, cores that talk stand close."""

from __future__ import annotations

from itertools import combinations, permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.models.event_ssm import NETWORKS, build, parameters
from ssmc.passes.packing import Packing, _Shelf, pack
from ssmc.passes.placement import place, total

sizes = st.lists(st.tuples(st.integers(1, 16), st.integers(1, 8)), min_size=1, max_size=30)


@given(st.lists(sizes, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_pieces_lie_within_arrays_and_apart(groups: list[list[tuple[int, int]]]) -> None:
    places, used = pack(groups, 16, 8)
    every = [
        (unit, row, col, *size)
        for group, at in zip(groups, places, strict=True)
        for size, (unit, row, col) in zip(group, at, strict=True)
    ]
    assert {unit for unit, *_ in every} == set(range(used))
    for _, row, col, high, wide in every:
        assert 0 <= row <= 16 - high and 0 <= col <= 8 - wide
    for a, b in combinations(every, 2):
        apart = a[1] + a[3] <= b[1] or b[1] + b[3] <= a[1] or a[2] + a[4] <= b[2] or b[2] + b[4] <= a[2]
        assert a[0] != b[0] or apart
    area = sum(high * wide for *_, high, wide in every)
    assert used <= 1 + 2 * area / 128 * 1.5


@given(sizes)
@settings(max_examples=60, deadline=None)
def test_a_piece_goes_to_the_youngest_array_that_has_room(pieces: list[tuple[int, int]]) -> None:
    packing, shelves = Packing(16, 8), list[_Shelf]()
    for high, wide in pieces:
        roomy = [unit for unit, shelf in enumerate(shelves) if shelf.best(high, wide) is not None]
        if not roomy:
            shelves.append(_Shelf([(0, 0, 16, 8)]))
        unit = roomy[-1] if roomy else len(shelves) - 1
        best = shelves[unit].best(high, wide)
        assert best is not None and packing.add(high, wide) == (unit, *best[1:])
        shelves[unit].take(*best[1:], high, wide)


def test_halves_and_quarters_fill_arrays() -> None:
    assert pack([[(8, 8), (8, 8)], [(16, 4)], [(8, 4), (8, 4)]], 16, 8)[1] == 2


@given(st.dictionaries(st.tuples(st.integers(0, 4), st.integers(0, 4)), st.integers(1, 99), min_size=1))
@settings(max_examples=30, deadline=None)
def test_a_placement_is_a_local_optimum(drawn: dict[tuple[int, int], int]) -> None:
    words = {(min(k), max(k)): float(v) for k, v in drawn.items() if k[0] != k[1]}
    at = place(5, 9, 3, words)
    assert len(set(at)) == 5 and all(0 <= core < 9 for core in at)
    for a, b in combinations(range(5), 2):
        swapped = list(at)
        swapped[a], swapped[b] = at[b], at[a]
        assert total(swapped, words, 3) >= total(at, words, 3) - 1e-9


def test_a_chain_of_cores_has_neighbours_next_to_each_other() -> None:
    words = {(0, 2): 10.0, (1, 2): 10.0, (1, 3): 10.0}
    found = total(place(4, 4, 2, words), words, 2)
    best = min(total(list(order), words, 2) for order in permutations(range(4)))
    assert found == best == 30.0


def test_the_published_networks_have_the_published_sizes() -> None:
    for network in NETWORKS.values():
        assert parameters(network) == network.parameters
    graph = build(NETWORKS["SHD"])
    held = sum(node.op["weight"].array.size for node in graph.nodes("linear"))
    held += sum(node.op["system"].B.size + node.op["system"].C.size for node in graph.nodes("ssm"))
    assert held == 6 * (2 * 96 * 128 + 96 * 96) + 96 * 20
