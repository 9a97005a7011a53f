"""The mathematics of one linear state-space system: no graph, no file format, numpy and scipy.linalg only."""

from ssmc.statespace.arrivals import arrival_spans, event_l1_distance
from ssmc.statespace.chunked import simulate_in_chunks
from ssmc.statespace.conjugates import Halving, halve, to_real, unhalve
from ssmc.statespace.discretization import Method, at_step, discretize
from ssmc.statespace.gramians import controllability_gramian, h2_norm, observability_gramian
from ssmc.statespace.identification import Identification, identify
from ssmc.statespace.joint import identify_together
from ssmc.statespace.modes import ChangeOfBasis, diagonalize
from ssmc.statespace.norms import difference, hinf_norm, l1_distance, l1_norm
from ssmc.statespace.projection import (
    Coordinates,
    Projected,
    Toll,
    project,
    projectable,
    wanted_kernel,
    wanted_response,
)
from ssmc.statespace.realization import COUPLED, realize, side_by_side
from ssmc.statespace.recurrence import simulate
from ssmc.statespace.reduction import Reduction, balanced_truncation
from ssmc.statespace.refit import Refit, refit_input, refit_output
from ssmc.statespace.regression import regress_output
from ssmc.statespace.residues import fit_residues
from ssmc.statespace.response import frequencies, frequency_response, kernel, poles, time_constants
from ssmc.statespace.sharing import SharedDecays, cluster_decays, modal_energy, with_decays
from ssmc.statespace.system import StateSpace, StateSpaceError

__all__ = [
    "COUPLED",
    "ChangeOfBasis",
    "Coordinates",
    "Halving",
    "Identification",
    "Method",
    "Projected",
    "Reduction",
    "Refit",
    "SharedDecays",
    "StateSpace",
    "StateSpaceError",
    "Toll",
    "arrival_spans",
    "at_step",
    "balanced_truncation",
    "cluster_decays",
    "controllability_gramian",
    "diagonalize",
    "difference",
    "discretize",
    "event_l1_distance",
    "fit_residues",
    "frequencies",
    "frequency_response",
    "h2_norm",
    "halve",
    "hinf_norm",
    "identify",
    "identify_together",
    "kernel",
    "l1_distance",
    "l1_norm",
    "modal_energy",
    "observability_gramian",
    "poles",
    "project",
    "projectable",
    "realize",
    "refit_input",
    "refit_output",
    "regress_output",
    "side_by_side",
    "simulate",
    "simulate_in_chunks",
    "time_constants",
    "to_real",
    "unhalve",
    "wanted_kernel",
    "wanted_response",
    "with_decays",
]
