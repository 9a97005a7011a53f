"""Why ops are refused that no rule can say: by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssmc.frontend.source.operands import text

ATTENTION = "attention mixes all steps with weights that depend on the data"
DYNAMIC = (
    "one scale for all samples, and in a sequence model for all steps, at once (dynamic quantisation): what one sample "
    "gives depends on the others, or is not causal"
)
FLOATING = (
    "it rounds to floating point of few bits (float8, float4), whose steps grow with the number, and machines round to "
    "even steps only; quantise to integers, or the weights alone"
)
NONLINEAR = {
    "QuantizeLinear": "a state that is rounded at every step is lifted where all steps round alike, by one scale, and "
    "are linear but for that, and a spectrum that is rounded is no filter; else quantise the weights alone, or "
    "--drop-rounding",
}
OF_SCORES = {  # what is made of the products of every step with every other
    "Softmax": f"a softmax over scores of every step with every other: {ATTENTION}",
    "": "a function of scores of every step with every other (attention) that is no polynomial: only products and sums "
    "of them become a state that is carried from step to step",
}
RANDOM = frozenset(
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"]
)
REFUSED_OPS = {
    "LRN": "it divides by the squares of neighbouring channels, which no rule says; export it as the AveragePool of "
    "the squares and the power that it stands for, as torch.nn.LocalResponseNorm is",
    "LSTM": "an LSTM is not linear in its state",
    "GRU": "a GRU is not linear in its state",
    "RNN": "a recurrent network with a nonlinear state",
    "Attention": ATTENTION,
    "MultiHeadAttention": ATTENTION,
    "GroupQueryAttention": ATTENTION,
    "DynamicQuantizeLinear": f"{DYNAMIC}; quantise statically, or leave it out with --drop-rounding",
    "NonZero": "the shape of its result depends on the data",
    "Unique": "the shape of its result depends on the data",
    **dict.fromkeys(RANDOM, "it draws random numbers; export the model in evaluation mode"),
}


def refused_for(kind: str, attrs: Mapping[str, Any]) -> str | None:
    """Why a node of this kind is refused whatever it is given; None where it may have a rule."""
    if kind == "RNN" and {text(name).lower() for name in attrs.get("activations", [b"Tanh"])} == {"affine"}:
        return None
    return REFUSED_OPS.get(kind)


GRAPHICS = (
    "onnxruntime's optimiser makes this op for graphics cards alone; give the model as it was before, or optimised for "
    "the CPU"
)
# Ops of the domain com.microsoft, which the standard does not know.
MICROSOFT_OPS = {
    "Attention": ATTENTION,
    "MultiHeadAttention": ATTENTION,
    "GroupQueryAttention": ATTENTION,
    "PackedAttention": ATTENTION,
    "PackedMultiHeadAttention": ATTENTION,
    "DecoderMaskedSelfAttention": ATTENTION,
    "DecoderMaskedMultiHeadAttention": ATTENTION,
    "QAttention": ATTENTION,
    "SparseAttention": ATTENTION,
    "LongformerAttention": ATTENTION,
    "DynamicQuantizeMatMul": f"{DYNAMIC}; quantise statically",
    "DynamicQuantizeLSTM": "an LSTM is not linear in its state",
    **dict.fromkeys(["GroupNorm", "SkipGroupNorm", "NhwcConv", "BiasSplitGelu", "BiasAdd"], GRAPHICS),
    **dict.fromkeys(["BiasSoftmax", "BiasDropout", "ComplexMul"], GRAPHICS),
}
