"""What was found, as files: everything in JSON, the table and the single cases as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import rank_rl
from rank_rl.data.files import write_lines

PACKAGES = ("torch", "transformers", "tokenizers")


def versions() -> dict[str, str]:
    """Versions of what ranks."""
    found = {"rank_rl": rank_rl.__version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def write(
    output: Path,
    facts: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    cases: Sequence[Mapping[str, Any]],
) -> list[Path]:
    """Write ``NAME.json`` with everything, ``NAME.csv`` with the rows, ``NAME.cases.csv``.

    Args:
        output: the JSON file; the others lie beside it.
        facts: model, settings, seeds, versions.
        rows: of the table.
        cases: single findings.

    Raises:
        StorageError: a file cannot be written.
    """
    whole = {**facts, "rows": list(rows), "cases": list(cases)}
    write_lines(output, [json.dumps(whole, indent=2, ensure_ascii=False)])
    paths = [output]
    for suffix, records in ((".csv", rows), (".cases.csv", cases)):
        paths.append(output.with_name(output.stem + suffix))
        write_lines(paths[-1], _csv(records))
    return paths


def _csv(records: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(key for record in records for key in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().splitlines()
