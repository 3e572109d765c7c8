"""Queries for an unlabelled corpus: what to ask a teacher, how to read it, what is kept.

A teacher sees one passage and writes one query of a kind between answer tags. Queries that repeat
another, or one that must not be trained on, are removed; the rest become tasks with BM25
candidates and without grades: nobody has judged them. Asking is left to the caller.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rank_rl import seeds
from rank_rl.data.first_stage import BM25, Scored
from rank_rl.data.words import shorten
from rank_rl.errors import DataError, RecipeError
from rank_rl.formats import tags, wording
from rank_rl.formats.labels import neutralise
from rank_rl.formats.wording import Wording
from rank_rl.records import Candidate, Prompt, Query, RankingTask
from rank_rl.specs.teach import SynthesisSpec
from rank_rl.teachers.overlap import Near, read_queries

KINDS = ("question", "keywords", "claim", "multi_hop", "how_to")
SAME_LANGUAGE = "the language of the passage"
# Passages of fewer words say too little to ask about; of longer ones so many words are shown.
LEAST_WORDS = 8
MOST_WORDS = 400
LENGTHS = (3, 300)
SHOWN = 3

_FILE = Path(__file__).with_name("wording") / "synthesis.yaml"
_QUOTES = "\"'`*“”„«»‘’ \t"
_LABEL = re.compile(r"(?:search )?(?:query|question|claim|keywords)\s*:\s*(?=\S)", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A query that a teacher wrote for the passage ``docid``."""

    qid: str
    text: str
    docid: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How many queries were written and kept, and why the others were removed.

    ``removed`` counts by cause: ``duplicate`` and ``near_duplicate`` of a query kept before,
    ``near_excluded`` of one to keep away from, ``not_found`` by BM25,
    ``too_few_candidates``. ``examples`` holds a few texts for each cause.
    """

    written: int
    kept: int
    removed: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "written": self.written,
            "kept": self.kept,
            "removed": dict(self.removed),
            "examples": {cause: list(texts) for cause, texts in self.examples.items()},
        }


def load_words(spec: SynthesisSpec) -> Wording:
    """Load the wording and check that it has every kind the recipe asks for.

    A wording of one's own (``path.yaml:name``) may describe kinds of its own beside the built-in
    ones.

    Raises:
        RecipeError: no such file or wording, or a kind that it does not describe.
    """
    own = ".yaml" in spec.wording or ".yml" in spec.wording
    if not own:
        for kind in spec.kinds:
            _check_kind(kind, KINDS)
    rules = {"system": ("", ""), "user": ("passage kind", "language")}
    rules |= dict.fromkeys((*KINDS, *spec.kinds), ("", ""))
    try:
        return wording.load("synthesis", spec.wording if own else f"{_FILE}:{spec.wording}", rules)
    except RecipeError as error:
        if error.where != "format.wording":
            raise
        raise RecipeError(
            error.what,
            where="teach.synthesis.wording",
            expected=error.expected,
            remedy=error.remedy,
        ) from error


def draw(documents: Mapping[str, Candidate], count: int, seed: int) -> list[Candidate]:
    """At most ``count`` passages of 8 words or more, chosen by a hash of seed and docid.

    Raises:
        DataError: no passage is long enough.
    """
    found = [c for c in documents.values() if len(c.content.split()) >= LEAST_WORDS]
    if not found:
        raise DataError(
            "no passage to write a query for",
            where="teach.synthesis.corpus",
            expected=f"passages of {LEAST_WORDS} words or more",
        )
    found.sort(key=lambda c: (seeds.derive(seed, "passage", c.docid), c.docid))
    return found[:count]


def prompt(
    candidate: Candidate, kind: str, words: Wording, language: str = SAME_LANGUAGE
) -> Prompt:
    """The prompt that asks for one query of a kind; the passage cannot imitate its tags.

    Raises:
        RecipeError: a kind that the wording does not describe.
    """
    _check_kind(kind, [key for key in words.texts if key not in ("system", "user")])
    user = words.fill(
        "user",
        passage=shorten(neutralise(candidate.content), MOST_WORDS),
        kind=words.texts[kind],
        language=language,
    )
    messages = (
        {"role": "system", "content": words.texts["system"]},
        {"role": "user", "content": user},
    )
    return Prompt(messages=messages if words.texts["system"] else messages[1:])


def read_query(text: str) -> str | None:
    """The query in a completion, or None when there is none; see ``parse_query``."""
    return parse_query(text)[0]


def parse_query(text: str) -> tuple[str | None, tuple[str, ...]]:
    """The query in a completion, and what was wrong with the completion.

    Strictly, one line between answer tags. Leniently, the first line of an answer block or, where
    there is none, of the text after the reasoning, without quotation marks, a label (``Query:``)
    and an introduction that ends with a colon.

    Returns:
        query: 3 to 300 characters on one line, or None.
        issues: ``no_answer_tag``, ``text_around``, ``several_lines``, ``quoted``, ``truncated``;
            where there is no query, ``empty``, ``too_short``, ``too_long`` or ``no_words`` last.
    """
    parts = tags.split(text)
    issues: list[str] = [i for i in ("no_answer_tag", "truncated") if i in parts.issues]
    if set(parts.issues) & {"leading_text", "text_between", "trailing_text", "second_answer"}:
        issues.append("text_around")
    rows = [row for row in (" ".join(r.split()) for r in parts.answer.splitlines()) if row]
    if not rows:
        return None, (*issues, "empty")
    if len(rows) > 1:
        issues.append("several_lines")
        rows = rows[1:] if rows[0].endswith(":") else rows
    query = _LABEL.sub("", rows[0].lstrip(_QUOTES), count=1).strip(_QUOTES)
    if query != rows[0]:
        issues.append("quoted")
    wrong = _wrong(query)
    return (None, (*issues, wrong)) if wrong else (query, tuple(issues))


def build_tasks(
    queries: Sequence[Written],
    documents: Mapping[str, Candidate],
    spec: SynthesisSpec,
    *,
    held_out: Sequence[Query] = (),
) -> tuple[tuple[RankingTask, ...], Report]:
    """Remove repeated queries and those that BM25 does not lead to their passage; mine candidates.

    Args:
        queries: in the order in which they are preferred.
        documents: the corpus, by docid.
        spec: threshold, depth, files of queries to keep away from, and whether to round-trip.
        held_out: further queries to keep away from, such as a collection's own test queries.

    Returns:
        tasks: without grades, split ``train``; ``query.metadata`` names passage and kind.
        report: what was removed.

    Raises:
        DataError: a query id that repeats, a passage that is not in the corpus, or a file of
            ``exclude`` that cannot be read.
    """
    if not queries:
        return (), Report(written=0, kept=0)
    _check(queries, documents)
    removed: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    tasks: list[RankingTask] = []
    sieve = _Sieve(spec, held_out)
    bm25 = BM25(documents)
    for query in queries:
        cause, example = sieve.cause(query)
        found = bm25.retrieve(query.text, spec.depth) if not cause else ()
        cause = cause or _unfit(query, found, spec)
        if cause:
            removed[cause] += 1
            examples.setdefault(cause, []).append(example or query.text)
        else:
            sieve.keep(query)
            tasks.append(_task(query, documents, found, spec))
    report = Report(
        written=len(queries),
        kept=len(tasks),
        removed=dict(removed),
        examples={cause: tuple(texts[:SHOWN]) for cause, texts in examples.items()},
    )
    return tuple(tasks), report


class _Sieve:
    """Knows the queries kept and those of the excluded files."""

    def __init__(self, spec: SynthesisSpec, held_out: Sequence[Query]) -> None:
        self._threshold = spec.near
        self._kept, self._excluded = Near(), Near()
        self._texts: dict[str, str] = {}
        for file in spec.exclude:
            path = Path(file).expanduser()
            for qid, text in read_queries(path):
                self._exclude(f"{path.name}: {qid}", text)
        for query in held_out:
            self._exclude(f"held out: {query.qid}", query.text)

    def cause(self, query: Written) -> tuple[str, str]:
        """Why a query is removed and an example that says so; "" when it is not."""
        for near, cause in ((self._excluded, "near_excluded"), (self._kept, "near_duplicate")):
            other, similarity = near.nearest(query.text)
            if similarity >= self._threshold:
                equal = near is self._kept and similarity == 1
                example = f"{query.text} ~ {self._texts[other]} ({other}, {similarity:.2f})"
                return "duplicate" if equal else cause, example
        return "", ""

    def keep(self, query: Written) -> None:
        """Remove what repeats this query from now on."""
        self._kept.add(query.qid, query.text)
        self._texts[query.qid] = query.text

    def _exclude(self, name: str, text: str) -> None:
        self._excluded.add(name, text)
        self._texts[name] = text


def _check_kind(kind: str, known: Sequence[str]) -> None:
    if kind not in known:
        raise RecipeError(
            f"unknown kind {kind!r}",
            where="teach.synthesis.kinds",
            expected=f"one of {', '.join(known)}",
        )


def _wrong(query: str) -> str:
    least, most = LENGTHS
    if not any(c.isalnum() for c in query):
        return "no_words"
    if len(query) < least:
        return "too_short"
    return "too_long" if len(query) > most else ""


def _check(queries: Sequence[Written], documents: Mapping[str, Candidate]) -> None:
    seen: set[str] = set()
    for query in queries:
        where = f"query {query.qid!r}"
        if query.docid not in documents:
            raise DataError(f"its passage {query.docid!r} is not in the corpus", where=where)
        if query.qid in seen:
            raise DataError("appears twice", where=where, expected="one id for each query")
        seen.add(query.qid)


def _unfit(query: Written, found: Scored, spec: SynthesisSpec) -> str:
    """Why the candidates do not serve. What shares no word with the query was not found by it."""
    if spec.round_trip and not any(d == query.docid and score > 0 for d, score in found):
        return "not_found"
    return "too_few_candidates" if len(found) < 2 else ""


def _task(
    query: Written, documents: Mapping[str, Candidate], found: Scored, spec: SynthesisSpec
) -> RankingTask:
    return RankingTask(
        query=Query(
            qid=query.qid, text=query.text, metadata={"passage": query.docid, "kind": query.kind}
        ),
        candidates=tuple(
            Candidate(
                docid=docid,
                text=documents[docid].text,
                title=documents[docid].title,
                rank=rank,
                score=score,
            )
            for rank, (docid, score) in enumerate(found, 1)
        ),
        source=Path(spec.corpus).stem,
        split="train",
    )
