"""Setwise: of a few documents the best is asked for, as the comparison of a sorting algorithm.

Setwise prompting (Zhuang et al., 2023, arXiv 2310.09497); Rank-R1 (2025, arXiv 2503.06034) asks
so with 19 children. Only the first ``top_k`` places are sorted, all others keep first-stage order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from rank_rl.records import Candidate, RankingTask
from rank_rl.strategies.base import Plan, above, at_least, best, flag, not_picking, one_of, shown
from rank_rl.strategies.together import Step, together


@dataclass(frozen=True, slots=True, kw_only=True)
class Setwise:
    """Heap sort or bubble sort with comparisons of ``children + 1`` documents.

    With an answerer that makes no mistake the first ``top_k`` places are perfect. A comparison
    that failed counts for the document nearest the first stage's top among those shown. The order
    shown never tells which document is the parent: it is the first stage's, or drawn.

    Args:
        method: ``heap`` sifts through a heap in which every document has up to ``children``
            children; ``bubble`` carries the best to the front, window by window from the back.
        children: documents that one is compared with in a question.
        top_k: places that are sorted; None sorts all.
        shuffle: show documents in an order drawn for each set of them instead.
        seed: run seed of that draw.

    Raises:
        RecipeError: values out of range; or, while running, answers that pick the worst document.
    """

    fixed_cost: ClassVar[bool] = False

    method: Literal["heap", "bubble"] = "heap"
    children: int = 19
    top_k: int | None = 10
    shuffle: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("setwise", ("heap", "bubble"), method=self.method)
        at_least("setwise", 1, children=self.children)
        at_least("setwise", 1, or_null=True, top_k=self.top_k)
        at_least("setwise", 0, seed=self.seed)
        flag("setwise", shuffle=self.shuffle)

    def plan(self, task: RankingTask) -> Plan:
        """Yield comparisons; their number depends on the answers.

        ``heap``: to build it, at least one for each document that has children and at most their
        distance from the deepest place below them; then at most the depth of the heap for each
        place but the first. Documents of one level are sifted in the same rounds while building.

        ``bubble``: the first pass makes ``ceil((n - 1) / children)``, the pass for place ``p`` at
        most ``ceil((n - p) / children)``: a set of documents asked about before is not asked
        about again, which changes nothing while the answer to a prompt is always the same. As
        many rounds as questions.
        """
        if len(task.candidates) < 2:
            yield []
            return above(task, [])
        top_k = min(self.top_k or len(task.candidates), len(task.candidates))
        sort = self._heap if self.method == "heap" else self._bubble
        chosen = yield from sort(task, top_k)
        return above(task, [c.docid for c in chosen])

    def _heap(self, task: RankingTask, top_k: int) -> Step[list[Candidate]]:
        """The best documents by extraction from a heap."""
        heap = list(task.candidates)
        for level in levels(len(heap), self.children):
            yield from together([self._sift(task, heap, parent) for parent in level])
        chosen = []
        for _ in range(top_k - 1):
            chosen.append(heap[0])
            heap[0] = heap[-1]
            heap.pop()
            yield from self._sift(task, heap, 0)
        return [*chosen, heap[0]]

    def _sift(self, task: RankingTask, heap: list[Candidate], parent: int) -> Step[None]:
        """Let a document sink until it is better than its children."""
        while True:
            first = self.children * parent + 1
            below = range(first, min(first + self.children, len(heap)))
            if not below:
                return
            at = [parent, *below]
            chosen = yield from self._best(task, [heap[i] for i in at])
            if at[chosen] == parent:
                return
            heap[parent], heap[at[chosen]] = heap[at[chosen]], heap[parent]
            parent = at[chosen]

    def _bubble(self, task: RankingTask, top_k: int) -> Step[list[Candidate]]:
        """The best documents by passes of windows that share one document with the next."""
        order = list(task.candidates)
        known: dict[frozenset[str], str] = {}
        for place in range(top_k):
            end = len(order)
            while end - place > 1:
                start = max(place, end - self.children - 1)
                window = order[start:end]
                docids = frozenset(c.docid for c in window)
                if docids not in known:
                    chosen = yield from self._best(task, window)
                    known[docids] = window[chosen].docid
                at = next(i for i in range(start, end) if order[i].docid == known[docids])
                order[start], order[at] = order[at], order[start]
                end = start + 1
        return order[:top_k]

    def _best(self, task: RankingTask, candidates: Sequence[Candidate]) -> Step[int]:
        """Ask which of some candidates is the best; its index."""
        view = shown(task.query, candidates, self.seed if self.shuffle else None)
        (outcome,) = yield [view]
        not_picking("setwise", outcome, worst=True)
        docid = best(outcome, view) or view.by_first_stage()[0]
        return next(i for i, c in enumerate(candidates) if c.docid == docid)


def levels(count: int, children: int) -> list[range]:
    """Places of a heap that have children, level by level, the deepest first; 0 is the root."""
    parents = (count - 2) // children + 1
    found, start, width = [], 0, 1
    while start < parents:
        found.append(range(start, min(start + width, parents)))
        start, width = start + width, width * children
    return found[::-1]
