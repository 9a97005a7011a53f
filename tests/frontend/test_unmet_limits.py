"""Limits on the exponent of a mask of decays: the model is that without them where what counts is within them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssmc.frontend import load_model
from tests.frontend.blocks import RNG
from tests.frontend.checks import kinds, on_targets, refused
from tests.frontend.net import Net, save

INPUTS, WIDTH = 5, 4
RATES = ["log-sigmoid", "softplus", "exported softplus", "log of 1 - z", "gained"]
LIMITS = ["Clip", "Min", "Min of like zeros", "Relu", "Max"]


def projected(net: Net, x: str, outputs: int = WIDTH) -> str:
    return str(net.op("MatMul", x, net.const(RNG.standard_normal((INPUTS, outputs)) / INPUTS)))


def rates(net: Net, x: str, how: str) -> str:
    """(batch, steps) never positive, whatever the model is given."""
    z = net.op("Squeeze", projected(net, x, 1), net.ints(-1))
    one = net.const(np.float32(1))
    match how:
        case "log-sigmoid":
            return str(net.op("Log", net.op("Sigmoid", z)))
        case "softplus":
            return str(net.op("Mul", net.op("Softplus", z), net.const(np.float32(-0.7))))
        case "exported softplus":
            large = net.op("Greater", z, net.const(np.float32(20)))
            return str(net.op("Neg", net.op("Where", large, z, net.op("Softplus", z))))
        case "log of 1 - z":
            return str(net.op("Log", net.op("Sub", one, net.op("Sigmoid", z))))
        case "gained":
            return str(net.op("Neg", net.op("Mul", net.op("Exp", z), net.op("Sigmoid", z))))
    return str(z)


def limited(net: Net, gaps: str, how: str) -> str:
    zero = net.const(np.float32(0))
    match how:
        case "Clip":
            return str(net.op("Clip", gaps, "", zero))
        case "Min of like zeros":
            return str(net.op("Min", gaps, net.op("ConstantOfShape", net.op("Shape", gaps))))
        case "Relu":
            return str(net.op("Neg", net.op("Relu", net.op("Neg", gaps))))
        case "Max":
            return str(net.op("Neg", net.op("Max", zero, net.op("Neg", gaps))))
    return str(net.op("Min", gaps, zero))


MASKS = ["largest one", "Min with one", "numbers", "numbers before the mask"]


def finite(net: Net, mask: str, cast: bool = False) -> str:
    """nan_to_num, as exporters write it; `cast`: as that of TorchScript does."""

    def seen(value: str) -> str:
        return str(net.op("Cast", value, to=1)) if cast else value

    zero, large = net.const(np.float32(0)), float(np.finfo(np.float32).max)
    mask = str(net.op("Where", net.op("IsNaN", mask), zero, mask))
    for compared, otherwise in (("Greater", large), ("Less", -large)):
        test = net.op("And", net.op("IsInf", seen(mask)), net.op(compared, mask, zero))
        mask = str(net.op("Where", test, net.const(np.float32(otherwise)), mask))
    return mask


def masked(net: Net, decays: str, how: str) -> str:
    """The mask of decays, limited or replaced behind the exponential; for 10 steps."""
    ones, one = net.const(np.tril(np.ones((10, 10), np.float32))), net.const(np.float32(1))
    match how:
        case "largest one":
            return str(net.op("Mul", net.op("Clip", decays, "", one), ones))
        case "Min with one":
            return str(net.op("Min", net.op("Mul", decays, ones), one))
        case "largest half":
            return str(net.op("Mul", net.op("Clip", decays, "", net.const(np.float32(0.5))), ones))
        case "numbers":
            return finite(net, str(net.op("Mul", decays, ones)))
    return str(net.op("Mul", finite(net, decays, cast=True), ones))


def masked_attention(net: Net, how: str) -> str:
    x = net.input([2, 10, INPUTS])
    logs = net.op("CumSum", rates(net, x, "softplus"), net.const(np.int64(1)))
    gaps = net.op("Sub", net.op("Unsqueeze", logs, net.ints(2)), net.op("Unsqueeze", logs, net.ints(1)))
    scores = net.op("MatMul", projected(net, x), net.op("Transpose", projected(net, x), perm=[0, 2, 1]))
    weights = net.op("Mul", scores, masked(net, str(net.op("Exp", gaps)), how))
    return str(net.op("MatMul", weights, projected(net, x)))


def attention(net: Net, how: str, limit: str, masked: bool = True) -> str:
    x = net.input(["n", "l", INPUTS])
    logs = net.op("CumSum", rates(net, x, how), net.const(np.int64(1)))
    gaps = net.op("Sub", net.op("Unsqueeze", logs, net.ints(2)), net.op("Unsqueeze", logs, net.ints(1)))
    decays = net.op("Exp", limited(net, gaps, limit))
    decays = net.op("Trilu", decays, upper=0) if masked else decays
    scores = net.op("MatMul", projected(net, x), net.op("Transpose", projected(net, x), perm=[0, 2, 1]))
    return str(net.op("MatMul", net.op("Mul", scores, decays), projected(net, x)))


@pytest.mark.parametrize(
    ("how", "limit"), [*((how, "Clip") for how in RATES), *(("softplus", at) for at in LIMITS[1:])]
)
def test_what_counts_is_within_the_limit(tmp_path: Path, how: str, limit: str) -> None:
    net = Net()
    model = load_model(save(net.model([(attention(net, how, limit), ["n", "l", WIDTH])]), tmp_path))
    assert kinds(model) == ["selective"]
    on_targets(model, 2, 17)


@pytest.mark.parametrize(("how", "masked"), [("of either sign", True), ("log-sigmoid", False)])
def test_what_counts_is_beyond_the_limit(tmp_path: Path, how: str, masked: bool) -> None:
    """Rates of either sign, or no mask."""
    net = Net()
    y = attention(net, how, "Clip", masked)
    refused(save(net.model([(y, ["n", "l", WIDTH])]), tmp_path), "Clip", "mix time")


@pytest.mark.parametrize("how", MASKS)
def test_a_mask_is_within_one_and_made_of_numbers(tmp_path: Path, how: str) -> None:
    net = Net()
    model = load_model(save(net.model([(masked_attention(net, how), [2, 10, WIDTH])]), tmp_path))
    assert kinds(model) == ["selective"]
    on_targets(model, 2, 10)


def test_a_mask_that_is_limited_below_one(tmp_path: Path) -> None:
    net = Net()
    y = masked_attention(net, "largest half")
    refused(save(net.model([(y, [2, 10, WIDTH])]), tmp_path), "Clip", "mix time")
