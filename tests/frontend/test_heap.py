"""An import leaves the garbage collector as it was."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from ssmc.diagnostics import UserError
from ssmc.frontend import load_model
from tests.frontend.blocks import first_layer
from tests.frontend.net import Net, save, stepwise


@pytest.mark.parametrize("collects", [True, False])
@pytest.mark.parametrize("good", [True, False])
def test_the_collector_is_as_it_was(tmp_path: Path, good: bool, collects: bool) -> None:
    net = Net()
    path = save(stepwise(net, first_layer(net) if good else net.op("Odd", first_layer(net)), 4), tmp_path)
    (gc.enable if collects else gc.disable)()
    try:
        if good:
            load_model(path)
        else:
            with pytest.raises(UserError):
                load_model(path)
        assert gc.isenabled() == collects and not gc.get_freeze_count()
    finally:
        gc.enable()
