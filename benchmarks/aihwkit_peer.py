"""Runs under aihwkit's own Python, where ssmc is not installed: products and errors of its tiles, as JSON.

Standard input: {"weights": [[...]], "inputs": [[...]], "tile": 128, "settings": "quiet" | "pcm" | "rate", "seed": 1}
Standard output: {"version": "1.1.0", "tile": its class, "outputs": [[...]], "rate": products a processor second}

aihwkit's compiled tiles run with the torch that they were built for; with another one its tiles in torch do the work.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any


def main() -> None:
    import torch
    from aihwkit.inference import PCMLikeNoiseModel
    from aihwkit.nn import AnalogLinear
    from aihwkit.simulator.configs import InferenceRPUConfig, TorchInferenceRPUConfig, WeightNoiseType
    from aihwkit.simulator.parameters import BoundManagementType, NoiseManagementType

    torch.set_num_threads(1)
    asked = json.load(sys.stdin)
    torch.manual_seed(asked["seed"])
    weights = torch.tensor(asked["weights"], dtype=torch.float32)
    inputs = torch.tensor(asked["inputs"], dtype=torch.float32)

    def configured(kind: Any) -> Any:
        config = kind(noise_model=PCMLikeNoiseModel())
        config.mapping.max_input_size = config.mapping.max_output_size = asked["tile"]
        config.mapping.weight_scaling_omega = 1.0
        config.mapping.weight_scaling_columnwise = True
        forward = config.forward
        forward.inp_bound, forward.inp_res = 1.0, 1.0 / (2**7 - 2)
        forward.out_res, forward.out_bound, forward.out_noise = -1.0, -1.0, 0.0
        forward.noise_management = NoiseManagementType.ABS_MAX
        forward.bound_management = BoundManagementType.NONE
        forward.w_noise, forward.w_noise_type = 0.0, WeightNoiseType.NONE
        if asked["settings"] == "rate":
            forward.out_bound, forward.out_res = 12.0, 1.0 / (2**9 - 2)
        return config

    def made(kind: Any) -> Any:
        layer = AnalogLinear(weights.shape[0], weights.shape[1], bias=False, rpu_config=configured(kind))
        layer.set_weights(weights.T)
        return layer.eval()

    try:
        layer = made(InferenceRPUConfig)
    except RuntimeError:
        layer = made(TorchInferenceRPUConfig)
    if asked["settings"] == "pcm":
        layer.program_analog_weights()
    best, y = float("inf"), torch.empty(0)
    with torch.no_grad():
        for _ in range(asked.get("repeats", 1)):
            start = time.process_time()
            y = layer(inputs)
            best = min(best, time.process_time() - start)
    outputs = None if asked["settings"] == "rate" else y.tolist()
    tile = type(next(iter(layer.analog_tiles()))).__name__
    json.dump({"version": version("aihwkit"), "tile": tile, "outputs": outputs, "rate": len(inputs) / best}, sys.stdout)


if __name__ == "__main__":
    main()
