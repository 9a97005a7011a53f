"""The chip, described: cores on a mesh, crossbars, state nodes, vector unit, devices, time and energy.

Reconstructed where the published chip (arXiv 2511.13912) is silent; every number in a packaged file says
where it comes from.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ssmc.architecture import Part

# Values of a weight: with its sign it stays exact in the float64 of the simulator.
MOST_VALUES = 2**51

Count = Annotated[int, Field(ge=1)]
Lines = Annotated[int, Field(ge=1, le=1 << 16)]  # ours: far beyond any crossbar
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Mesh(Part):
    """Cores stand row by row in a square as wide as it is high, or one row less."""

    cores: Count = Field(description="Cores of the chip.")
    words_per_flit: Count = Field(description="Words that one link moves in a cycle.")
    hop_cycles: Count = Field(description="Clock cycles of a hop.")
    copies: Count = Field(
        default=1,
        description="How often a layer's arrays may be there: where products keep the busiest core from the next event,"
        " copies on free cores take turns over the steps; 1: once.",
    )


class Crossbar(Part):
    """The crossbar arrays of a core and their converters."""

    per_core: Count = Field(description="Arrays of a core.")
    rows: Lines = Field(description="Rows, each with a DAC.")
    cols: Lines = Field(description="Columns of devices.")
    encoding: Literal["pair", "offset"] = Field(
        default="pair",
        description="How a signed weight is held: as the difference of two devices, or in one device whose middle is "
        "zero: the current of g_min is subtracted before the ADC (a perfect reference column), the middle digitally "
        "behind it, so that the ADC's range holds the middle too.",
    )
    slices: int = Field(
        default=1, ge=1, le=8, description="Digits of a weight, each in devices of their own, added digitally."
    )
    devices_per_weight: Literal[1, 2] = Field(
        description="Of a slice in pairs: 2: side by side in a row; 1: stacked in one cell, counted once."
    )
    levels: int = Field(ge=2, description="Conductance levels of a device, both ends included.")
    g_min: NotNegative = Field(description="Smallest conductance, uS.")
    g_max: Positive = Field(description="Largest conductance, uS.")
    dac_bits: int = Field(ge=2, le=16, description="Bits of a DAC, the sign included.")
    input: Literal["analog", "bit-serial"] = Field(
        default="analog",
        description="A DAC's levels at once, or one bit of the magnitude after the other, added up digitally.",
    )
    adc_bits: int = Field(ge=2, le=16, description="Bits of an ADC, the sign included.")
    cols_per_adc: Count = Field(description="Device columns that share an ADC.")
    input_scale: Literal["vector", "array"] = Field(
        description="What the DAC's range follows: each vector's largest input, or a calibrated range of the array."
    )
    adc_range: Literal["maximum", "norm", "granular", "calibrated"] = Field(
        description="maximum: the largest possible sum (never clips). granular: a step is the smallest difference of "
        "two sums, doubled until the maximum fits. calibrated: what the program carries, else the maximum (encoded as "
        "single pairs, with analog inputs). norm: what it carries, else `adc_norms` times the 2-norm of the column "
        "with the largest one (clips rarely, but offsets with inputs of one sign often; clips are counted)."
    )
    reloads: bool = Field(
        default=False,
        description="Where a model takes more arrays or states than the chip has, they are written again between "
        "sweeps over the whole sequence; else such a model does not fit.",
    )
    feedback: bool = Field(
        default=False,
        description="The states' own matrix A may lie in arrays too, states in registers: x <- A x + B u, a product "
        "more a step (as IMSSA, arXiv 2412.20215); not where `reloads`.",
    )
    coupling: Literal["none", "in", "out", "both"] = Field(
        default="none",
        description="in: a column's current may charge a state node of the core without an ADC; out: state nodes may "
        "drive rows of the core's arrays without DACs; where weights are single pairs and inputs analog: slices, bits "
        "and offsets are put together digitally.",
    )
    adc_norms: Positive = Field(default=2.0, description="Range of the policy 'norm', in column norms.")

    @model_validator(mode="after")
    def _window(self) -> Crossbar:
        if self.g_max <= self.g_min:
            raise ValueError(f"g_max ({self.g_max:g} uS) must lie above g_min ({self.g_min:g} uS)")
        if self.cols < self.cells_per_weight:
            raise ValueError(f"{self.cols} columns hold no weight of {self.cells_per_weight} devices")
        if self.encoding == "offset" and self.levels**self.slices < 3:
            raise ValueError("an offset weight takes three levels at least")
        if self.levels**self.slices > MOST_VALUES:
            raise ValueError(
                f"{self.slices} slices of {self.levels} levels tell {self.levels**self.slices:.3g} weights apart, more "
                f"than a float64 does ({MOST_VALUES:.3g}): fewer slices, or fewer levels"
            )
        if self.adc_range == "calibrated" and not self.single:
            raise ValueError("adc_range 'calibrated' takes single pairs and analog inputs")
        return self

    @property
    def single(self) -> bool:
        """Whether one conversion gives a whole product: weights as one pair each, inputs at once."""
        return self.encoding == "pair" and self.slices == 1 and self.input == "analog"

    def couples(self, side: Literal["in", "out"]) -> bool:
        """Whether columns may charge nodes (in), nodes drive rows (out)."""
        return self.single and self.coupling in (side, "both")

    @property
    def cells_per_weight(self) -> int:
        """Columns of the array that a weight takes."""
        return self.slices * (self.devices_per_weight if self.encoding == "pair" else 1)

    @property
    def planes(self) -> int:
        """Reads of the array that a product takes."""
        return self.dac_bits - 1 if self.input == "bit-serial" else 1


class Volatile(Part):
    """State nodes that decay by themselves."""

    per_core: Whole = Field(description="Real states of a core (a node is a differential pair of devices).")
    time_constants: Count = Field(
        description="Different time constants of one layer's states, set when the chip is made."
    )
    tau_min: Positive = Field(description="Shortest time constant, s.")
    tau_max: Positive = Field(description="Longest time constant, s.")
    charge_cycles: Count = Field(description="Clock cycles of a charging pulse.")
    read_cycles: Count = Field(description="Clock cycles of a read.")

    @model_validator(mode="after")
    def _window(self) -> Volatile:
        if self.tau_max < self.tau_min:
            raise ValueError(f"tau_max ({self.tau_max:g} s) must not lie below tau_min ({self.tau_min:g} s)")
        return self


class Digital(Part):
    """States in registers, with multipliers."""

    per_core: Whole = Field(description="Real states of a core.")


class Time(Part):
    """What a step is in real time."""

    step_seconds: Positive = Field(description="Time between steps of a regularly sampled model, s.")
    unit_seconds: NotNegative = Field(
        default=0.0,
        description="Unit in which a model counts elapsed times, s: 1 where it counts in seconds; 0: as step_seconds.",
    )

    def unit(self, *, timed: bool) -> float:
        """What a time of one is, s: of a model's elapsed times, or from step to step."""
        return (self.unit_seconds if timed else 0.0) or self.step_seconds


