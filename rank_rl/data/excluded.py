"""Documents that must not be ranked for a query, and taking them out.

BRIGHT names, for each problem, the documents that it was made of or that may be relevant without
being judged; in ArguAna a query stands in the corpus itself. They go before the first stage is cut
to its depth: an excluded document takes no place, and is neither relevant nor unjudged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rank_rl.data.files import lines
from rank_rl.errors import DataError

Excluded = Mapping[str, frozenset[str]]
HEADERS = ("query-id", "query_id", "qid")


def read_excluded(path: Path) -> dict[str, frozenset[str]]:
    """Read a query id and a docid from every line, apart by a tab or by spaces; a header may be.

    Raises:
        DataError: a line without two columns.
    """
    found: dict[str, set[str]] = {}
    for number, (where, line) in enumerate(lines(path)):
        cells = line.split("\t") if "\t" in line else line.split()
        cells = [cell.strip() for cell in cells]
        if len(cells) != 2 or not all(cells):
            raise DataError(
                f"{len(cells)} columns", where=where, expected="query-id, corpus-id (tab or space)"
            )
        if number or cells[0].lower() not in HEADERS:
            found.setdefault(cells[0], set()).add(cells[1])
    return {qid: frozenset(docids) for qid, docids in found.items()}


def same_ids(qids: Iterable[str]) -> dict[str, frozenset[str]]:
    """For every query the document that bears its id, should there be one."""
    return {qid: frozenset([qid]) for qid in qids}


def joined(*parts: Excluded) -> dict[str, frozenset[str]]:
    """What any of several tables excludes."""
    found: dict[str, frozenset[str]] = {}
    for part in parts:
        for qid, docids in part.items():
            found[qid] = found.get(qid, frozenset()) | docids
    return found


class Without:
    """Takes excluded documents out of candidates and judgements; ``taken`` counts them."""

    def __init__(self, excluded: Excluded) -> None:
        self._excluded = excluded
        self.taken = 0

    def pools(self, given: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """Candidates without an order."""
        return {q: tuple(d for d in by if self._stays(q, d)) for q, by in given.items()}

    def run(
        self, given: Mapping[str, tuple[tuple[str, float], ...]]
    ) -> dict[str, tuple[tuple[str, float], ...]]:
        """Candidates in first-stage order, with scores."""
        return {q: tuple(p for p in by if self._stays(q, p[0])) for q, by in given.items()}

    def qrels(self, given: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
        """Judgements."""
        return {q: {d: g for d, g in by.items() if self._stays(q, d)} for q, by in given.items()}

    def _stays(self, qid: str, docid: str) -> bool:
        out = docid in self._excluded.get(qid, ())
        self.taken += out
        return not out
