"""Figures of merit with their uncertainty, over plain numbers: no database, no web, no clock.

A figure that cannot be known is `None`, never 0 and never NaN.
"""

from scp_node.measures.accuracy import Accuracy, Stratum, accuracy
from scp_node.measures.agreement import kappa, mcnemar
from scp_node.measures.drift import chi2_quantile, psi, psi_limit
from scp_node.measures.intervals import UNKNOWN, Estimate, bootstrap, effective_size, wilson
from scp_node.measures.roc import PairedAuc, RocPoint, auc, auc_of, compare_auc, delong, roc_curve

__all__ = [
    "UNKNOWN",
    "Accuracy",
    "Estimate",
    "PairedAuc",
    "RocPoint",
    "Stratum",
    "accuracy",
    "auc",
    "auc_of",
    "bootstrap",
    "chi2_quantile",
    "compare_auc",
    "delong",
    "effective_size",
    "kappa",
    "mcnemar",
    "psi",
    "psi_limit",
    "roc_curve",
    "wilson",
]
