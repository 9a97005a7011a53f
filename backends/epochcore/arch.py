"""The chip: what an architecture file describes, with units and meanings; and reading one.

The published paper (arXiv 2507.21394) leaves array size, clock, formats and memories open, so each of them is a
parameter here and every packaged file says beside a number where it comes from.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from ssmc import architecture
from ssmc.architecture import Part
from ssmc.diagnostics import Misfit

DEFAULT = "epochcore-128"
# Integers stay exact in the float64 arithmetic of the simulator up to this many bits.
EXACT_BITS = 52

Mode = Literal["mac", "mac.os", "fri", "fri.x", "tri", "tri.x", "sel"]
# Terms of a sum where results stay in place: what an instruction can say.
MOST_TERMS = 4095
# Channels that have rows of a column to themselves; more than that are more wires than an element has states for.
MOST_GROUPS = 64
# Of the vector unit: no program has as many instructions that could be under way at once.
MOST_PIPES = 1024
Count = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0)]


class Array(Part):
    """The processing elements."""

    rows: Count = Field(description="rows of processing elements: inputs of a matrix, states of a channel")
    cols: Count = Field(description="columns: outputs of a matrix, channels of an SSM")
    modes: tuple[Mode, ...] = Field(
        description="what an element can do: mac (weight stationary), mac.os (output stationary), "
        "fri (x <- a x + b u, c x summed down a column), "
        "fri.x (x <- a x + v, x read out), tri and tri.x (the same with (a + v) x + v), sel (a streamed too)"
    )
    complex: Literal["native", "ganged"] = Field(
        description="native: an element holds and steps a complex state; ganged: four real elements do, in two cycles"
    )
    states_per_element: Count = Field(
        default=1,
        description="states that an element holds and steps one after the other (complex ones where native), of one "
        "channel or of several",
    )
    column_words: Annotated[int, Field(ge=1, le=MOST_GROUPS)] = Field(
        default=1,
        description="words that an element hands down its column in a cycle, and as many sums: so many channels can "
        "have rows of a column to themselves, where the ports bring their words",
    )
    column_word_area: Amount = Field(
        default=0.66,
        description="area of an element's registers and wires for every further word of its column, with its sum, in "
        "multipliers of weight and activation",
    )
    mac_depth: Count = Field(description="cycles from an element's operands to its result (pipeline depth)")
    port_words_in: Count = Field(
        description="words that enter the array's edges in a cycle; as many again of parameters and states"
    )
    port_words_out: Count = Field(description="words that leave the array's edge in a cycle; as many again of states")
    shadow: bool = Field(description="whether parameters can be shifted in while the array computes")
    handover_steps: Annotated[int, Field(ge=0, le=4096)] = Field(
        default=0,
        description="steps after which an engine's result can be read while the rest of it is under way; passes of the "
        "array then follow each other without draining (0: an instruction waits for whole ones)",
    )

    @model_validator(mode="after")
    def _holds_something(self) -> Array:
        if not {"mac", "mac.os"} & set(self.modes):
            raise ValueError("modes must hold mac or mac.os: an array that multiplies no matrices runs no model")
        if self.complex == "ganged" and set(self.modes) - {"mac", "mac.os"} and min(self.rows, self.cols) < 2:
            raise ValueError(
                f"an array of {self.rows} x {self.cols} holds no complex state: ganged, it takes 2 x 2 elements"
            )
        return self


Kind = Literal["fixed", "float32", "bfloat16", "float16"]


class Numbers(Part):
    """Formats of the realistic (not ideal) machine's elements; vectors in the scratchpad are float32."""

    format: Kind = Field(
        default="fixed",
        description="of weights, vectors that enter the array, and parameters in its elements: fixed (integers with "
        "power-of-two units, in the widths below) or floating point, whose sums are float32",
    )
    state_format: Kind | None = Field(
        default=None, description="of a state, floating point; left out: as `format`. Fixed with fixed alone"
    )
    decay: Literal["one-minus", "plain"] = Field(
        default="one-minus",
        description="what an element keeps of its decay: 1 - a, which is precise where a is near 1, or a",
    )
    rounding: Literal["nearest", "truncate"] = Field(
        default="nearest",
        description="of what is computed: to the nearest, ties to even, or bits are cut off (fixed: downwards; "
        "floating point: towards zero)",
    )
    overflow: Literal["saturate", "wrap"] = Field(
        default="saturate",
        description="of states and sums: to the largest number there is, or round (fixed: two's complement, floating "
        "point: infinite); counted either way",
    )
    weight_bits: Annotated[int, Field(ge=2, le=16)] = Field(description="integer weights with a scale per column")
    activation_bits: Annotated[int, Field(ge=2, le=24)] = Field(
        description="integers of a vector that enters the array, with one power-of-two exponent a vector and step"
    )
    parameter_bits: Annotated[int, Field(ge=2, le=24)] = Field(
        description="mantissa of 1 - a, b and c in an element, with a power-of-two exponent each"
    )
    state_bits: Annotated[int, Field(ge=4, le=40)] = Field(
        description="a state (each part of a complex one), fixed point"
    )
    state_fraction_bits: Annotated[int, Field(ge=0, le=40)] = Field(
        description="how many of the state's bits are behind the point, where 1 is how far it is expected to go (see "
        "`choose-units`; without that 1 / (1 - |a|)); those before it are room for more"
    )
    accumulator_bits: Annotated[int, Field(ge=8, le=EXACT_BITS)] = Field(
        description="partial sums down a column, in every element that they pass"
    )

    @model_validator(mode="after")
    def _exact(self) -> Numbers:
        if self.parameter_bits + self.state_bits > EXACT_BITS:
            raise ValueError(f"parameter_bits + state_bits must not exceed {EXACT_BITS}")
        if self.state_fraction_bits >= self.state_bits:
            raise ValueError("state_fraction_bits must be less than state_bits: one of them is the sign")
        if (self.format == "fixed") != (self.of_states == "fixed"):
            raise ValueError("format and state_format must both be fixed, or both floating point")
        return self

    @property
    def fixed(self) -> bool:
        return self.format == "fixed"

    @property
    def of_states(self) -> Kind:
        return self.state_format or self.format


