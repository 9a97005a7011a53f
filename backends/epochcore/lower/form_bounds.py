"""What a form of a layer costs at least, without lowering it: one that cannot be as fast as another is not timed.

Products occupy the array, a scan the vector unit. The weights of windows come over the DRAM channel, once, and what
the parameter memory has no room for again with every chunk, of which the scratchpad's room for windows allows no fewer.
"""

from __future__ import annotations

from collections.abc import Sequence

from backends.epochcore.clock.gemm import ceil_div, output_fold
from backends.epochcore.lower.inputs import group_of, wide_of
from backends.epochcore.lower.inputs import kernel_length as wide_length
from backends.epochcore.lower.lowering import Lowering
from backends.epochcore.lower.matvec import least_cycles
from backends.epochcore.lower.request import Form
from backends.epochcore.lower.scan import least_cycles as scan_bound
from backends.epochcore.lower.segments import least_cycles as segmented_bound
from backends.epochcore.lower.window_matrices import kernel_length, system_of
from backends.epochcore.lower.windows import channels_together, room, weight_bytes, weight_parts
from ssmc.ir import Node, Value

Shape = tuple[int, int, int]  # of products side by side: channels, words in and words out of each


def taps(low: Lowering, node: Node) -> int | None:
    """Taps of a layer's kernel, None where it does not end."""
    if node.op.name == "fir":
        return int(node.op["kernel"].shape[1])
    if node.op.name == "tile.state":
        if node.name not in low.draft.kept.taps:
            group = group_of(low, node)
            low.draft.kept.taps[node.name] = None if group is None else wide_length(wide_of(group))
        return low.draft.kept.taps[node.name]
    if node.name not in low.draft.kept.taps:
        low.draft.kept.taps[node.name] = None if node.op["liquid"] else kernel_length(system_of(node))
    return low.draft.kept.taps[node.name]


def words_of_channel(node: Node) -> int:
    """Real states of a channel and its input."""
    return int(node.op["decay"].shape[1]) * (2 if node.op["decay"].is_complex else 1) + 1


def least(low: Lowering, node: Node, form: Form) -> int:
    """Cycles that a form takes at least: those of its products alone, or of its scan alone."""
    if form.name == "mat-vec":
        grouped = group_of(low, node) is not None
        channels = 1 if grouped else low.words(Value(node.name))
        return least_cycles(low, channels, 1 if grouped else words_of_channel(node))
    if form.name == "segmented":
        return segmented_bound(low, node, form.segments)
    if form.name == "scan" and node.op.name == "tile.ssm":
        return scan_bound(low, node)
    if form.name not in ("chunked", "convolution"):
        return 0
    rows = ceil_div(low.request.steps, form.span)
    if node.op.name == "tile.state":
        return _of_states(low, node, form, rows)
    span, channels = form.span, low.words(Value(node.name))
    if form.name == "convolution":
        fed = (taps(low, node) or 1) - 1 + span
        shape = channels, fed, span
        return max(_products(low, form, rows, shape), _fetched(low, form, rows, channels * (fed + span), [shape]))
    states: int = node.op["decay"].shape[1]
    halves = 2 if node.op["decay"].is_complex else 1
    ways = [[(channels, span, p * states), (channels, p * states, span)] * (halves // p) for p in {1, halves}]
    within = channels, span, span
    across = min(sum(_products(low, form, rows, shape) for shape in way) for way in ways)
    scan = _scanned(low, rows, channels * states * halves**2)
    # a part of the channels after the other
    each = channels_together(low, span, form.mode, (channels, states), halves)
    parts = [(min(each, channels - first)) for first in range(0, channels, each)]
    weights = min(
        _fetched(
            low, form, rows, 2 * channels * span, [(part, *shape[1:]) for part in parts for shape in (within, *way)]
        )
        for way in ways
    )
    return max(_products(low, form, rows, within) + across, scan, weights)


def _of_states(low: Lowering, node: Node, form: Form, rows: int) -> int:
    """The same for states with drives of their own, or for the group around them."""
    span, halves = form.span, 2 if node.op["decay"].is_complex else 1
    words = low.words(Value(node.name))
    scan = _scanned(low, rows, words * halves)
    if (group := group_of(low, node)) is None:
        inner = [(words // halves, *shape) for shape in ((span, 1), (span, span), (1, span))] * halves**2
        products = sum(_products(low, form, rows, shape) for shape in inner)
        return max(scan, products, _fetched(low, form, rows, 2 * words * span, inner))
    inputs, outputs = (int(m.op["weight"].shape[n]) for n, m in enumerate((group.drive, group.read)))
    fed = inputs * span
    if form.name == "convolution":
        fed = inputs * ((taps(low, node) or 1) - 1 + span)
        shapes, scan = [(1, fed, outputs * span)], 0
    else:
        shapes = [(1, fed, words), (1, fed, outputs * span), (1, words, outputs * span)]
    products = sum(_products(low, form, rows, shape) for shape in shapes)
    return max(scan, products, _fetched(low, form, rows, fed + outputs * span, shapes))


def _scanned(low: Lowering, rows: int, words: int) -> int:
    """Cycles of a scan of so many rows."""
    vector = low.arch.vector
    return rows * (words // vector.width + vector.latency_cycles)


def _products(low: Lowering, form: Form, rows: int, shape: Shape) -> int:
    """Cycles of the products of so many windows with one matrix a channel: weights on their way into the array and rows
    through it, or terms into it and results out."""
    channels, inputs, outputs = shape
    array, (high, wide) = low.arch.array, room(low, form.mode)
    beside = max(1, min(high // inputs, wide // outputs))
    passes = ceil_div(channels, beside) * ceil_div(inputs, high) * ceil_div(outputs, wide) * weight_parts(low)
    if form.mode == "mac":
        return passes * max(rows, array.rows * ceil_div(array.cols, array.port_words_in))
    terms, folds = min(high, beside * inputs), ceil_div(rows, array.rows)
    out, fold = (
        array.rows * ceil_div(beside * outputs, array.port_words_out),
        output_fold(terms, array.rows, array.cols),
    )
    return passes * (folds * max(fold, out) + out)


def _fetched(low: Lowering, form: Form, rows: int, held: int, shapes: Sequence[Shape]) -> int:
    """Cycles in which the weights of products cross the DRAM channel. Of each of so many `rows`, the windows of a
    sequence, `held` words, what goes in and what comes out, are in the scratchpad at once."""
    size, memory = sum(_bytes(low, form, shape) for shape in shapes), low.arch.memory
    chunks = ceil_div(rows, max(1, memory.scratchpad_words // held))
    again = max(0, size - memory.parameter_words * memory.word_bits // 8)
    return int((size + (chunks - 1) * again) / low.arch.dram_bytes_per_cycle)


def _bytes(low: Lowering, form: Form, shape: Shape) -> int:
    """Bytes of the weights of products, with the zeros between those that are side by side."""
    (channels, inputs, outputs), (high, wide) = shape, room(low, form.mode)
    beside = max(1, min(high // inputs, wide // outputs))
    full, rest = divmod(channels, beside)
    return (full * beside**2 + rest**2) * inputs * outputs * weight_bytes(low) * weight_parts(low)
