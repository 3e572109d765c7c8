"""What the files of a benchmark are called; everything that writes or reads them asks here."""

from __future__ import annotations

import re

RESULT = "result.json"
RESULTS = "results.json"  # of several collections: where each one's result is, and the averages
TASKS = "tasks.jsonl"
REPORT = "report.html"
DOCUMENTS = "documents"


def file_name(name: str, other: str) -> str:
    """A name as part of a path; ``other`` where nothing of it is left."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip("._") or other