class Memory(Part):
    """On-chip memories."""

    word_bits: Literal[16, 32] = Field(description="bits of a scratchpad word, for traffic and energy")
    scratchpad_words: Annotated[int, Field(ge=1, le=2**22)] = Field(
        description="words for streams, states and constants"
    )
    parameter_words: Annotated[int, Field(ge=1, le=2**26)] = Field(description="words for the array's parameters")
    stream_words: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="words in which streams between two loops over time stay on the chip; the rest is in DRAM",
    )
    banks: Annotated[int, Field(ge=0)] = Field(
        default=0, description="banks of the scratchpad, word n in bank n modulo so many (0: no word waits for another)"
    )
    bank_ports: Count = Field(
        default=1,
        description="words that a bank gives, and takes, in a cycle, for each operand of an instruction (of complex "
        "ones, for each half)",
    )

    @property
    def words_at_once(self) -> int | None:
        """Words in a row that the banks give in a cycle; None: no limit."""
        return self.banks * self.bank_ports or None


class Dram(Part):
    """Memory outside, reached by DMA."""

    bytes_per_second: Annotated[float, Field(ge=1e3)] = Field(description="bandwidth, reads and writes together")
    latency_cycles: Annotated[int, Field(ge=0)] = Field(description="clock cycles before the first word of a transfer")


class Vector(Part):
    """The vector unit at the array's edge."""

    width: Count = Field(description="words in a cycle, of one instruction")
    pipes: Annotated[int, Field(ge=1, le=MOST_PIPES)] = Field(
        default=1, description="instructions under way at once, where engines hand over step by step"
    )
    latency_cycles: Annotated[int, Field(ge=0)] = Field(description="clock cycles from first word in to first word out")
    function_passes: Count = Field(description="passes of a look-up function (exp, GELU, division) over a vector")


