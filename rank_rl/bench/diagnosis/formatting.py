"""How sensitive a system is to the way in which documents are written.

Contract: every variant keeps the words and the order of its sentences (one leaves the title out),
so that a ranker of contents would not notice. Each is compared with the documents as they are,
paired by query. What a prompt does to texts anyway is no variant: rank_rl's own prompts put each
document on one line, so that spaces and line breaks cannot change their answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from rank_rl.bench import stats
from rank_rl.bench.diagnosis.again import Rank, rankings, rewritten, values
from rank_rl.metrics import kendall
from rank_rl.records import Candidate, Ranking, RankingTask

Write: TypeAlias = Callable[[Candidate], Candidate]

# Marks within a word stay: 3.5, don't and well-known are words of their own.
_MARKS = re.compile(r"(?<!\w)[^\w\s]+|[^\w\s]+(?!\w)")
_AFTER_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def both(change: Callable[[str], str]) -> Write:
    """A variant that changes title and text alike."""
    return lambda c: replace(c, title=change(c.title), text=change(c.text))


def no_punctuation(text: str) -> str:
    """The text without punctuation around words, on one line; a text of marks alone is kept."""
    return " ".join(_MARKS.sub(" ", text).split()) or text


def spaces(text: str) -> str:
    """The text with three spaces for one."""
    return "   ".join(text.split())


def line_breaks(text: str) -> str:
    """The text with every sentence on a line of its own."""
    return _AFTER_SENTENCE.sub("\n", text)


def no_title(candidate: Candidate) -> Candidate:
    """The text alone."""
    return replace(candidate, title="")


def title_behind(candidate: Candidate) -> Candidate:
    """The title as a last sentence of the text."""
    if not candidate.title:
        return candidate
    return replace(candidate, title="", text=f"{candidate.text} {candidate.title}.")


def markdown(candidate: Candidate) -> Candidate:
    """Title and text as Markdown: a heading and a quotation."""
    title = f"## {candidate.title}" if candidate.title else ""
    return replace(candidate, title=title, text=f"> {candidate.text}")


def html(candidate: Candidate) -> Candidate:
    """Title and text in HTML tags."""
    title = f"<h2>{candidate.title}</h2>" if candidate.title else ""
    return replace(candidate, title=title, text=f"<p>{candidate.text}</p>")


VARIANTS: dict[str, Write] = {
    "lower_case": both(str.lower),
    "upper_case": both(str.upper),
    "no_punctuation": both(no_punctuation),
    "spaces": both(spaces),
    "line_breaks": both(line_breaks),
    "no_title": no_title,
    "title_behind": title_behind,
    "markdown": markdown,
    "html": html,
}


def formatting(
    rank: Rank,
    tasks: Sequence[RankingTask],
    *,
    metric: str,
    seed: int,
    given: Mapping[str, Ranking] | None = None,
    variants: Mapping[str, Write] = VARIANTS,
) -> dict[str, Any]:
    """Rank tasks whose documents are written in other ways, and compare with the usual one.

    Args:
        rank: what ranks; it is called once a variant.
        tasks: which queries; the metric counts those with anything relevant.
        metric: a name of ``bench.metrics``.
        seed: of the intervals.
        given: rankings of the tasks as they are, by query id, where they are known already.
        variants: name → how a document is written; one that changes no document is left out.

    Returns:
        ``queries``, ``metric``, and ``variants``: for each its ``name``, the ``difference`` of the
        metric (variant less original) with ``low`` and ``high`` of its interval (None where
        nothing is relevant), and ``tau``, the mean Kendall tau with the original ranking. Nothing
        without tasks.
    """
    if not tasks:
        return {}
    usual = rankings(rank, tasks, given)
    before = values(usual, tasks, metric)
    rows: list[dict[str, Any]] = []
    for name, write in variants.items():
        changed = [rewritten(task, write) for task in tasks]
        if changed == list(tasks):
            continue
        found = rankings(rank, changed)
        after = values(found, tasks, metric)
        pairs = zip(usual, found, strict=True)
        tau = sum(kendall(a.docids, b.docids) for a, b in pairs) / len(tasks)
        rows.append({"name": name, **_difference(before, after, seed), "tau": tau})
    return {"queries": len(tasks), "metric": metric, "variants": rows}


def _difference(
    before: Mapping[str, float], after: Mapping[str, float], seed: int
) -> dict[str, float | None]:
    if not before:
        return {"difference": None, "low": None, "high": None}
    found = stats.difference(list(before.values()), [after[q] for q in before], seed=seed)
    return {"difference": found.mean, "low": found.low, "high": found.high}