class VectorUnit(Part):
    """The digital part of a core."""

    clock_hertz: Positive = Field(description="Digital clock, Hz.")
    lanes: Count = Field(description="Words a cycle.")
    words: Count = Field(description="Vector registers of a core, words.")
    table_words: Count = Field(description="Memory of a core for embedding tables, gather indices and kernels, words.")
    norm_cycles: Count = Field(description="Cycles of a square root and a division.")


class Timing(Part):
    """How long the analog part takes, in digital clock cycles."""

    dac_cycles: Whole = Field(description="Settling of the DACs.")
    read_cycles: Count = Field(description="Read pulse of an array.")
    adc_cycles: Count = Field(description="One conversion of an ADC.")
    program_cycles: Count = Field(
        default=1000, description="Writing and verifying the devices of one row of an array (ours: ten pulses of 1 us)."
    )
    latency_share: Positive = Field(
        description="Part of the smallest time constant that an event's latency may take before a run says so."
    )


class Energy(Part):
    """Energy per operation at the technology node given, pJ unless said; of converters and devices as they are: another
    `adc_bits` changes none of them."""

    node_nm: Positive = Field(description="Technology node, nm.")
    adc: NotNegative = Field(description="One conversion, pJ; give that of an ADC of `adc_bits`.")
    dac: NotNegative = Field(description="One row driven once, pJ.")
    device_read: NotNegative = Field(description="One device read once, pJ.")
    state_charge: NotNegative = Field(description="One volatile state charged, pJ.")
    state_read: NotNegative = Field(description="One volatile state read, pJ.")
    digital_state: NotNegative = Field(description="One digital state updated, pJ.")
    vector_word: NotNegative = Field(description="One word of a vector operation, registers included, pJ.")
    table_word: NotNegative = Field(description="One table look-up, pJ.")
    mesh_word_hop: NotNegative = Field(description="One word over one hop, pJ.")
    control: NotNegative = Field(description="One instruction fetched and decoded, pJ.")
    program_device: NotNegative = Field(description="One device programmed and verified, pJ.")
    core_idle_watts: NotNegative = Field(description="A core that is powered, W.")
    digital_keep_watts: NotNegative = Field(
        default=0.0,
        description="A digital state that is kept, W, where core_idle_watts has no part of it (volatile states leak "
        "nothing but themselves).",
    )