class Energy(Part):
    """Energies per event, at `technology_nm`."""

    mac_joules: Amount = Field(description="a multiply-accumulate of weight and activation in fixed point")
    state_mac_joules: Amount = Field(description="a real multiply-accumulate of parameter and state in fixed point")
    float32_mac_joules: Amount = Field(
        default=4.6e-12, description="either of them in float32, in which ideal programs are counted"
    )
    float16_mac_joules: Amount = Field(
        default=2.0e-12, description="either in float16 or bfloat16, whose sums are float32"
    )
    vector_joules: Amount = Field(description="one word through one pass of the vector unit")
    scratchpad_joules: Amount = Field(description="reading or writing a scratchpad word")
    parameter_joules: Amount = Field(description="reading or writing a parameter memory word")
    dram_joules_per_byte: Amount = Field(description="a byte to or from DRAM")
    compute_watts: Amount = Field(default=0.0, description="clock of the array's elements while a pass runs")
    preload_watts: Amount = Field(default=0.0, description="clock of the shadow registers while they are filled")
    column_word_joules: Amount = Field(
        default=2e-12,
        description="handing on a further word of a column (`array.column_words`), with its sum, from an element to "
        "the next; the first one's is part of what is done with it",
    )
    static_watts: Amount = Field(description="leakage, and the clock that is never gated, all the time")


class Share(NamedTuple):
    """Rows and columns of states in a pass, its columns in so many `groups` of the array's rows."""

    rows: int
    cols: int
    groups: int


