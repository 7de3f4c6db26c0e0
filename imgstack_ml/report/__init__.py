"""One HTML page about a fitted estimator and its images."""

from .evidence import Alert
from .report import Report, generate_report

__all__ = ["Alert", "Report", "generate_report"]
