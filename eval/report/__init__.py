"""The report: one self-contained HTML file."""

from lengthpred.eval.report.page import write_report

__all__ = ["write_report"]
