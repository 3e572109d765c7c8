"""Parts of a page that a benchmark writes: what stands between two marks."""

from __future__ import annotations

from pathlib import Path


def put(path: Path, marks: tuple[str, str], text: str) -> None:
    """Replace what stands between the marks of a page; the marks stay."""
    begin, end = marks
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
