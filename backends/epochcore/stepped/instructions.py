"""How every instruction of an engine is stepped: in the elements, in the lanes of the vector unit, over the DRAM
channel, or by its engine alone."""

from __future__ import annotations

from backends.epochcore.program.passes import PASSES
from backends.epochcore.stepped.carrying import CARRYING
from backends.epochcore.stepped.lanes import Rule
from backends.epochcore.stepped.streams import STREAMS
from backends.epochcore.stepped.transfers import TRANSFERS
from backends.epochcore.stepped.vector import WITHIN

IN_ARRAY = (*PASSES, "preload", "state.load", "state.store")
IN_LANES: dict[str, Rule] = {**WITHIN, **CARRYING, **STREAMS}
SERIAL = tuple(CARRYING)  # a step waits for the one before
STEPPED = (*IN_ARRAY, *IN_LANES, *TRANSFERS, "sync")
