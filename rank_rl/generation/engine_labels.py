"""Labels and scores read off vLLM as log-probabilities: what packed passes read for engine local.

Contract: the numbers are those of ``models.packed``, ``choosing``, ``readout`` and ``guided`` but
for the arithmetic of another engine. Every place is a request for one token, which vLLM computes
behind what it has cached of the prompt; a score of label logits is the same sum over
log-probabilities, as its weights sum to 0.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rank_rl.formats.base import Format
from rank_rl.generation.choosing import LabelReading, Question, Trie, trie_of
from rank_rl.generation.engine_read import Peek
from rank_rl.generation.guided import completion_of, row_of
from rank_rl.generation.readout import Place, find_places
from rank_rl.models.packed import SlotLabels, SlotReading
from rank_rl.records import Completion, Prompt, View

if TYPE_CHECKING:
    from rank_rl.formats.scores import ScoresFormat
    from rank_rl.formats.slots import SlotFormat
    from rank_rl.generation.endings import Decoder
    from rank_rl.generation.engine import Engine
    from rank_rl.models.packing import Encoded


class EngineSlots:
    """Reads label slots; stands where ``PackedScorer`` does.

    Args:
        engine: what reads.
        fmt: the format whose slots are read.

    Raises:
        ModelError: a label is not a single token for this tokenizer, or two share one.
    """

    def __init__(self, engine: Engine, fmt: SlotFormat) -> None:
        self.engine, self.fmt, self.tokens = engine, fmt, engine.tokens
        self.labels = SlotLabels.of(fmt, self.tokens)

    def score(self, views: Sequence[View]) -> list[SlotReading]:
        """Read the slots of every view.

        Raises:
            ModelError: a prompt fills the window.
        """
        groups = [self.tokens.encode_slots(self.fmt.slots(view)) for view in views]
        rows = [[*prefix, *segment] for prefix, segments in groups for segment in segments]
        peeks = iter(self.engine.peek(rows, [self.labels.ids] * len(rows)))
        return [
            slot_reading([next(peeks) for _ in group[1]], group, self.labels, self.tokens)
            for group in groups
        ]


def slot_reading(
    peeks: Sequence[Peek], group: Encoded, labels: SlotLabels, tokens: Decoder
) -> SlotReading:
    """The reading of one view from what was read behind each of its documents."""
    rows = [[peek.logprobs[i] for i in labels.ids] for peek in peeks]
    known = dict(zip(labels.ids, labels.texts, strict=True))
    prefix, segments = group
    return SlotReading(
        logprobs=tuple(dict(zip(labels.texts, row, strict=True)) for row in rows),
        scores=tuple(_weighted(labels.weights, row) for row in rows),
        expected=tuple(_weighted(labels.values, _shares(row)) for row in rows),
        greedy=tuple(known.get(p.likeliest) or tokens.decode([p.likeliest]) for p in peeks),
        tokens=len(prefix) + sum(map(len, segments)),
    )


def _weighted(weights: Sequence[float], row: Sequence[float]) -> float:
    return math.fsum(w * x for w, x in zip(weights, row, strict=True))


def _shares(row: Sequence[float]) -> list[float]:
    """Probabilities of the labels among themselves."""
    top = max(row)
    exps = [math.exp(x - top) for x in row]
    return [e / sum(exps) for e in exps]


def read_labels(engine: Engine, questions: Sequence[Question]) -> list[LabelReading]:
    """Read the labels of questions, as ``choosing.ask_labels`` does; exact for any labels.

    Raises:
        ModelError: a prompt fills the window.
    """
    started = time.perf_counter()
    tries = [trie_of(engine.tokens, question) for question in questions]
    asked = [row for trie in tries for row in label_rows(trie)]
    peeks = iter(engine.peek([row for row, _ in asked], [ids for _, ids in asked]))
    rate = (time.perf_counter() - started) / max(1, sum(trie.tokens for trie in tries))
    found = []
    for question, trie in zip(questions, tries, strict=True):
        reading = label_reading(trie, [next(peeks) for _ in trie.nodes], question.choices)
        found.append(replace(reading, seconds=rate * trie.tokens))
    return found


def label_rows(trie: Trie) -> list[tuple[list[int], list[int]]]:
    """For each place where a next token decides: the ids before it, and those that may follow."""
    return [
        ([*trie.stem, *node], sorted({p[len(node)] for p in trie.paths if _beyond(p, node)}))
        for node in trie.nodes
    ]


def _beyond(path: Sequence[int], node: Sequence[int]) -> bool:
    return len(path) > len(node) and tuple(path[: len(node)]) == tuple(node)


def label_reading(trie: Trie, peeks: Sequence[Peek], choices: Sequence[str]) -> LabelReading:
    """The reading of one question from those of its places."""
    table: Any = {
        (i, token): logprob
        for i, peek in enumerate(peeks)
        for token, logprob in peek.logprobs.items()
    }
    return LabelReading(
        logprobs=dict(zip(choices, trie.logprobs(table), strict=True)),
        begins=peeks[0].likeliest in trie.first,
        tokens=trie.tokens,
        seconds=0.0,
    )


Answered = tuple[Prompt, str, View]


def read_places(
    engine: Engine, answers: Sequence[Answered], fmt: Format
) -> list[dict[str, dict[str, float]]]:
    """Log-probability of every admissible score at each score of answers, by document label.

    Args:
        engine: what reads.
        answers: prompt, text behind its prefill, and view of each.
        fmt: a format with ``slot_spans``.

    Raises:
        ModelError: a score takes more than one token of this model.
    """
    rows: list[list[int]] = []
    wanted: list[tuple[int, ...]] = []
    held: list[list[Place]] = []
    for prompt, text, view in answers:
        start, ids, places = find_places(engine, prompt, text, fmt, view)  # type: ignore[arg-type]
        held.append(places)
        rows += [(start + ids)[: len(start) + place.index] for place in places]
        wanted += [place.choices for place in places]
    peeks = iter(engine.peek(rows, wanted))
    found = []
    for (_, _, view), places in zip(answers, held, strict=True):
        texts = fmt.label_texts(view)
        found.append(
            {place.label: _at(place, next(peeks), texts) for place in places},
        )
    return found


def _at(place: Place, peek: Peek, texts: Sequence[str]) -> dict[str, float]:
    return {text: peek.logprobs[i] for text, i in zip(texts, place.choices, strict=True)}


def fill(
    engine: Engine, prompts: Sequence[Prompt], views: Sequence[View], fmt: ScoresFormat
) -> list[Completion]:
    """Answers of which all but the scores is given, as ``guided.fill`` writes them.

    All views are read together, score by score.

    Raises:
        ModelError: a score is not a token of its own.
    """
    rows = [row_of(engine, *pair, fmt) for pair in zip(prompts, views, strict=True)]  # type: ignore[arg-type]
    fits = [len(row.ids) <= engine.window for row in rows]
    started = time.perf_counter()
    for step in range(max((len(row.places) for row in rows), default=0)):
        still = [r for r, fit in zip(rows, fits, strict=True) if fit and step < len(r.places)]
        before = [row.ids[: row.places[step].index] for row in still]
        peeks = engine.peek(before, [row.places[step].choices for row in still])
        for row, peek in zip(still, peeks, strict=True):
            row.choose(step, peek.logprobs)  # type: ignore[arg-type]
    share = (time.perf_counter() - started) / max(1, sum(fits))
    return [
        completion_of(row, prompt, view, fmt, share)
        if fit
        else Completion(text="", finish="error", prompt_tokens=row.prompt_tokens)
        for row, prompt, view, fit in zip(rows, prompts, views, fits, strict=True)
    ]
