"""Passes: graph to graph, one file each, checked after each.

A usual pipeline, from a lifted graph to one that a backend lowers, and why each pass stands where it does:

    fold-constants            what is known now needs no instruction, and hides nothing from the passes after it
    fold-norms                while matrices are whole and unrounded
    discretize                everything after it wants Abar
    diagonalize               states that go their own way are what both targets hold; needs Abar, or a step
    halve-conjugates          pairs show in the eigenbasis only; half the states are left to share and to round
    fold-liquid               (if the target steps liquid systems) recurrences of that kind are still whole
    fold-readout              what is linear around a system has its last form; before banks ask what B and C cost
    choose-banks              (if the target has several banks) before anything is made to suit one of them
    share-decays{levels=6}    (if the target has few time constants) before the rounding, which refits would undo
    scale-states              (if columns charge state nodes) before the rounding of C, which takes the units over
    quantize{weights=8}       (if the target rounds) on the numbers that `tile` will store
    tile                      from systems to pieces of the target's size
    balance-columns           (if arrays err by their largest output) on rounded pieces, before their ranges are chosen
    map-weights               pieces and states find their places
    couple                    (if columns charge state nodes) on placed pieces; where it does, ranges are others
    calibrate                 (if the target has converters) on the pieces as they lie
    choose-units              (if the target's states are fixed point) on numbers that no pass will change
    schedule                  nodes find their times
"""

from ssmc.passes.base import Context, DecayLoss, LayerLoss, LossReport, Note, Pass
from ssmc.passes.choices import Alternative, BankChoice, CouplingChoice, UnitChoice
from ssmc.passes.machine import ArrayErrors, Converters, Coupling, FixedPoint, Machine, StateBank, StateCost
from ssmc.passes.manager import Observer, PassManager, Step, print_after
from ssmc.passes.pipeline import parse_pipeline, show_pass, show_pipeline
from ssmc.passes.registry import PassInfo, available, register

__all__ = [
    "Alternative",
    "ArrayErrors",
    "BankChoice",
    "Context",
    "Converters",
    "Coupling",
    "CouplingChoice",
    "DecayLoss",
    "FixedPoint",
    "LayerLoss",
    "LossReport",
    "Machine",
    "Note",
    "Observer",
    "Pass",
    "PassInfo",
    "PassManager",
    "StateBank",
    "StateCost",
    "Step",
    "UnitChoice",
    "available",
    "parse_pipeline",
    "print_after",
    "register",
    "show_pass",
    "show_pipeline",
]
