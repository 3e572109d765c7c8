"""Labels of a text answer read as probabilities: one pass, nothing is generated.

Where an answer is one label of those allowed (the best of several documents, the better of two, a
grade), the model's log-probability of every label says more than the one it would write (S. Zhuang
et al., 2023, arXiv 2310.09497, score setwise prompts so; H. Zhuang et al., 2023, arXiv 2310.14122,
graded ones). Contract: log-probabilities are those of the label's tokens behind the prompt,
exactly, however many tokens a label takes and whatever labels share; what a label means is told by
the format's own ``parse``. A label that is the beginning of another one counts where the other one
is not written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from rank_rl.errors import ModelError
from rank_rl.formats.base import Format, finish
from rank_rl.generation.ragged import alike
from rank_rl.models.packed import label_weights
from rank_rl.models.packed_attention import choose, slot_logits
from rank_rl.models.packing import pack
from rank_rl.models.tokens import ChatTokens
from rank_rl.records import Outcome, Pick, Prompt, Scores, View
from rank_rl.strategies.base import votes

if TYPE_CHECKING:
    import torch

    from rank_rl.generation.kept import Kept
    from rank_rl.models.loading import Loaded

BATCH_TOKENS = 4000
TokenPath: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A chat, what the assistant's turn already says, and the labels that may follow."""

    prompt: Prompt
    lead: str
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelReading:
    """What a model says of the labels of one question.

    Attributes:
        logprobs: log-probability of each label under the whole vocabulary.
        begins: whether the likeliest next token is the beginning of a label.
        tokens: tokens of the question: its prompt, and what its labels need behind it.
        seconds: its share of the pass.
    """

    logprobs: Mapping[str, float]
    begins: bool
    tokens: int
    seconds: float

    @property
    def best(self) -> str:
        """The likeliest label."""
        return max(self.logprobs, key=self.logprobs.__getitem__)


