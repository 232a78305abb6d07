"""Reports: terminal table, Markdown, CSV, JSON, pictures, one HTML page."""

from vicinal.reports.report import is_current, write_report
from vicinal.reports.words import answer

__all__ = ["answer", "is_current", "write_report"]
