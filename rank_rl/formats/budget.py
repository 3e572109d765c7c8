"""Fit a view into its token budget before anything is trained or asked; every cut is counted.

Each document is cut to ``doc_tokens``; if a prompt is still longer than ``prompt_tokens``, all
documents are cut further, evenly, to the largest size that fits. Neither TRL nor a generator cuts
prompts sensibly, so no prompt may leave here too long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from rank_rl.errors import DataError
from rank_rl.formats.base import Format, joined
from rank_rl.formats.labels import neutralise
from rank_rl.formats.snippet import query_first
from rank_rl.records import Candidate, Prompt, View

LEAST = 4  # tokens of a document below which it is not worth showing


class TokenCounter(Protocol):
    """What the budget needs of a tokenizer.

    ``special_tokens`` may be absent, and ``prime(texts)``, which encodes many texts at once so that
    ``encode`` finds them, and ``window``, most tokens that the model reads.
    """

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, no control tokens added."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Text of token ids."""
        ...

    def count_prompt(self, prompt: Prompt) -> int:
        """Tokens of a prompt with its chat template and prefill."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CutReport:
    """What fitting did: documents seen and cut, their tokens, views cut below ``doc_tokens``."""

    documents: int = 0
    cut_documents: int = 0
    tokens_before: int = 0
    tokens_after: int = 0
    tightened_views: int = 0

    def merge(self, other: CutReport) -> CutReport:
        """The sum of two reports."""
        return CutReport(
            documents=self.documents + other.documents,
            cut_documents=self.cut_documents + other.cut_documents,
            tokens_before=self.tokens_before + other.tokens_before,
            tokens_after=self.tokens_after + other.tokens_after,
            tightened_views=self.tightened_views + other.tightened_views,
        )

    def summary(self) -> str:
        """One line for the log."""
        share = self.tokens_after / self.tokens_before if self.tokens_before else 1.0
        return (
            f"cut {self.cut_documents} of {self.documents} documents, "
            f"{share:.0%} of their {self.tokens_before} tokens kept; "
            f"{self.tightened_views} views cut further to fit their prompt"
        )


def fit(view: View, tokens: TokenCounter, *, fmt: Format) -> tuple[View, CutReport]:
    """Return the view with texts that fit the format's budget; fitting twice changes no more.

    Args:
        view: what is to be shown.
        tokens: the tokenizer of the model that will read it.
        fmt: the format that renders it; ``doc_tokens``, ``prompt_tokens`` and ``snippet`` are its.

    Raises:
        DataError: a prompt is too long even with 4 tokens a document; the query is named.
    """
    special: Sequence[str] = getattr(tokens, "special_tokens", ())
    spec = fmt.spec
    harmless = _harmless(view, special, query_biased=spec.snippet == "query")
    if query_tokens := getattr(fmt, "query_tokens", None):
        query = replace(harmless.query, text=cut(harmless.query.text, query_tokens, tokens))
        harmless = replace(harmless, query=query)
    most = min(spec.prompt_tokens, getattr(tokens, "window", spec.prompt_tokens))
    _prime(tokens, [joined(c.title, c.text) for c in harmless.candidates])
    before = [len(tokens.encode(joined(c.title, c.text))) for c in harmless.candidates]

    def at(budget: int) -> View:
        return _cut_view(harmless, before, budget, tokens)

    def fits(fitted: View) -> bool:
        return all(tokens.count_prompt(p) <= most for p in fmt.prompts(fitted))

    best = at(spec.doc_tokens)
    tightened = not fits(best)
    if tightened:
        best = at(LEAST)
        if not fits(best):
            raise _too_long(best, tokens, fmt, most)
        low, high = LEAST, spec.doc_tokens
        while high - low > 1:
            middle = (low + high) // 2
            tried = at(middle)
            if fits(tried):
                best, low = tried, middle
            else:
                high = middle
    pairs = list(zip(harmless.candidates, best.candidates, strict=True))
    return best, CutReport(
        documents=len(pairs),
        cut_documents=sum(a != b for a, b in pairs),
        tokens_before=sum(before),
        tokens_after=sum(len(tokens.encode(joined(c.title, c.text))) for c in best.candidates),
        tightened_views=int(tightened),
    )


def cut(text: str, budget: int, tokens: TokenCounter, size: int | None = None) -> str:
    """The longest beginning of a text, about, that encodes to at most ``budget`` tokens.

    Args:
        text: what is cut.
        budget: most tokens.
        tokens: what counts them.
        size: how many characters to try first; the decoded beginning's when None.
    """
    ids = tokens.encode(text)
    if len(ids) <= budget:
        return text
    size = _guess(text, ids, budget, tokens) if size is None else size
    while size > 0:
        piece = text[:size].rstrip()
        over = len(tokens.encode(piece)) - budget
        if over <= 0:
            return piece
        size = len(piece) - over
    return ""


def _guess(text: str, ids: Sequence[int], budget: int, tokens: TokenCounter) -> int:
    """About how many characters the first ``budget`` tokens of a text are.

    The decoded beginning only hints at the size: it need not be spelled like the text.
    """
    return min(len(text) - 1, len(tokens.decode(list(ids[:budget]))))


def _prime(tokens: TokenCounter, texts: Sequence[str]) -> None:
    prime = getattr(tokens, "prime", None)
    if prime is not None:
        prime(texts)


def _harmless(view: View, special: Sequence[str], *, query_biased: bool) -> View:
    """The view with neutralised texts, the nearest sentence first where that is asked for."""
    query = replace(
        view.query,
        text=neutralise(view.query.text, special),
        instruction=neutralise(view.query.instruction or "", special) or None,
    )
    candidates = []
    for candidate in view.candidates:
        text = neutralise(candidate.text, special)
        if query_biased:
            text = query_first(text, query.text)
        title = neutralise(candidate.title, special)
        candidates.append(replace(candidate, title=title, text=text))
    return replace(view, query=query, candidates=tuple(candidates))


def _cut_view(view: View, sizes: Sequence[int], budget: int, tokens: TokenCounter) -> View:
    long = [c for c, size in zip(view.candidates, sizes, strict=True) if size > budget]
    texts = [_title(c) + c.text for c in long]
    _prime(tokens, texts)
    # What cutting will try first, encoded together.
    guesses = [_guess(text, tokens.encode(text), budget, tokens) for text in texts]
    _prime(tokens, [text[:size].rstrip() for text, size in zip(texts, guesses, strict=True)])
    shorter = {
        c.docid: _cut_candidate(c, budget, tokens, size)
        for c, size in zip(long, guesses, strict=True)
    }
    return replace(view, candidates=tuple(shorter.get(c.docid, c) for c in view.candidates))


def _cut_candidate(candidate: Candidate, budget: int, tokens: TokenCounter, size: int) -> Candidate:
    """Cut the text, and the title only where it alone is too long."""
    title = _title(candidate)
    kept = cut(title + candidate.text, budget, tokens, size)
    if len(kept) > len(title):
        return replace(candidate, text=kept[len(title) :])
    return replace(candidate, title=cut(candidate.title, budget, tokens), text="")


def _title(candidate: Candidate) -> str:
    return f"{candidate.title}. " if candidate.title else ""


def _too_long(view: View, tokens: TokenCounter, fmt: Format, most: int) -> DataError:
    needed = max(tokens.count_prompt(p) for p in fmt.prompts(view))
    return DataError(
        f"the prompt has {needed} tokens with {LEAST} tokens a document",
        where=f"query {view.query.qid!r}",
        expected=f"at most format.prompt_tokens = {fmt.spec.prompt_tokens}"
        if most == fmt.spec.prompt_tokens
        else f"at most {most}, the window of the model",
        remedy="raise format.prompt_tokens, show fewer documents, or shorten the query",
    )
