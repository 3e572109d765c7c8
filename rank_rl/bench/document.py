"""The result document: what one system did on one collection with one seed, as one JSON file.

Contract: a document says everything that its numbers depend on (revisions, contract, first-stage
run, depth, fusion rule), so that ``merge`` can refuse those that do not belong together. Values are
per query; means, intervals and tests are made by ``merge``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import rank_rl
from rank_rl.bench.measures import PerQuery
from rank_rl.bench.setting import digest
from rank_rl.data.files import write_lines
from rank_rl.errors import DataError
from rank_rl.records import RankingTask

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionFacts:
    """Which queries were ranked: two documents that differ here cannot be compared.

    Attributes:
        name: of the collection.
        queries: test queries that count.
        without_relevant: test queries that do not, having nothing relevant.
        judgements: hash of the grades of all test queries.
        candidates: hash of queries and candidates in first-stage order.
        first_stage: where that order comes from.
        depth: most candidates of a query.
        left_out: queries that the leak check took out of the means.
    """

    name: str
    queries: int
    without_relevant: int
    judgements: str
    candidates: str
    first_stage: str
    depth: int
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        tasks: Sequence[RankingTask],
        *,
        first_stage: str,
        queries: int,
        left_out: Sequence[str] = (),
    ) -> CollectionFacts:
        """The facts of a test split of which ``queries`` count."""
        shown = [[t.query.qid, t.query.text, list(t.docids)] for t in tasks]
        return cls(
            name=name,
            queries=queries,
            without_relevant=len(tasks) - queries - len(left_out),
            judgements=digest({t.query.qid: dict(t.grades or {}) for t in tasks}),
            candidates=digest(shown),
            first_stage=first_stage,
            depth=max(len(t.candidates) for t in tasks),
            left_out=tuple(left_out),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One system, one collection, one seed.

    Attributes:
        key: hash of all that the rankings depend on (``setting.key``).
        system, kind: the row's name, and what it is.
        seed: what it was measured with.
        drawn: whether another seed would give other numbers.
        collection: which queries.
        model: name, revision and contract hash, or nothing.
        setting: format version, mode, strategy, readout and reasoning, or nothing.
        fusion: how the first stage was joined in, or None.
        per_query: metric → query id → value.
        missing_queries: queries that its run leaves out; they count as zero.
        judged: depth → share of the first documents that anybody has judged.
        costs: query id → calls, depth, tokens, seconds.
        statuses, issues, explanations, cuts: counts over all answers.
        energy: kWh of all queries, or None.
        probes: latency, and diagnoses that asked again.
        diagnosis: what was found in the answers (calibration, failures).
        run, exchanges: their files, relative to the bench's folder.
        rank_rl: the version that asked.
    """

    key: str
    system: str
    kind: str
    seed: int
    drawn: bool = False
    collection: CollectionFacts
    model: Mapping[str, str] = field(default_factory=dict)
    setting: Mapping[str, str] = field(default_factory=dict)
    fusion: Mapping[str, Any] | None = None
    per_query: PerQuery
    missing_queries: int = 0
    judged: Mapping[str, float | None] = field(default_factory=dict)
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    statuses: Mapping[str, int] = field(default_factory=dict)
    issues: Mapping[str, int] = field(default_factory=dict)
    explanations: Mapping[str, int] = field(default_factory=dict)
    cuts: Mapping[str, int] = field(default_factory=dict)
    energy: float | None = None
    probes: Mapping[str, Any] = field(default_factory=dict)
    diagnosis: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""
    exchanges: str | None = None
    rank_rl: str = rank_rl.__version__

    def write(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            StorageError: it cannot be written.
        """
        content = {"schema": SCHEMA, **asdict(self)}
        write_lines(path, [json.dumps(content, indent=1, ensure_ascii=False)])

    @classmethod
    def read(cls, path: Path) -> Document:
        """Read a document.

        Raises:
            DataError: it is missing, of another schema, or no document.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["schema"] != SCHEMA:
                raise DataError(
                    f"schema {content['schema']}", where=str(path), expected=f"schema {SCHEMA}"
                )
            known = {f.name: content[f.name] for f in fields(cls)}
            facts = known["collection"]
            facts["left_out"] = tuple(facts["left_out"])
            known["collection"] = CollectionFacts(**facts)
            return cls(**known)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError("not a result document", where=str(path)) from error
