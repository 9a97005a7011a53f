"""What the machine-independent passes must know of a target; a backend fills it in from its architecture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StateCost:
    """Joules of a real state word in a step: to update and read it, to turn it into its rotating frame and back, to
    compute its decay from an elapsed time; `keep`: to hold it for a step's time. Where A is in arrays: `update` of
    every array that a state's sum takes, and `pair` for every two states."""

    update: float
    turn: float = 0.0
    timed: float = 0.0
    keep: float = 0.0
    pair: float = 0.0


@dataclass(frozen=True)
class StateBank:
    """A kind of place that holds states.

    `count` is how many real states the machine holds in it (None: no limit, they are reloaded).
    `decay_only`: the state can only shrink, 0 < |Abar| < 1 (volatile devices). `computed_decay`: takes a decay
    that is streamed (`tile.recurrence`). `fused`: holds B, C and D of single-input systems too (`tile.ssm`);
    `liquid`: those whose drive adds to their decay, and no others.
    `native_complex`: one place holds a complex state. `timed_decay`: a digital bank that computes the decay of an
    elapsed time. `spread` is that of the time constants from place to place, of the mean. `fastest` and `slowest` bound
    `-ln |Abar|` of a step that it can be made for. `dense`: A itself lies in weight arrays, so that states may feed
    each other (`tile.feedback`); `product_error` is the rms error of a product there, of its largest output. `unit` is
    that of elapsed times, in steps.
    """

    kind: str
    count: int | None = None
    decay_only: bool = False
    computed_decay: bool = False
    fused: bool = False
    liquid: bool = False
    native_complex: bool = False
    timed_decay: bool = False
    fastest: float = float("inf")
    slowest: float = 0.0
    spread: float = 0.0
    dense: bool = False
    product_error: float = 0.0
    unit: float = 1.0
    cost: StateCost | None = None


@dataclass(frozen=True)
class Converters:
    """Bits of a weight array's DACs and ADCs, signs included; `each_vector`: a DAC's range follows the vector."""

    dac_bits: int
    adc_bits: int
    each_vector: bool


@dataclass(frozen=True)
class ProductCost:
    """Joules of a product in an array: of each row driven, each column converted, each weight."""

    row: float
    col: float
    pair: float


@dataclass(frozen=True)
class ArrayErrors:
    """How a weight array errs, as standard deviations: a product, of its largest output; a weight, of the full
    conductance, rounding included; an input, of the largest one."""

    product: float = 0.0
    weight: float = 0.0
    drive: float = 0.0


@dataclass(frozen=True)
class Coupling:
    """Analog paths between weight arrays and a bank that decays by itself, within a core: columns `into` nodes, nodes
    `out` to rows. `conversion` and `drive` are the joules that a column and a row then spare, `hop` those of a word on
    its way from a core to the next; `gain` is the spread of the gain from node to node, of the mean."""

    into: bool
    out: bool
    nodes_per_core: int
    conversion: float = 0.0
    drive: float = 0.0
    hop: float = 0.0
    gain: float = 0.0


@dataclass(frozen=True)
class FixedPoint:
    """Numbers of `bits` bits, two's complement, `fraction` of them behind the point."""

    bits: int
    fraction: int

    @property
    def room(self) -> float:
        """The largest number, where 1 is what is expected."""
        return float(2.0 ** (self.bits - 1 - self.fraction))


@dataclass(frozen=True)
class Machine:
    """Array geometry and state banks of a target, and the number formats it stores.

    `arrays` is how many weight arrays are resident (None: reloaded at will). `banks` stand in order of preference.
    Bits are None where numbers are not rounded, `states` where they are not fixed point, `converters` where there
    are none, `errors` where arrays are perfect, `product_cost` where it is not known. Cores of `arrays_per_core`
    stand on a mesh `mesh_width` wide, row by row (None: one core). `sweeps`: it may run through a sequence several
    times; `reloads`: where a model takes more than there is, arrays may be written again in between; `rounds`:
    samples of a batch may be run side by side. `coupling` is None where arrays and state nodes meet through
    converters only.
    """

    target: str
    array_rows: int
    array_cols: int
    arrays: int | None
    cells_per_weight: int
    banks: tuple[StateBank, ...]
    weight_bits: int | None = None
    state_parameter_bits: int | None = None
    states: FixedPoint | None = None
    decay_levels: int | None = None
    converters: Converters | None = None
    errors: ArrayErrors | None = None
    product_cost: ProductCost | None = None
    coupling: Coupling | None = None
    arrays_per_core: int | None = None
    mesh_width: int | None = None
    sweeps: bool = False
    reloads: bool = False
    rounds: bool = False
