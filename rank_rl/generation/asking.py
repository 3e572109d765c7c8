"""From views to outcomes: the one path that asks a model, shared by reranking and validation.

``SlotAsker`` reads label slots in packed passes, ``LabelAsker`` the label of a text answer,
``TextAsker`` generates answers and parses them, ``ScorerAsker`` takes the scores of a model that
writes nothing. All cut documents to the format's budget first, count the cuts, and return an
``Asked`` a view, in order. Which views are asked is a strategy's business.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from rank_rl.errors import RecipeError
from rank_rl.formats import kind
from rank_rl.formats.base import Format, chat
from rank_rl.formats.budget import CutReport, TokenCounter, fit
from rank_rl.formats.inputs import shown
from rank_rl.generation import Generator
from rank_rl.generation.choosing import LabelReader, LabelReading, Question, label_outcome
from rank_rl.generation.guided import fill
from rank_rl.generation.readout import BY_PROBABILITY, check_texts, read_slots, with_expected
from rank_rl.generation.reasoning import begun, generate_labels, label_first, label_lead
from rank_rl.generation.ruled import NO_RULES, How, Rules, written
from rank_rl.models.tokens import ChatTokens
from rank_rl.records import Completion, Exchange, Outcome, Prompt, Scores, View
from rank_rl.specs import Readout, Reasoning

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from Python 3.11 on

    from rank_rl.formats.slots import SlotFormat
    from rank_rl.models.loading import Loaded
    from rank_rl.models.packed import PackedScorer, SlotReading


# The place of a label that belongs to no single document, in ``Completion.slots``.
LABEL = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question and its answer.

    ``statuses`` counts what could be read: one answer of a text format, or every slot, where a
    slot counts as ``failed`` when greedy decoding would write something that is no label.
    ``reading`` is there for slots only.
    """

    exchange: Exchange
    statuses: dict[str, int]
    reading: SlotReading | None = None

    @property
    def outcome(self) -> Outcome:
        """What the answer was parsed to."""
        return self.exchange.outcome


class Asker(Protocol):
    """Answers views and keeps count of the documents it had to cut.

    An attribute ``deterministic`` that is True says that an answer depends on nothing but what its
    view shows.
    """

    @property
    def cuts(self) -> CutReport: ...
    @property
    def tokens(self) -> Any: ...

    def ask(self, views: Sequence[View]) -> list[Asked]:
        """One answer a view, in order."""
        ...


def fit_all(
    views: Sequence[View], tokens: TokenCounter, fmt: Format, cuts: CutReport
) -> tuple[list[View], CutReport]:
    """Cut the documents of every view to the budget and add to the count of cuts."""
    fitted = []
    for view in views:
        cut, report = fit(view, tokens, fmt=fmt)
        fitted.append(cut)
        cuts = cuts.merge(report)
    return fitted, cuts


class TextAsker:
    """Generates an answer for every view and parses it.

    Args:
        fmt: the format that renders and parses.
        generator: what writes the answers.
        tokens: the tokenizer that the budget is counted in.
        scored_by: a model that reads expected scores off the answers (format ``scores``); None
            takes the scores as they were written.
        guided: that model also writes the answers, of which it is given all but the scores.
        how: ``reasoning``: skip lets an answer begin behind an empty reasoning, or end behind its
            label where the format puts that first; ``rules``: what answers keep to, see
            ``ruled.Rules``; the generator must be able to.
    """

    def __init__(
        self,
        fmt: Format,
        generator: Generator,
        tokens: TokenCounter,
        *,
        scored_by: Loaded | None = None,
        guided: bool = False,
        **how: Unpack[How],
    ) -> None:
        self.fmt, self.generator, self.tokens = fmt, generator, tokens
        self.scored_by, self.guided = scored_by, guided
        self.reasoning = how.get("reasoning", "write")
        self.rules = how.get("rules", NO_RULES).check(fmt, reasoning=self.reasoning)
        self.cuts = CutReport()

    @property
    def deterministic(self) -> bool:
        """Whether the same view gets the same answer, so that nobody has to ask twice."""
        return bool(getattr(self.generator, "deterministic", False))

    def ask(self, views: Sequence[View]) -> list[Asked]:
        """One generated answer a view, in order.

        Raises:
            ModelError: expected scores are wanted and a score is not one token of the model.
        """
        if self.scored_by is not None and views:
            tokens = ChatTokens(self.scored_by.tokenizer)
            check_texts(tokens, self.fmt.label_texts(views[0]))
        fitted, self.cuts = fit_all(views, self.tokens, self.fmt, self.cuts)
        prompts = [begun(self.fmt, self.fmt.render(view), self.reasoning) for view in fitted]
        if self.guided and self.scored_by is not None:
            size = self.generator.batch_size
            completions = fill(self.scored_by, prompts, fitted, self.fmt, batch_size=size)  # type: ignore[arg-type]
        elif self.reasoning == "skip" and label_first(self.fmt):
            completions = generate_labels(self.generator, prompts, fitted, self.fmt, self.tokens)
        else:
            completions = written(self.generator, self.fmt, fitted, prompts, self.rules)
        return [
            self._asked(view, prompt, completion)
            for view, prompt, completion in zip(fitted, prompts, completions, strict=True)
        ]

    def _asked(self, view: View, prompt: Prompt, completion: Completion) -> Asked:
        outcome = read(self.fmt, view, prompt, completion)
        if self.scored_by is not None and outcome.answer is not None:
            if not completion.slots:
                started = time.perf_counter()
                slots = read_slots(self.scored_by, prompt, completion.text, self.fmt, view)
                seconds = completion.seconds + time.perf_counter() - started
                completion = replace(completion, slots=slots, seconds=seconds)
            outcome = with_expected(outcome, completion.slots, view, self.fmt)
        exchange = Exchange(
            qid=view.query.qid, view=view, prompt=prompt, completion=completion, outcome=outcome
        )
        return Asked(exchange=exchange, statuses={outcome.status: 1})