class Devices(Part):
    """Non-idealities; each off (none, 0), on, or scaled."""

    converters: bool = Field(default=True, description="DAC and ADC round and clip.")
    levels: bool = Field(default=True, description="Conductances take the nearest level.")
    g_min: NotNegative = Field(default=0.0, description="As g_max, the smallest conductance.")
    g_max: NotNegative = Field(
        default=0.0,
        description="Largest conductance of these devices, uS, where it is not the crossbar's own; 0: it is.",
    )
    programming: Literal["none", "pcm", "rram-wan", "rram-milo", "independent", "proportional", "uniform"] = Field(
        default="none", description="Law of the programming error."
    )
    programming_sigma: NotNegative = Field(
        default=0.0,
        description="Standard deviation of a programmed conductance: of g_max (independent), of the conductance "
        "(proportional); half the width, of g_max (uniform).",
    )
    programming_scale: NotNegative = Field(default=1.0, description="Factor on the programming error.")
    stuck_low: Share = Field(default=0.0, description="Part of the devices that stay at g_min.")
    stuck_high: Share = Field(default=0.0, description="Part of the devices that stay at g_max.")
    reference: bool = Field(
        default=False,
        description="The reference column of an offset encoding is of devices at g_min too, one in every row, written "
        "and read with the same errors; else it is perfect.",
    )
    drift: Literal["none", "pcm"] = Field(default="none", description="Law of the conductance drift.")
    drift_scale: NotNegative = Field(default=1.0, description="Factor on the drift exponent.")
    drift_compensation: bool = Field(
        default=False, description="Every array's outputs are scaled by how much its conductances shrank in all."
    )
    age_seconds: NotNegative = Field(default=20.0, description="Time since programming, s.")
    read_noise: Literal["none", "pcm", "independent", "proportional"] = Field(
        default="none", description="Law of the noise of every read, referred to the column's output."
    )
    read_sigma: NotNegative = Field(
        default=0.0,
        description="Standard deviation of a read: of g_max (independent), of the conductance (proportional).",
    )
    read_scale: NotNegative = Field(default=1.0, description="Factor on the read noise.")
    product_bits: Annotated[float, Field(ge=0, le=64)] = Field(
        default=0.0, description="Effective bits of a whole product, everything in it together; 0: off."
    )
    dac_offset: NotNegative = Field(
        default=0.0, description="Spread of the DACs' constant offsets, row by row, of a step."
    )
    adc_offset: NotNegative = Field(
        default=0.0, description="Spread of the ADCs' constant offsets, ADC by ADC, of a step."
    )
    wire_ohms: NotNegative = Field(
        default=0.0, description="Resistance of a wire between neighbouring cells, Ohm, to first order."
    )
    line_gain: NotNegative = Field(
        default=0.0,
        description="Spread of the gain with which a line charges its node, and of that with which a node drives its "
        "line, from node to node, of the mean.",
    )
    decay_sigma: NotNegative = Field(
        default=0.0, description="Spread of the time constants from device to device, of the mean."
    )
    cycle_sigma: NotNegative = Field(
        default=0.0, description="Spread of a decay's exponent from event to event, of the exponent."
    )
    latency_scale: NotNegative = Field(
        default=0.0,
        description="Factor on the program's own time as volatile states see it: they decay while events wait for a "
        "busy core, and from a charge to its read; 1: as scheduled, 0: off.",
    )
    write_saturation: Share = Field(
        default=0.0,
        description="How much less a state node takes the fuller it is: 1 is the published law, 0 a linear write.",
    )

    @model_validator(mode="after")
    def _window(self) -> Devices:
        if (self.g_min or self.g_max) and self.g_max <= self.g_min:
            raise ValueError(f"g_max ({self.g_max:g} uS) must lie above g_min ({self.g_min:g} uS)")
        if self.stuck_low + self.stuck_high > 1:
            raise ValueError(f"stuck_low ({self.stuck_low:g}) and stuck_high ({self.stuck_high:g}) are more than all")
        return self


class Architecture(Part):
    """The whole chip."""

    name: str = Field(min_length=1, description="What the chip is called.")
    target: Literal["cim"] = Field(description="Must be 'cim'.")
    mesh: Mesh
    crossbar: Crossbar
    volatile: Volatile
    digital: Digital
    time: Time
    vector: VectorUnit
    timing: Timing
    energy: Energy
    devices: Devices = Devices()

    @property
    def arrays(self) -> int:
        return self.mesh.cores * self.crossbar.per_core

    @property
    def weight_cols(self) -> int:
        """Weights of an array's row."""
        return self.crossbar.cols // self.crossbar.cells_per_weight

    @property
    def mesh_width(self) -> int:
        return math.isqrt(self.mesh.cores - 1) + 1

    def hops(self, source: int, target: int) -> int:
        """Mesh hops between two cores (dimension-ordered); a message to the core itself takes none."""
        (r0, c0), (r1, c1) = divmod(source, self.mesh_width), divmod(target, self.mesh_width)
        return abs(r0 - r1) + abs(c0 - c1)
