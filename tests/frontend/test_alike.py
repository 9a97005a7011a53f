"""What is done alike to chunks, done to the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssmc.frontend.loops.alike import _Joiner
from ssmc.frontend.source.importer import import_model
from ssmc.frontend.source.listing import list_calls
from ssmc.frontend.source.proto import read_model
from ssmc.ir.graph import Value
from tests.frontend.net import Net, save


def test_parts_that_are_there_no_more_are_left_alone(tmp_path: Path) -> None:
    """Of many heads in chunks, the whole of one group has taken the place of another's parts."""
    net = Net()
    x = net.input([2, 4, 3])
    path = save(net.model([(net.op("Neg", x), [2, 4, 3])]), tmp_path)
    listing = list_calls(import_model(read_model(path), path))
    arrays = {value: np.ones((2, 4, 3)) for value in listing.inputs.values()}
    joiner = _Joiner(listing, {**arrays, **listing.constants}, thorough=True)
    joiner.hoist((Value("gone"), *listing.calls[0].results), (2, 2))
    assert joiner.listing is listing and not joiner.found