def read(fmt: Format, view: View, prompt: Prompt, completion: Completion) -> Outcome:
    """What a completion says; one that never came says nothing (issue ``no_answer``).

    The outcome is a new object every time: callers find what belongs to it by its identity.
    """
    if completion.finish == "error":
        return Outcome(status="failed", issues=("no_answer",))
    return fmt.parse(completion.text, view, prefill=prompt.prefill)


def make_asker(
    loaded: Loaded,
    fmt: Format,
    generator: Generator | None,
    readout: Readout,
    reasoning: Reasoning,
    rules: Rules = NO_RULES,
) -> ScorerAsker | SlotAsker | LabelAsker | TextAsker:
    """What answers views of a format, by its kind and the way in which it is read out.

    Raises:
        ModelError: the model's tokens or attention do not allow label slots.
        RecipeError: rules for answers that are not written freely.
    """
    if rules and (kind(fmt) != "text" or readout in ("score", "guided")):
        raise RecipeError(
            f"nothing is written freely with format {fmt.spec.name!r} and readout {readout}",
            where="constrained" if rules.constrained else "thinking_budget",
            expected="a text format with readout decoded or expected",
        )
    if kind(fmt) == "scorer":
        return ScorerAsker(fmt, loaded)
    if kind(fmt) == "slots":
        from rank_rl.models.packed import PackedScorer

        return SlotAsker(fmt, PackedScorer(loaded, fmt), readout=readout)  # type: ignore[arg-type]
    if readout == "score":
        return LabelAsker(fmt, loaded, reasoning=reasoning)
    if generator is None:
        raise TypeError("a text format needs a generator")
    return TextAsker(
        fmt,
        generator,
        ChatTokens(loaded.tokenizer),
        scored_by=loaded if readout in BY_PROBABILITY else None,
        guided=readout == "guided",
        reasoning=reasoning,
        rules=rules,
    )


class LabelAsker:
    """Reads the label that a text answer would give; nothing is generated.

    Args:
        fmt: a format with ``lead`` and ``choices``.
        loaded: the model.
        reasoning: ``skip`` reads the label of a format that thinks first behind an empty reasoning.
    """

    deterministic = True

    def __init__(self, fmt: Format, loaded: Loaded, *, reasoning: Reasoning = "write") -> None:
        self.fmt, self.loaded, self.reasoning = fmt, loaded, reasoning
        self.tokens = ChatTokens(loaded.tokenizer)
        self.cuts = CutReport()
        self._labels = LabelReader(loaded)

    def ask(self, views: Sequence[View]) -> list[Asked]:
        """One reading a view, in order.

        Raises:
            ModelError: the model cannot be read so, or a prompt is too long for it.
        """
        fitted, self.cuts = fit_all(views, self.tokens, self.fmt, self.cuts)
        questions = [self._question(view) for view in fitted]
        several = all(len(view.docids) > 1 for view in fitted)
        readings = self._labels.read(questions, keep=several)
        asked = zip(fitted, questions, readings, strict=True)
        return [self._asked(view, question, reading) for view, question, reading in asked]

    def forget(self) -> None:
        """Drop what is kept of prompts; to be called before the model changes."""
        self._labels.forget()

    def _question(self, view: View) -> Question:
        lead = label_lead(self.fmt, view, self.reasoning)
        if lead is None:
            raise ValueError("reasoning stands before the label")
        choices = self.fmt.choices(view)  # type: ignore[attr-defined]
        return Question(prompt=self.fmt.render(view), lead=lead, choices=choices)

    def _asked(self, view: View, question: Question, reading: LabelReading) -> Asked:
        # As with slots, the likeliest label stands for the decoded one and the document ranks, but
        # a model that would write something else counts as failed.
        place = view.labels[0] if len(view.labels) == 1 else LABEL
        completion = Completion(
            text=reading.best,
            prompt_tokens=reading.tokens,
            seconds=reading.seconds,
            slots={place: reading.logprobs},
        )
        exchange = Exchange(
            qid=view.query.qid,
            view=view,
            prompt=replace(question.prompt, prefill=question.lead),
            completion=completion,
            outcome=label_outcome(self.fmt, view, question.lead, reading.logprobs),
        )
        return Asked(exchange=exchange, statuses={"ok" if reading.begins else "failed": 1})


