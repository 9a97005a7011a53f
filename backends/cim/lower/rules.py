"""Which rule lowers which op."""

from __future__ import annotations

from backends.cim.lower import edges as rules_edges
from backends.cim.lower import feedback as rules_feedback
from backends.cim.lower import matmul as rules_matmul
from backends.cim.lower import shape as rules_shape
from backends.cim.lower import state as rules_state
from backends.cim.lower import time as rules_time
from backends.cim.lower import vector as rules_vector
from backends.cim.lower.lowering import Rule

RULES: dict[str, Rule] = {
    "input": rules_edges.lower_input,
    "output": rules_edges.lower_output,
    "constant": rules_edges.lower_constant,
    "tile.matmul": rules_matmul.lower_matmul,
    "tile.feedback": rules_feedback.lower_feedback,
    "tile.state": rules_state.lower_state,
    "tile.recurrence": rules_state.lower_recurrence,
    "tile.ssm": rules_state.lower_ssm,
    "spike": rules_state.lower_spike,
    "rounded": rules_state.lower_rounded,
    "rounded_sums": rules_state.lower_rounded_sums,
    "unary": rules_vector.lower_unary,
    "binary": rules_vector.lower_binary,
    "gate": rules_vector.lower_gate,
    "select": rules_vector.lower_select,
    "norm": rules_vector.lower_norm,
    "softmax": rules_vector.lower_softmax,
    "reduce": rules_vector.lower_reduce,
    "contract": rules_vector.lower_contract,
    "embed": rules_vector.lower_embed,
    "concat": rules_shape.lower_concat,
    "slice": rules_shape.lower_slice,
    "take": rules_shape.lower_take,
    "reshape": rules_shape.lower_reshape,
    "transpose": rules_shape.lower_transpose,
    "broadcast": rules_shape.lower_broadcast,
    "fir": rules_time.lower_fir,
    "pool": rules_time.lower_pool,
    "downsample": rules_time.lower_downsample,
    "reverse": rules_time.lower_reverse,
    "delay": rules_time.lower_delay,
    "spread": rules_time.lower_spread,
}
