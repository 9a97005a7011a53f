"""ONNX files -> the graph of linear systems in them, and of what stands around the systems."""

from ssmc.frontend.findings import Refusal
from ssmc.frontend.load import load_model
from ssmc.frontend.model import LiftedSystem, Model, Proof
from ssmc.frontend.proofs.exact import exact_reference
from ssmc.frontend.proofs.reference import check_inputs, reference
from ssmc.frontend.source.importer import import_onnx
from ssmc.interface import Port

__all__ = [
    "LiftedSystem",
    "Model",
    "Port",
    "Proof",
    "Refusal",
    "check_inputs",
    "exact_reference",
    "import_onnx",
    "load_model",
    "reference",
]
