"""Jobs: work over many objects, while users read and write."""

from ._rebalance import rebalance
from ._report import Finding, JobProgress, ProgressCallback, Report

__all__ = ["Finding", "JobProgress", "ProgressCallback", "Report", "rebalance"]
