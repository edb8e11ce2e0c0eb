"""The report on a comparison: HTML, Markdown, figures, JSON and lines for the terminal."""

from moe_jax.compare.report.console import summary_lines
from moe_jax.compare.report.summary import json_summary
from moe_jax.compare.report.write import ReportFiles, write_report

__all__ = ["ReportFiles", "json_summary", "summary_lines", "write_report"]
