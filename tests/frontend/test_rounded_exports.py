"""Rounded states as torch exports them, by both exporters: a loop over steps unrolled, and one step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssmc.frontend import load_model
from tests.frontend.test_rounded_states import runs

torch = pytest.importorskip("torch")
CHANNELS, STATES, LENGTH = 3, 4, 12


def module(form: str) -> Any:
    class Layer(torch.nn.Module):  # type: ignore[misc, name-defined]
        """x' = Q(a x + B u), y = sum(C x) of each channel."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a = torch.nn.Parameter(torch.rand(CHANNELS, STATES) * 0.5 + 0.4)
            self.turn = torch.nn.Parameter(torch.rand(CHANNELS, STATES))
            self.b, self.c = (torch.nn.Parameter(torch.randn(2, CHANNELS, STATES)) for _ in range(2))
            self.register_buffer("scale", torch.rand(CHANNELS) * 0.05 + 0.02)
            self.register_buffer("zero", torch.zeros(CHANNELS, dtype=torch.int32))

        def rounded(self, x: Any) -> Any:
            if form == "channels":
                return torch.fake_quantize_per_channel_affine(x, self.scale, self.zero, 1, -128, 127)
            if form == "straight-through":
                return x + (torch.clamp(torch.round(x / 0.05), -128, 127) * 0.05 - x).detach()
            if form == "clipped first":
                return torch.round(torch.clamp(x / 0.05, -100, 90)) * 0.05
            return torch.fake_quantize_per_tensor_affine(x, 0.05, 0, -128, 127)

        def following(self, x: Any, u: Any) -> Any:
            v = [b * u[..., None] for b in self.b]
            if form != "complex":
                return [self.rounded(self.a * x[0] + v[0])]
            p, q = self.a * torch.cos(self.turn), self.a * torch.sin(self.turn)
            return [self.rounded(p * x[0] - q * x[1] + v[0]), self.rounded(q * x[0] + p * x[1] + v[1])]

        def forward(self, u: Any, *x: Any) -> Any:
            if form == "step":
                (last,) = self.following(x, u)
                return (self.c[0] * last).sum(-1), last
            x, rows = [torch.zeros(u.shape[0], CHANNELS, STATES)] * 2, []
            for k in range(u.shape[1]):
                x = self.following(x, u[:, k])
                rows.append(sum((c * part).sum(-1) for c, part in zip(self.c, x, strict=False)))
            return torch.stack(rows, 1)

    return Layer().eval()


FORMS = ("tensor", "channels", "straight-through", "clipped first", "complex", "step")
CASES = [*((form, False) for form in FORMS), ("tensor", True), ("channels", True), ("complex", True)]


@pytest.mark.filterwarnings("ignore")  # what torch says of its own tracing
@pytest.mark.parametrize(("form", "dynamo"), CASES)
def test_fake_quantised_states(tmp_path: Path, form: str, dynamo: bool) -> None:
    path, u = tmp_path / "m.onnx", torch.randn(2, LENGTH, CHANNELS)
    given = (u[:, 0], torch.zeros(2, CHANNELS, STATES)) if form == "step" else (u,)
    torch.onnx.export(module(form), given, str(path), opset_version=18 if dynamo else 17, dynamo=dynamo, verbose=False)
    model = load_model(path)
    (system,) = model.systems
    assert (system.kind, system.is_complex) == ("rounded", form == "complex")
    (node,) = model.graph.nodes("rounded")
    lowest = -100 if form == "clipped first" else -128
    assert np.array_equal(np.unique(node.op["sum_grid"].array[3]), [lowest])
    runs(model)
