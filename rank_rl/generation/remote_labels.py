"""Labels of an answer read as probabilities off a server: one token is written, the rest is told.

OpenAI's ``top_logprobs`` names the likeliest alternatives to each token written, with their
log-probabilities. Where the first token tells which label an answer begins with, they say what
``choosing`` reads off a model's own logits, but for labels too unlikely to be named: those count as
the least likely alternative that is. Contract: as ``LabelAsker``; a server that tells nothing
stops the ranking with one line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rank_rl.errors import BackendError, RecipeError
from rank_rl.formats.base import Format
from rank_rl.formats.budget import CutReport, TokenCounter
from rank_rl.generation import Generator
from rank_rl.generation.asking import LABEL, Asked, fit_all, read
from rank_rl.generation.choosing import label_outcome
from rank_rl.generation.reasoning import label_lead
from rank_rl.generation.wire import FIRST
from rank_rl.records import Completion, Exchange, Prompt, View
from rank_rl.specs import Reasoning

if TYPE_CHECKING:
    from collections.abc import Iterable

ALTERNATIVES = 20  # as many as OpenAI and vLLM tell


class RemoteLabelAsker:
    """Reads the label that a text answer would give off a server's log-probabilities.

    Args:
        fmt: a format with ``lead`` and ``choices``.
        generator: writes one token and tells its alternatives.
        tokens: what counts the document budget.
        reasoning: ``skip`` reads the label of a format that thinks first behind an empty reasoning.
    """

    def __init__(
        self,
        fmt: Format,
        generator: Generator,
        tokens: TokenCounter,
        *,
        reasoning: Reasoning = "write",
    ) -> None:
        self.fmt, self.generator, self.tokens = fmt, generator, tokens
        self.reasoning = reasoning
        self.cuts = CutReport()
        self.batch_size = generator.batch_size

    @property
    def deterministic(self) -> bool:
        """Whether the same view gets the same answer, so that nobody has to ask twice."""
        return bool(getattr(self.generator, "deterministic", False))

    def ask(self, views: Sequence[View]) -> list[Asked]:
        """One reading a view, in order.

        Raises:
            RecipeError: the first token does not tell the labels of a view apart.
            BackendError: the server tells no log-probabilities.
        """
        fitted, self.cuts = fit_all(views, self.tokens, self.fmt, self.cuts)
        for view in fitted:
            check_labels(self._choices(view))
        prompts = [self._prompt(view) for view in fitted]
        completions = self.generator.generate(prompts)
        asked = zip(fitted, prompts, completions, strict=True)
        return [self._asked(view, prompt, completion) for view, prompt, completion in asked]

    def _choices(self, view: View) -> tuple[str, ...]:
        found: tuple[str, ...] = self.fmt.choices(view)  # type: ignore[attr-defined]
        return found

    def _prompt(self, view: View) -> Prompt:
        lead = label_lead(self.fmt, view, self.reasoning)
        return replace(self.fmt.render(view), prefill=lead or "")

    def _asked(self, view: View, prompt: Prompt, completion: Completion) -> Asked:
        outcome, status = read(self.fmt, view, prompt, completion), "failed"
        if completion.finish != "error":
            told = completion.slots.get(FIRST)
            if not told:
                raise BackendError(
                    "the server tells no log-probabilities of alternatives (top_logprobs)",
                    where=repr(self.generator),
                    remedy="use readout decoded, or a server that does (vLLM, OpenAI)",
                )
            logprobs = of_labels(told, self._choices(view))
            if _label(max(told, key=told.__getitem__), logprobs) is not None:
                status = "ok"
            place = view.labels[0] if len(view.labels) == 1 else LABEL
            completion = replace(completion, slots={place: logprobs})
            outcome = label_outcome(self.fmt, view, prompt.prefill, logprobs)
        exchange = Exchange(
            qid=view.query.qid, view=view, prompt=prompt, completion=completion, outcome=outcome
        )
        return Asked(exchange=exchange, statuses={status: 1})


def check_labels(choices: Sequence[str], *, where: str = "readout score") -> None:
    """Refuse labels that a first token, whatever it is, may not tell apart.

    Raises:
        RecipeError: two begin with the same letter or digit, or one with neither.
    """
    first = [choice.strip()[:1].lower() for choice in choices]
    if len(set(first)) == len(first) and all(c.isalnum() for c in first):
        return
    raise RecipeError(
        f"labels {', '.join(choices[:4])}{' …' if len(choices) > 4 else ''} "
        "cannot be told by the first token that a server writes",
        where=where,
        expected="labels that begin with letters or digits of their own: yes and no, grades to 9",
        remedy="use readout decoded",
    )


def of_labels(told: Mapping[str, float], choices: Iterable[str]) -> dict[str, float]:
    """Log-probability of each label from those of alternative first tokens.

    Tokens that begin the same label, in small or capital letters and with or without a space, are
    added up. A label that none begins is given the lowest log-probability told.
    """
    found: dict[str, float] = dict.fromkeys(choices, -math.inf)
    for token, logprob in told.items():
        label = _label(token, found)
        if label is not None:
            found[label] = _sum(found[label], logprob)
    floor = min(told.values())
    return {label: floor if value == -math.inf else value for label, value in found.items()}


def _label(token: str, choices: Iterable[str]) -> str | None:
    """The label that a token begins; None where it begins none."""
    said = token.strip().lower()
    return next((c for c in choices if said and c.strip().lower().startswith(said)), None)


def _sum(first: float, second: float) -> float:
    """Log of the sum of two probabilities."""
    top = max(first, second)
    if top == -math.inf:
        return top
    return top + math.log(math.exp(first - top) + math.exp(second - top))
