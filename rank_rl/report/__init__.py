"""Reports of benchmarks: one HTML page of results, tables for papers, figures, comparisons.

Contract: reads result files and what lies beside them, new or old; measures nothing but the paired
differences that a comparison asks for. ``write`` is what the benchmark calls at its end.
"""

from __future__ import annotations

from rank_rl.report.writing import Report, write

__all__ = ["Report", "write"]
