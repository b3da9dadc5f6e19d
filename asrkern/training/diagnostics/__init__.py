"""Why a CTC model does not learn, in words: :class:`CollapseMonitor` watches a run and tells collapses apart."""

from asrkern.training.diagnostics.measures import LayerSignal, Measures, Probe, gradient_stds, measure
from asrkern.training.diagnostics.monitor import CollapseMonitor
from asrkern.training.diagnostics.verdict import Verdict, diagnose

__all__ = [
    "CollapseMonitor",
    "LayerSignal",
    "Measures",
    "Probe",
    "Verdict",
    "diagnose",
    "gradient_stds",
    "measure",
]
