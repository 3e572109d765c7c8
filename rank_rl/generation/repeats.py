"""Views that were answered before are not asked again.

Contract: only askers whose answers depend on nothing but what is shown (``deterministic``) are
spared anything; a repeated answer costs no tokens and no seconds, bears the docids of its own view,
and is an object of its own. What counts as the same view is everything that a prompt could show.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rank_rl.generation.asking import Asked, Asker
from rank_rl.records import Answer, Order, Outcome, Pick, Scores, View

MOST = 1024  # answers remembered
CHARACTERS = 1 << 24  # of what they show, in all


class Repeats:
    """Asks each view once.

    Args:
        asker: what answers.
        most: so many answers are remembered, the latest used; 0 asks every view.

    ``repeated`` counts the views that were spared.
    """

    def __init__(self, asker: Asker, *, most: int = MOST) -> None:
        self.asker, self.most = asker, most
        self.repeated = 0
        self._known: OrderedDict[Hashable, Asked] = OrderedDict()
        self._held = 0

    def ask(self, views: Sequence[View]) -> list[Asked]:
        """One answer a view, in order."""
        if not self.most or not getattr(self.asker, "deterministic", False):
            return self.asker.ask(views)
        keys = [shown(view) for view in views]
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        new = sorted(i for key, i in first.items() if key not in self._known)
        answers = dict(
            zip(new, self.asker.ask([views[i] for i in new]) if new else [], strict=True)
        )
        found: dict[Hashable, Asked] = {keys[i]: asked for i, asked in answers.items()}
        for key in first.keys() - found.keys():
            found[key] = self._known[key]
            self._known.move_to_end(key)
        self.repeated += len(views) - len(new)
        result = [
            answers[i] if i in answers else again(found[key], views[i])
            for i, key in enumerate(keys)
        ]
        for i in answers:
            self._known[keys[i]] = answers[i]
            self._held += _size(answers[i].exchange.view)
        while len(self._known) > self.most or (self._held > CHARACTERS and self._known):
            _, oldest = self._known.popitem(last=False)
            self._held -= _size(oldest.exchange.view)
        return result


def _size(view: View) -> int:
    """Characters shown, about."""
    return sum(len(c.text) for c in view.candidates)


def shown(view: View) -> Hashable:
    """Everything of a view that a prompt could show; docids and the query's id are not."""
    query = view.query
    documents = tuple((c.title, c.text, c.rank, c.score) for c in view.candidates)
    asked = (query.text, query.instruction, repr(query.metadata) if query.metadata else "")
    return asked, documents, view.labels


def again(asked: Asked, view: View) -> Asked:
    """A known answer as the answer of a view that shows the same."""
    exchange = asked.exchange
    docids = dict(zip(exchange.view.docids, view.docids, strict=True))
    fitted = [
        replace(candidate, docid=docids[candidate.docid]) for candidate in exchange.view.candidates
    ]
    mine = replace(exchange.view, query=replace(exchange.view.query, qid=view.query.qid))
    free = replace(exchange.completion, prompt_tokens=0, completion_tokens=0, seconds=0.0)
    return replace(
        asked,
        exchange=replace(
            exchange,
            qid=view.query.qid,
            view=replace(mine, candidates=tuple(fitted)),
            completion=free,
            outcome=renamed(exchange.outcome, docids),
        ),
    )


def renamed(outcome: Outcome, docids: Mapping[str, str]) -> Outcome:
    """The outcome about other docids; names that are in no view stay as they are."""

    def named(values: Mapping[str, Any]) -> dict[str, Any]:
        return {docids.get(docid, docid): value for docid, value in values.items()}

    answer: Answer | None = outcome.answer
    if isinstance(answer, Order):
        answer = Order(docids=tuple(docids.get(d, d) for d in answer.docids))
    elif isinstance(answer, Pick):
        answer = replace(answer, docid=docids.get(answer.docid, answer.docid))
    elif isinstance(answer, Scores):
        unread = tuple(docids.get(d, d) for d in answer.unread)
        answer = Scores(values=named(answer.values), unread=unread)
    return replace(
        outcome,
        answer=answer,
        notes=named(outcome.notes),
        comparisons=named(outcome.comparisons),
    )
