"""What answers views through vLLM: the askers of ``asking``, with an engine in the model's place.

Contract: results, counts and statuses are those of engine local; formats that are read by a
scorer's head are refused with one line. Which views are asked is a strategy's business.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rank_rl.errors import RecipeError
from rank_rl.formats import kind
from rank_rl.formats.base import Format
from rank_rl.formats.budget import CutReport
from rank_rl.generation.asking import Asked, LabelAsker, SlotAsker, TextAsker, fit_all
from rank_rl.generation.engine_labels import EngineSlots, fill, read_labels, read_places
from rank_rl.generation.engine_text import EngineGenerator
from rank_rl.generation.readout import (
    BY_PROBABILITY,
    check_texts,
    readout_for,
    with_expected,
)
from rank_rl.generation.reasoning import begun, check_reasoning
from rank_rl.generation.ruled import Rules
from rank_rl.records import View
from rank_rl.specs import Readout, Reasoning

FREE = Rules()


class EngineSlotAsker(SlotAsker):
    """Reads label slots through vLLM; ``generator`` writes the explanations."""

    def __init__(self, fmt: Any, generator: EngineGenerator, *, readout: Readout = "score") -> None:
        super().__init__(fmt, EngineSlots(generator.engine, fmt), readout=readout)  # type: ignore[arg-type]
        self.generator = generator
        self.batch_size = generator.batch_size


class EngineLabelAsker(LabelAsker):
    """Reads the label that a text answer would give through vLLM."""

    def __init__(
        self, fmt: Format, generator: EngineGenerator, *, reasoning: Reasoning = "write"
    ) -> None:
        self.fmt, self.reasoning = fmt, reasoning
        self.generator, self.tokens = generator, generator.tokens
        self.batch_size = generator.batch_size
        self.cuts = CutReport()

    def ask(self, views: Sequence[View]) -> list[Asked]:
        """One reading a view, in order.

        Raises:
            ModelError: a prompt fills the window.
        """
        fitted, self.cuts = fit_all(views, self.tokens, self.fmt, self.cuts)
        questions = [self._question(view) for view in fitted]
        readings = read_labels(self.generator.engine, questions)
        asked = zip(fitted, questions, readings, strict=True)
        return [self._asked(view, question, reading) for view, question, reading in asked]

    def forget(self) -> None:
        """Nothing: what is kept of prompts is vLLM's, whose model does not change."""


class EngineTextAsker(TextAsker):
    """Answers written by vLLM; expected scores are read off them in one further go.

    Args:
        fmt: the format that renders and parses.
        generator: what writes.
        readout: ``decoded``, ``expected`` or ``guided``.
        reasoning: as for ``TextAsker``.
        rules: what answers keep to.
    """

    generator: EngineGenerator

    def __init__(
        self,
        fmt: Format,
        generator: EngineGenerator,
        *,
        readout: Readout = "decoded",
        reasoning: Reasoning = "write",
        rules: Rules = FREE,
    ) -> None:
        super().__init__(fmt, generator, generator.tokens, reasoning=reasoning, rules=rules)
        self.readout = readout
        self.batch_size = generator.batch_size

    def ask(self, views: Sequence[View]) -> list[Asked]:
        """One answer a view, in order.

        Raises:
            ModelError: expected scores are wanted and a score is not one token of the model.
        """
        if self.readout in BY_PROBABILITY and views:
            check_texts(self.generator.tokens, self.fmt.label_texts(views[0]))
        if self.readout == "guided":
            return self._guided(views)
        asked = super().ask(views)
        return self._with_expected(asked) if self.readout == "expected" else asked

    def _guided(self, views: Sequence[View]) -> list[Asked]:
        """Answers of which only the scores are the model's."""
        fitted, self.cuts = fit_all(views, self.tokens, self.fmt, self.cuts)
        prompts = [begun(self.fmt, self.fmt.render(view), self.reasoning) for view in fitted]
        completions = fill(self.generator.engine, prompts, fitted, self.fmt)  # type: ignore[arg-type]
        written = zip(fitted, prompts, completions, strict=True)
        return [self._expected(self._asked(*one)) for one in written]

    def _with_expected(self, asked: Sequence[Asked]) -> list[Asked]:
        started = time.perf_counter()
        read = [i for i, a in enumerate(asked) if a.outcome.answer is not None]
        answers = [(e.prompt, e.completion.text, e.view) for e in (asked[i].exchange for i in read)]
        slots = dict(zip(read, read_places(self.generator.engine, answers, self.fmt), strict=True))
        share = (time.perf_counter() - started) / max(1, len(read))
        found = []
        for i, one in enumerate(asked):
            if i in slots:
                done = one.exchange.completion
                done = replace(done, slots=slots[i], seconds=done.seconds + share)
                one = replace(one, exchange=replace(one.exchange, completion=done))
            found.append(self._expected(one))
        return found

    def _expected(self, asked: Asked) -> Asked:
        exchange = asked.exchange
        if exchange.outcome.answer is None:
            return asked
        slots = exchange.completion.slots
        outcome = with_expected(exchange.outcome, slots, exchange.view, self.fmt)
        return replace(asked, exchange=replace(exchange, outcome=outcome))


def engine_asker(
    fmt: Format,
    generator: EngineGenerator,
    *,
    readout: str = "auto",
    reasoning: str = "write",
    rules: Rules = FREE,
) -> EngineSlotAsker | EngineLabelAsker | EngineTextAsker:
    """What answers views of a format through vLLM.

    Args:
        fmt: a text format or label slots.
        generator: what writes, and whose engine is read.
        readout: as for ``Ranker``.
        reasoning: as for ``Ranker``.
        rules: what answers keep to.

    Raises:
        RecipeError: the format cannot be read out that way, has no grammar, or vLLM does not run
            its model.
        ModelError: the model's tokens do not allow it.
    """
    check_engine(fmt)
    how = check_reasoning(fmt, reasoning)
    wanted = readout_for(fmt, readout, reasoning=how)
    kept = rules.check(fmt, reasoning=how)
    if kind(fmt) == "slots":
        return EngineSlotAsker(fmt, generator, readout=wanted)
    if wanted == "score":
        return EngineLabelAsker(fmt, generator, reasoning=how)
    return EngineTextAsker(fmt, generator, readout=wanted, reasoning=how, rules=kept)


def check_engine(fmt: Any) -> None:
    """Refuse formats that vLLM cannot answer, before a model is loaded.

    Raises:
        RecipeError: the format is read by a scorer's head.
    """
    if kind(fmt) == "scorer":
        raise RecipeError(
            f"format {fmt.spec.name!r} is read by a scorer's head, which vLLM does not run",
            where="engine",
            expected="a text format or label slots",
            remedy="use engine local",
        )