class SlotAsker:
    """Reads the label slot of every document; nothing is generated.

    Args:
        fmt: the format whose slots are read.
        scorer: what reads them.
        readout: ``score`` (label logits), ``expected`` (expected label value) or ``decoded`` (the
            label that greedy decoding writes; none leaves the document unread).
    """

    deterministic = True

    def __init__(
        self, fmt: SlotFormat, scorer: PackedScorer, *, readout: Readout = "score"
    ) -> None:
        self.fmt, self.scorer, self.readout = fmt, scorer, readout
        self.tokens = scorer.tokens
        self.cuts = CutReport()

    def ask(self, views: Sequence[View]) -> list[Asked]:
        """One reading a view, in order; ``seconds`` is the share of the views' tokens."""
        fitted, self.cuts = fit_all(views, self.scorer.tokens, self.fmt, self.cuts)
        started = time.perf_counter()
        readings = self.scorer.score(fitted)
        rate = (time.perf_counter() - started) / max(1, sum(r.tokens for r in readings))
        return [
            self._asked(view, reading, rate) for view, reading in zip(fitted, readings, strict=True)
        ]

    def _asked(self, view: View, reading: SlotReading, rate: float) -> Asked:
        prompt = self.fmt.slots(view)
        said = zip(view.labels, reading.greedy, strict=True)
        failed = sum(token not in prompt.labels for token in reading.greedy)
        completion = Completion(
            text="\n".join(f"[{label}]{token}" for label, token in said),
            prompt_tokens=reading.tokens,
            seconds=rate * reading.tokens,
            slots=dict(zip(view.labels, reading.logprobs, strict=True)),
        )
        # One prompt for the record: the shared head and all bodies, as the packed pass saw them.
        shown = chat(prompt.system, "\n".join([prompt.head.rstrip("\n"), *prompt.bodies]))
        exchange = Exchange(
            qid=view.query.qid,
            view=view,
            prompt=Prompt(messages=shown, prefill=prompt.lead),
            completion=completion,
            outcome=self._outcome(view, reading),
        )
        statuses = {"ok": len(reading.greedy) - failed, "failed": failed}
        return Asked(exchange=exchange, statuses=statuses, reading=reading)

    def _outcome(self, view: View, reading: SlotReading) -> Outcome:
        if self.readout != "decoded":
            # The likeliest label stands for the decoded one, so that a model which would write
            # something else still ranks by its label logits; the slot counts as failed.
            scores = reading.expected if self.readout == "expected" else reading.scores
            return self.fmt.to_outcome(view, reading.best(), scores, {})
        said = [token if token in self.fmt.labels else None for token in reading.greedy]
        outcome = self.fmt.to_outcome(view, said, None, {})
        if not isinstance(outcome.answer, Scores):
            return outcome
        unread = tuple(d for d, label in zip(view.docids, said, strict=True) if label is None)
        return replace(outcome, answer=replace(outcome.answer, unread=unread))

    def explain_prompt(self, asked: Asked, docid: str) -> Prompt:
        """The chat of one document with its likeliest label already written."""
        view, reading = asked.exchange.view, asked.reading
        if reading is None:
            raise ValueError("only slot readings can be explained")
        index = view.docids.index(docid)
        return Prompt(
            messages=self.fmt.slot_messages(view, index),
            prefill=self.fmt.slots(view).lead + reading.best()[index],
        )


class ScorerAsker:
    """Takes the scores, or the order, that a scorer gives a view; nothing can be unreadable.

    Args:
        fmt: the input whose texts are read.
        loaded: the scorer.
    """

    deterministic = True

    def __init__(self, fmt: Any, loaded: Loaded) -> None:
        self.fmt, self.loaded = fmt, loaded
        self.batch_size = 32
        self.tokens = loaded.model.tokens
        self.cuts = CutReport()

    def ask(self, views: Sequence[View]) -> list[Asked]:
        """One answer a view, in order; ``seconds`` is the share of the views' tokens."""
        import torch

        from rank_rl.models.loading import autocast_context, evaluating

        model = self.loaded.model
        fitted, self.cuts = fit_all(views, model.tokens, self.fmt, self.cuts)
        started = time.perf_counter()
        with torch.no_grad(), evaluating(model), autocast_context(self.loaded):
            raws = model([model.encode(view) for view in fitted])
            outcomes = [model.outcome(v, raw) for v, raw in zip(fitted, raws, strict=True)]
        rate = (time.perf_counter() - started) / max(1, sum(raw.tokens for raw in raws))
        return [
            Asked(
                exchange=Exchange(
                    qid=view.query.qid,
                    view=view,
                    prompt=shown(*self.fmt.texts(view)),
                    completion=Completion(
                        text="", prompt_tokens=raw.tokens, seconds=rate * raw.tokens
                    ),
                    outcome=outcome,
                ),
                statuses={},
            )
            for view, raw, outcome in zip(fitted, raws, outcomes, strict=True)
        ]
