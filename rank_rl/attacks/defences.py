"""What is tried against attacks: texts that are changed before they are shown, other settings.

``none`` is what every format does anyway and cannot be switched off: ``formats.labels.neutralise``
makes labels, tags and control tokens ineffective, and documents are cut to their budget. All others
come on top of it. None of them is a proof against persuasion in plain words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rank_rl.errors import RecipeError
from rank_rl.records import Candidate, RankingTask
from rank_rl.registry import nearest
from rank_rl.specs import StrategySpec

Change = Callable[[RankingTask], RankingTask]
_RUN = 3  # how often a sentence may be said
_SENTENCE = re.compile(r"[^.!?]+[.!?]*\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Defence:
    """A change of texts, or settings of the ranker.

    Attributes:
        name: how it is called.
        about: what it does.
        change: what becomes of a task before it is ranked.
        settings: what ``Reranker.from_pretrained`` is told; empty for changes of texts.
    """

    name: str
    about: str
    change: Change | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, task: RankingTask) -> RankingTask:
        """The task as it is shown."""
        return task if self.change is None else self.change(task)


def cleaned(text: str) -> str:
    """A text without what no screen shows, look-alike letters as Latin ones, repetitions cut.

    Removed: control, format and tag characters, private ones and halves of surrogate pairs, and so
    joiners that some scripts and emojis need. A sentence is kept three times at most.
    """
    folded = unicodedata.normalize("NFKC", text)
    seen = (c for c in folded if c.isspace() or unicodedata.category(c)[0] != "C")
    latin = " ".join(map(_latin, "".join(seen).split()))
    return _without_floods(latin)


def _latin(word: str) -> str:
    """A word that mixes Latin letters with look-alikes, in Latin letters."""
    changed = word.translate(_LOOK_ALIKES)
    return changed if changed.isascii() and changed != word else word


def _without_floods(text: str) -> str:
    said: dict[str, int] = {}
    kept = []
    for sentence in _SENTENCE.findall(text):
        key = sentence.strip().casefold()
        said[key] = said.get(key, 0) + 1
        if said[key] <= _RUN:
            kept.append(sentence)
    return "".join(kept).strip()


def _each(change: Callable[[str], str]) -> Change:
    """A change of every text of a task."""

    def changed(task: RankingTask) -> RankingTask:
        documents = tuple(
            replace(c, text=change(c.text), title=change(c.title)) for c in task.candidates
        )
        query = replace(task.query, text=change(task.query.text))
        return replace(task, query=query, candidates=documents)

    return changed


def _documents(change: Callable[[Candidate, str], str]) -> Change:
    """A change of documents, which is told the query."""

    def changed(task: RankingTask) -> RankingTask:
        documents = (replace(c, text=change(c, task.query.text)) for c in task.candidates)
        return replace(task, candidates=tuple(documents))

    return changed


def _quoted(document: Candidate, query: str) -> str:
    inner = document.text.replace("“", "'").replace("”", "'")
    return f"A web page says: “{inner}”"


def _sandwiched(document: Candidate, query: str) -> str:
    return f"{document.text} (End of the quoted text. The question was: {query})"


_LOOK_ALIKES = str.maketrans("асеіорѕхуАВЕНІКМОРТХ", "aceiopsxyABEHIKMOPTX")
_NAMES = ("none", "clean", "quote", "sandwich", "two_orders", "constrained", "labels")


def make(name: str, strategy: StrategySpec) -> Defence:
    """A defence by name.

    Args:
        name: one of ``names()``.
        strategy: how the model ranks without it.

    Raises:
        RecipeError: no such defence.
    """
    twice = {"strategy": strategy.model_dump(), "times": 2}
    known = (
        Defence(name="none", about="what formats do anyway: neutralised texts, cut to budget"),
        Defence(
            name="clean",
            about="invisible characters, look-alike letters and repetitions taken out",
            change=_each(cleaned),
        ),
        Defence(name="quote", about="documents in quotation marks", change=_documents(_quoted)),
        Defence(
            name="sandwich",
            about="the query again behind each document, where the budget leaves room",
            change=_documents(_sandwiched),
        ),
        Defence(
            name="two_orders",
            about="mean place over two orders of the documents",
            settings={"strategy": StrategySpec(name="repeated", params=twice)},
        ),
        Defence(
            name="constrained",
            about="answers decoded under the format's grammar",
            settings={"constrained": True},
        ),
        Defence(
            name="labels",
            about="label probabilities read instead of answers written",
            settings={"readout": "score"},
        ),
    )
    found = {defence.name: defence for defence in known}
    if name not in found:
        raise RecipeError(
            f"unknown defence {name!r}",
            where="--defences",
            expected=f"one of {', '.join(found)}",
            remedy=nearest(name, found),
        )
    return found[name]


def names() -> Sequence[str]:
    """Names of all defences, ``none`` first."""
    return _NAMES
