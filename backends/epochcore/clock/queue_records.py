"""What `queued` works on, as `queues` lays it out: whole numbers in arrays, a row for each of the names below. What is
not known yet, or there is none of, is negative.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
NONE = -1

LOAD, PRELOAD, COMPUTE, VECTOR, STORE = range(5)  # as in `ENGINES`
TURNS = (PRELOAD, COMPUTE, VECTOR, LOAD, STORE)  # those that share the channel last

# By op: its engine, what it is, the engines whose tokens it takes and those that it gives one (a bit each), and the
# number of its price.
ENGINE, KIND, POPS, PUSHES, PRICE = range(5)
OTHER, SYNC, PARAMETERS, STATES, STATE_STORE, PASS = range(6)

# By price: cycles, and those until the next instruction may start; those for which the shadow registers are held;
# whether the DRAM channel is kept, and the number of the wave.
CYCLES, BUSY, HOLDS, MOVES, OF_WAVE = range(5)

# By op the numbers of others: those two that must have ended, whose parameters or states it takes over (or the last one
# on the array), and the pass that must have taken over what is in the shadow registers.
TAKEN, NEEDS = 2, 3

# By engine: which of the ops of all, in their order by engines, comes next, and where its own end; when it is free, and
# what it has begun will have ended. By pair of engines it is `given` which one of the first gives the second its next
# token, or where to look for that.
AT, STOP, FREE, ENDED = range(4)

# By op: when it starts, when it ends, and when its first step has left the shadow registers.
START, FINISH, LEFT = range(3)

# When the array's engine is through with the last pass, and the wave of that; when the registers are empty through
# which states leave, and when the channel is free.
THROUGH, WAVE, OUT, CHANNEL = range(4)