@dataclass(slots=True, kw_only=True)
class Trie:
    """The labels of a question as token paths behind ``stem``.

    ``nodes`` are the places where a next token decides, by their path; the first is the root.
    ``first`` holds the tokens that may come next there.
    """

    stem: list[int]
    paths: tuple[TokenPath, ...]
    first: frozenset[int]
    nodes: dict[TokenPath, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in self.paths:
            for length in range(len(path)):
                self.nodes.setdefault(path[:length], len(self.nodes))
        for path in self.paths:  # a label that another one begins with: does that one go on?
            if any(other[: len(path)] == path and other != path for other in self.paths):
                self.nodes.setdefault(path, len(self.nodes))

    @property
    def tokens(self) -> int:
        """Tokens that a pass computes for the question alone."""
        return len(self.stem) - 1 + sum(1 + len(path) for path in self.nodes)

    @property
    def tree(self) -> list[tuple[int, int]]:
        """The nodes but the root as tokens, each with the number of the node it follows."""
        return [(path[-1], self.nodes[path[:-1]] - 1) for path in self.nodes if path]

    def logprobs(self, rows: torch.Tensor) -> list[float]:
        """Log-probability of each label from (nodes, V) log-probabilities of the next token."""
        found = []
        for path in self.paths:
            total = sum(float(rows[self.nodes[path[:i]], t]) for i, t in enumerate(path))
            if path in self.nodes:
                longer = {p[len(path)] for p in self.paths if p[: len(path)] == path and p != path}
                left = 1.0 - sum(math.exp(float(rows[self.nodes[path], t])) for t in longer)
                total += math.log(left) if left > 0 else -math.inf
            found.append(total)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bundle:
    """Questions that begin alike; the first ``shared`` tokens of their stems are read once."""

    tries: tuple[Trie, ...]
    shared: int

    @classmethod
    def of(cls, trie: Trie) -> _Bundle:
        return cls(tries=(trie,), shared=len(trie.stem) - 1)

    @property
    def segments(self) -> list[list[int]]:
        """What is read behind the shared tokens, one row a node of every question."""
        return [[*t.stem[self.shared :], *path] for t in self.tries for path in t.nodes]

    @property
    def tokens(self) -> int:
        """Tokens that a pass computes."""
        rests = ((len(t.stem) - self.shared, t.nodes) for t in self.tries)
        return self.shared + sum(rest + len(path) for rest, nodes in rests for path in nodes)

    def joined(self, trie: Trie) -> _Bundle | None:
        """With one question more; None where its tokens are fewer in a group of their own."""
        shared = alike(self.tries[0].stem[: self.shared], trie.stem[:-1])
        grown = replace(self, tries=(*self.tries, trie), shared=shared)
        return grown if shared and grown.tokens < self.tokens + trie.tokens else None


def ask_labels(
    loaded: Loaded, questions: Sequence[Question], *, batch_tokens: int = BATCH_TOKENS
) -> list[LabelReading]:
    """Read the labels of questions in packed passes, each prompt once.

    What consecutive prompts have in common, up to the first token in which they differ, is computed
    once: the question, where each document has a prompt of its own.

    Args:
        loaded: a model whose attention is plainly causal.
        questions: prompts of any lengths with any labels.
        batch_tokens: about how many tokens one pass holds; a question is never divided.

    Raises:
        ModelError: the model cannot be read in packed passes, or a prompt is too long for it.
    """
    import torch

    from rank_rl.models.loading import autocast_context, evaluating

    model = loaded.model
    tokens = ChatTokens(loaded.tokenizer)
    try:
        attention = choose(model)
    except ModelError as error:
        raise ModelError(
            "labels cannot be read in one pass",
            where=f"model {loaded.name!r}",
            expected="plain causal attention",
            remedy="use readout decoded",
        ) from error
    readings: list[LabelReading] = []
    with torch.no_grad(), evaluating(model), autocast_context(loaded):
        for bundles in _batches([trie_of(tokens, q) for q in questions], batch_tokens):
            started = time.perf_counter()
            tries = [trie for bundle in bundles for trie in bundle.tries]
            groups = [(b.tries[0].stem[: b.shared], b.segments) for b in bundles]
            batch = pack(groups).to(model.device)
            rows = slot_logits(model, batch, attention).log_softmax(-1).cpu()
            rate = (time.perf_counter() - started) / sum(t.tokens for t in tries)
            parts = rows.split([len(t.nodes) for t in tries])
            for trie, part in zip(tries, parts, strict=True):
                choices = questions[len(readings)].choices
                readings.append(_reading(trie, part, choices, rate))
    return readings


class LabelReader:
    """Reads labels of one model, and keeps prompts for those that begin like them.

    Args:
        loaded: a model whose attention is plainly causal.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.tokens = ChatTokens(loaded.tokenizer)
        self._kept: Kept | None = None

    def forget(self) -> None:
        """Drop what is kept; to be called before the model changes."""
        self._kept = None

    def read(self, questions: Sequence[Question], *, keep: bool) -> list[LabelReading]:
        """The labels of questions, as ``ask_labels``.

        Args:
            questions: prompts of any lengths with any labels.
            keep: whether later prompts may begin like these, and these like earlier ones.
        """
        from rank_rl.generation.local import in_place

        if not keep or not in_place(self.loaded):
            return ask_labels(self.loaded, questions)
        started = time.perf_counter()
        tries = [trie_of(self.tokens, question) for question in questions]
        spared, rows = self._rows(tries)
        seconds = (time.perf_counter() - started) / max(1, len(tries))
        readings = []
        for trie, row, question, less in zip(tries, rows, questions, spared, strict=True):
            found = _reading(trie, row, question.choices, 0.0)
            computed = len(trie.stem) + len(trie.nodes) - 1 - less
            readings.append(replace(found, seconds=seconds, tokens=computed))
        return readings

    def _rows(self, tries: Sequence[Trie]) -> tuple[list[int], list[torch.Tensor]]:
        """Tokens that each question was spared, and log-probabilities at its nodes."""
        import torch

        from rank_rl.generation.kept import Kept
        from rank_rl.generation.local import cache_tokens, read_tokens
        from rank_rl.models.loading import autocast_context, evaluating

        model = self.loaded.model
        if self._kept is None:
            most = cache_tokens(self.loaded)
            self._kept = Kept(model, tokens=most, read_tokens=read_tokens(self.loaded))
        with torch.no_grad(), evaluating(model), autocast_context(self.loaded):
            found = self._kept.read([t.stem for t in tries], [t.tree for t in tries])
            return self._kept.spared, [logits.float().log_softmax(-1).cpu() for logits in found]


def _reading(trie: Trie, rows: torch.Tensor, choices: Sequence[str], rate: float) -> LabelReading:
    return LabelReading(
        logprobs=dict(zip(choices, trie.logprobs(rows), strict=True)),
        begins=int(rows[0].argmax()) in trie.first,
        tokens=trie.tokens,
        seconds=rate * trie.tokens,
    )


def trie_of(tokens: ChatTokens, question: Question) -> Trie:
    """The labels as the tokenizer writes them behind the lead.

    A tokenizer may join the lead's last characters with the label's first ones (``>[``). Then the
    stem ends before, and the joined tokens are part of the label's path, as in any answer that the
    model was trained on.
    """
    starts = [question.lead, *(question.lead + choice for choice in question.choices)]
    rows = tokens.encode_prompts([replace(question.prompt, prefill=start) for start in starts])
    shared = alike(min(rows), max(rows))
    shared = min(shared, len(rows[0]), *(len(row) - 1 for row in rows[1:]))
    paths = tuple(tuple(row[shared:]) for row in rows[1:])
    begins = {path[0] for path in paths} | set(rows[0][shared : shared + 1])
    return Trie(stem=rows[0][:shared], paths=paths, first=frozenset(begins))


def _batches(tries: Sequence[Trie], batch_tokens: int) -> Iterator[list[_Bundle]]:
    """Consecutive questions, as many as fit ``batch_tokens``, in bundles that begin alike."""
    held: list[_Bundle] = []
    for trie in tries:
        grown = held[-1].joined(trie) if held else None
        added = trie.tokens if grown is None else grown.tokens - held[-1].tokens
        if held and sum(b.tokens for b in held) + added > batch_tokens:
            yield held
            held, grown = [], None
        if grown is None:
            held.append(_Bundle.of(trie))
        else:
            held[-1] = grown
    if held:
        yield held


def label_outcome(fmt: Format, view: View, lead: str, logprobs: Mapping[str, float]) -> Outcome:
    """Scores of the documents shown from the log-probabilities of the labels.

    Where a label picks one of the documents: its log-probability, negated where it picks the worst.
    Where it grades one document: the log-probabilities weighted by what the labels are worth,
    centred, so that two labels give log p(yes) - log p(no). Where it prefers one of two: the
    probability of either under the labels alone, a tie shared.

    A label that the format cannot read says nothing; without any that it can the outcome failed.
    """
    end = "</answer>" if "<answer>" in lead else ""
    said = {choice: fmt.parse(choice + end, view, prefill=lead).answer for choice in logprobs}
    read = {choice: answer for choice, answer in said.items() if answer is not None}
    picks = {c: a for c, a in read.items() if isinstance(a, Pick)}
    if picks:
        floor = _floor([logprobs[choice] for choice in picks])
        values = {
            a.docid: -max(logprobs[c], floor) if a.worst else logprobs[c] for c, a in picks.items()
        }
    elif read and len(view.docids) == 1:
        worth = [_worth(answer, view.docids[0]) for answer in read.values()]
        known = [logprobs[choice] for choice in read]
        weights = label_weights(worth)
        values = {view.docids[0]: sum(w * lp for w, lp in zip(weights, known, strict=True) if w)}
    else:
        values = _shares(
            view, {c: Outcome(status="ok", answer=a) for c, a in read.items()}, logprobs
        )
    return finish(Scores(values=values) if values else None, () if values else ("no_label",))


def _floor(logprobs: Sequence[float]) -> float:
    """One less than the lowest finite one: what ``votes`` takes a document without any for.

    Negated, an infinity would be taken for none, and the least bad document come last.
    """
    return min((lp for lp in logprobs if math.isfinite(lp)), default=-math.inf) - 1.0


def _worth(answer: object, docid: str) -> float:
    return float(answer.values.get(docid, 0.0)) if isinstance(answer, Scores) else 0.0


def _shares(
    view: View, said: Mapping[str, Outcome], logprobs: Mapping[str, float]
) -> dict[str, float]:
    """Votes of every label, weighted by its probability among the labels."""
    top = max((logprobs[c] for c in said), default=-math.inf)
    if top == -math.inf:
        return {}
    weights = {c: math.exp(logprobs[c] - top) for c in said}
    total = sum(weights.values())
    values = dict.fromkeys(view.docids, 0.0)
    for choice, outcome in said.items():
        cast = votes(outcome, view) or {}
        level = len(set(cast.values())) < 2
        for docid, share in cast.items():
            values[docid] += (0.5 if level else share) * weights[choice] / total
    return values
