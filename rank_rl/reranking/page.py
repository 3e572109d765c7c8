"""One HTML page of rankings: what was asked, the new order beside the old one, and why.

Contract: everything in one file that loads nothing; whatever a document or a model says is text
(escaping, styles and content security policy are ``rank_rl.report``'s); at most
``report.page.BYTES`` bytes: texts are cut, then queries left out, by the first rule of
``report.page.CUTS`` that fits, and the page says which.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

import rank_rl
from rank_rl.bench.answered import Answered
from rank_rl.bench.diagnosis import describe
from rank_rl.data.files import write_lines
from rank_rl.records import Candidate, RankingTask
from rank_rl.report import answered as report_answers
from rank_rl.report import page as report
from rank_rl.report.answered import Answered as Said
from rank_rl.report.explorer import Cut
from rank_rl.report.safe import shortened

# Markup of a document and of a query beside their texts, about; and characters take bytes.
_DOCUMENT, _QUERY = 700, 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A query, and how to get what was answered: most of a large file is never on the page."""

    task: RankingTask
    answer: Callable[[], Answered]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document at its new place; ``moved`` counts places up."""

    docid: str
    rank: int
    before: int
    moved: int
    score: str
    first_score: str
    title: str
    heading: str
    text: str
    note: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A query as the template shows it.

    ``odd``: an answer was not as it should be; ``failed``: how many could not be read, in words;
    ``moved``: another document is first.
    """

    qid: str
    text: str
    instruction: str
    said: str
    failed: str
    odd: bool
    moved: bool
    issues: list[str]
    reasoning: list[str]
    texts: list[str]
    documents: list[Document]


def write_page(
    path: Path,
    entries: Sequence[Entry],
    *,
    title: str,
    facts: Sequence[tuple[str, str]] = (),
    top_k: int | None = None,
) -> None:
    """Write the page.

    Args:
        path: where to.
        entries: the queries, in order.
        title: what the page is about.
        facts: names and values that stand on top.
        top_k: documents of each query; None is all.

    Raises:
        StorageError: it cannot be written.
    """
    write_lines(path, [page(entries, title=title, facts=facts, top_k=top_k)])


def page(
    entries: Sequence[Entry],
    *,
    title: str,
    facts: Sequence[tuple[str, str]] = (),
    top_k: int | None = None,
) -> str:
    """The page as HTML; see ``write_page``."""
    made = ""
    for cut in report.CUTS:
        if _least([e.task for e in entries[: cut.queries]], cut, top_k) > report.BYTES:
            continue
        shown = [_shown(entry, cut, top_k) for entry in entries[: cut.queries]]
        made = _render(shown, cut, title=title, facts=facts, of=len(entries))
        if len(made.encode("utf-8", "replace")) <= report.BYTES:
            break
    return made


def _least(tasks: Sequence[RankingTask], cut: Cut, top_k: int | None) -> int:
    """Bytes that the page takes at least, without making it."""
    most = cut.characters

    def size(text: str) -> int:
        return len(text) if most is None else min(len(text), most)

    return sum(
        _QUERY + sum(_DOCUMENT + size(c.text) for c in task.candidates[:top_k]) for task in tasks
    )


def _render(shown: list[Shown], cut: Cut, **words: Any) -> str:
    script, early = _asset("rankings.js"), report.asset("theme.js")
    return report.environment().from_string(_asset("rankings.html.j2")).render(
        entries=shown,
        cut=cut,
        style=Markup(report.asset("report.css") + _asset("rankings.css")),
        script=Markup(script),
        early=Markup(early),
        hashes=[report.digest(script), report.digest(early)],
        version=rank_rl.__version__,
        **words,
    )  # fmt: skip


def _shown(entry: Entry, cut: Cut, top_k: int | None) -> Shown:
    task, answer = entry.task, entry.answer()
    said = _gathered(answer.traces)
    issues = {**answer.issues}
    counts = answer.statuses
    failed, repaired = counts.get("failed", 0), counts.get("repaired", 0)
    asked = sum(counts.values())
    return Shown(
        qid=shortened(task.query.qid, 200),
        text=shortened(task.query.text, _at_least(cut, 200)) or task.query.qid,
        instruction=shortened(task.query.instruction or "", cut.characters),
        said=_summary(answer),
        failed=f"{failed} of {asked} answers could not be read" if failed else "",
        odd=bool(failed or repaired or issues),
        moved=answer.docids[:1] != task.docids[:1],
        issues=[_times(shortened(describe(i), 300), n) for i, n in issues.items()],
        reasoning=[shortened(text, cut.characters) for text in said.reasoning],
        texts=[shortened(text, cut.characters) for text in said.texts],
        documents=_documents(task, answer, said, cut)[:top_k],
    )


def _documents(task: RankingTask, answer: Answered, said: Said, cut: Cut) -> list[Document]:
    places = {c.docid: (i, c) for i, c in enumerate(task.candidates, 1)}
    scores = answer.scores or answer.ranking.run_scores()
    found = []
    for rank, (docid, score) in enumerate(zip(answer.docids, scores, strict=True), 1):
        before, candidate = places[docid]
        found.append(
            Document(
                docid=shortened(docid, 200),
                rank=rank,
                before=before,
                moved=before - rank,
                score=f"{score:.4g}",
                first_score="" if candidate.score is None else f"{candidate.score:.4g}",
                title=_title(candidate),
                heading=shortened(candidate.title, _at_least(cut, 120)),
                text=shortened(candidate.text, cut.characters),
                note=shortened(said.notes.get(docid, ""), cut.characters),
                why=shortened(said.comparisons.get(docid, ""), cut.characters),
            )
        )
    return found


def _title(candidate: Candidate) -> str:
    text = candidate.title or candidate.text or candidate.docid
    return shortened(" ".join(text.split()), 160)


def _summary(answer: Answered) -> str:
    cost = {name: int(value) for name, value in answer.cost.items() if name != "seconds"}
    calls = "1 question" if cost["calls"] == 1 else f"{cost['calls']:,} questions"
    return (
        f"{len(answer.docids)} documents, {calls}, {cost['prompt_tokens']:,} tokens read, "
        f"{cost['completion_tokens']:,} written"
    )


def _times(text: str, count: int) -> str:
    return text if count == 1 else f"{text} ({count} times)"


def _gathered(traces: Iterable[str]) -> Said:
    """What was said about a query, put together as the report does it."""
    found = Said()
    for line in traces:
        record: Mapping[str, Any] = json.loads(line)
        report_answers.add_cost(found, record["completion"])
        if "explains" in record:
            report_answers.add_explanation(found, record)
        else:
            report_answers.add_exchange(found, record)
    return found


def _at_least(cut: Cut, least: int) -> int | None:
    return None if cut.characters is None else max(cut.characters, least)


def _asset(name: str) -> str:
    folder = resources.files("rank_rl.reranking").joinpath("assets")
    return folder.joinpath(name).read_text(encoding="utf-8")