class Arch(Part):
    """A systolic array with states in place, or without (modes: [mac])."""

    name: str = Field(description="what the file describes")
    description: str = Field(default="", description="in a sentence, and what it is modelled on")
    technology_nm: Annotated[float, Field(gt=0)] = Field(description="node that the energies are for")
    clock_hz: Annotated[float, Field(gt=0, le=1e12)] = Field(description="clock of array and vector unit")
    array: Array
    numbers: Numbers
    memory: Memory
    dram: Dram
    vector: Vector
    energy: Energy

    @model_validator(mode="after")
    def _fed(self) -> Arch:
        most, array = self.memory.words_at_once, self.array
        widest = max(array.port_words_in, array.port_words_out, self.vector.width)
        if most is not None and most < widest:
            raise ValueError(
                f"the scratchpad's banks give {most} words a cycle (banks * bank_ports), the ports and the vector unit "
                f"take up to {widest}"
            )
        return self

    @property
    def gang(self) -> int:
        """Elements along each axis that a complex state takes: 2 x 2 = 4 where ganged."""
        return 2 if self.array.complex == "ganged" else 1

    @property
    def dram_bytes_per_cycle(self) -> float:
        return self.dram.bytes_per_second / self.clock_hz

    def cells(self, is_complex: bool) -> tuple[int, int]:
        """Rows and columns of states that the array holds at once."""
        rows, cols = self.places(is_complex)
        return rows * self.array.states_per_element, cols

    def places(self, is_complex: bool) -> tuple[int, int]:
        """Rows and columns of elements, or gangs of them, that hold states."""
        gang = self.gang if is_complex else 1
        return self.array.rows // gang, self.array.cols // gang

    def shares(
        self, states: int, channels: int, words: int, is_complex: bool, samples: int = 1, groups: int | None = None
    ) -> Share:
        """How a pass over so many states of so many channels, with so many words a channel and step in and out, is best
        shared out, for the fewest cycles altogether. Raises Misfit where there is no room for those of so many samples.

        A state can be stepped again after `mac_depth` cycles. Other states of the same element fill them: of the same
        channel, of channels that share a column, or of other samples, as far as the ports bring their words. Rows that
        a channel leaves over take other channels, as far as elements hand on their words (`column_words`), in at most
        so many `groups` where these are given.
        """
        return self._shared(states, channels, words, is_complex, samples, groups)[1]

    def cycles_a_step(self, states: int, channels: int, words: int, is_complex: bool, samples: int = 1) -> float:
        """Cycles that such states take altogether at every step, as `shares` has them; infinite where there is no room
        for those of so many samples."""
        try:
            return self._shared(states, channels, words, is_complex, samples)[0]
        except Misfit:
            return float("inf")

    def _shared(
        self, states: int, channels: int, words: int, is_complex: bool, samples: int, most: int | None = None
    ) -> tuple[int, Share]:
        """The least cycles a step, and the pass for it: with the fewest states an element, and the fewest groups."""
        array, gang = self.array, self.gang if is_complex else 1
        rows, cols = self.places(is_complex)
        ports = min(array.port_words_in, array.port_words_out)
        found: list[tuple[int, int, int, Share]] = []
        most = min(array.column_words, most or MOST_GROUPS, rows, max(1, -(-channels * samples // cols)))
        for groups in range(1, most + 1):
            across, high = groups * cols, rows // groups
            # more than these hold everything
            lanes, layers = (min(array.states_per_element, -(-n // m)) for n, m in ((channels, across), (states, high)))
            wide = [n * across for n in range(1, lanes + 1)]
            for deep, width in product(range(1, layers + 1), {*wide, across // samples}):
                used = min(width, channels) * samples
                stack = deep * -(-used // across)
                if not width or stack > array.states_per_element:
                    continue
                interval = max(stack * gang, array.mac_depth + gang - 1, -(-used * words // ports))
                passes = -(-states // (deep * high)) * -(-channels // width)
                found.append((passes * interval, stack, groups, Share(deep * high, width, groups)))
        if not found:
            raise Misfit(
                "a row of states of several samples in the array's elements",
                min(cols, channels) * samples,
                array.states_per_element * min(array.column_words, rows) * cols,
                unit="states",
                levers="more array.states_per_element, or fewer samples together",
            )
        cycles, *_, share = min(found)
        return cycles, share

    def stack(self, is_complex: bool, rows: int, cols: int, groups: int) -> int:
        """States in an element, where so many rows and columns of states lie in `groups` of the array's rows. Raises
        ValueError where there are no rows for so many groups."""
        high, wide = self.places(is_complex)
        if groups > high:
            raise ValueError(f"{groups} groups of {high} rows")
        return -(-rows // (high // groups)) * -(-cols // (wide * groups))

    def holds(self, mode: str, is_complex: bool, rows: int, cols: int, groups: int = 1) -> bool:
        """Whether a preload of so many rows and columns fits into the array."""
        if mode in ("mac", "mac.os"):
            high, wide = self.room(mode, is_complex)
            return rows <= high and cols <= wide and groups == 1
        high, wide = self.places(is_complex)
        if not min(high, wide) or groups > min(self.array.column_words, high):
            return False
        return self.stack(is_complex, rows, cols, groups) <= self.array.states_per_element

    def room(self, mode: str, is_complex: bool) -> tuple[int, int]:
        """Rows and columns that a preload for `mode` may have."""
        if mode == "mac.os":
            return MOST_TERMS, self.array.cols
        return (self.array.rows, self.array.cols) if mode == "mac" else self.cells(is_complex)


def architectures() -> tuple[str, ...]:
    """Packaged architectures that this target can read."""
    return architecture.packaged("epochcore-", "tpu-")


def load_arch(source: str | None) -> Arch:
    """A packaged architecture by name, or a YAML file by path. Raises UserError with file, line and column."""
    return parse_arch(*architecture.read(source or DEFAULT, architectures()))


@lru_cache(maxsize=32)
def parse_arch(text: str, file: str = "<program>") -> Arch:
    """An architecture from YAML text. Raises UserError that lists every mistake with its place."""
    return architecture.parse(Arch, text, file)


@lru_cache(maxsize=32)
def arch_text(arch: Arch) -> str:
    """The canonical YAML that a program carries."""
    return architecture.text_of(arch)
