"""Callbacks for the Lightning Trainer, one class per file, installed as `reft_pl_callbacks`."""

from .export_hf import ExportHF
from .kl_guard import KLGuard
from .non_finite_guard import NonFiniteGuard
from .phase_progress_bar import PhaseProgressBar
from .sample_table import SampleTable

__all__ = ["ExportHF", "KLGuard", "NonFiniteGuard", "PhaseProgressBar", "SampleTable"]
