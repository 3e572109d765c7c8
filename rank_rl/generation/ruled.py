"""Answers that keep to a grammar: what is asked of a generator, made of a format and a view.

``constrained`` answers say nothing but what the format's grammar allows (identifiers only, each
once). A ``thinking_budget`` also limits the reasoning before: when it is spent, the tag is closed
and the answer follows. Either way no answer is unreadable. Who writes them is a generator's
business, see ``writers`` and ``engine``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypedDict

from rank_rl.errors import RecipeError
from rank_rl.formats.base import Format
from rank_rl.formats.grammar import Grammar, check_grammar, closing
from rank_rl.generation import Generator, Progress
from rank_rl.generation.reasoning import SKIPPED
from rank_rl.records import Completion, Prompt, View
from rank_rl.specs import Reasoning

END = "</answer>"
OPENED, THOUGHT = "<think>", "</think>"
BEGUN = "<answer>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How one answer is to be written.

    Attributes:
        grammar: what the answer may say.
        thinks: reasoning of the model's own words comes first.
        opening: what the reasoning begins with where the prompt's prefill has not begun it.
        lead: text before the answer where nothing is thought first; the prompt's prefill is its
            beginning, or the answer's.
        end: text behind the answer.
        budget: most tokens of reasoning; None is whatever an answer may have.
    """

    grammar: Grammar
    thinks: bool = False
    opening: str = ""
    lead: str = ""
    end: str = ""
    budget: int | None = None

    def bridge(self, reasoning: str) -> str:
        """What leads from a reasoning, which may have closed its tag, to the answer."""
        if BEGUN in reasoning.rpartition(THOUGHT)[2]:
            return ""
        if THOUGHT not in reasoning:
            return closing(reasoning)
        whole, tail = THOUGHT + "\n" + BEGUN, THOUGHT + reasoning.rpartition(THOUGHT)[2]
        return whole.removeprefix(tail) if whole.startswith(tail) else "\n" + BEGUN


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One answer wanted.

    Attributes:
        prompt: what is asked.
        hint: a text like the answer, which may be guessed from; it changes nothing but speed.
        rule: what the answer keeps to; None lets the model write as it likes.
    """

    prompt: Prompt
    hint: str = ""
    rule: Rule | None = None


class Generate(Protocol):
    """``Generator.generate``."""

    def __call__(
        self, prompts: Sequence[Prompt], *, progress: Progress | None = None
    ) -> list[Completion]:
        """One completion a prompt."""
        ...


Answers = Callable[[Sequence[Request]], list[Completion]]


class Answering(Protocol):
    """A generator that can keep to rules."""

    def answer(
        self, requests: Sequence[Request], *, progress: Progress | None = None
    ) -> list[Completion]:
        """One completion a request, in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Which answers keep to what, for a format: ``constrained`` and ``thinking_budget``."""

    constrained: bool = False
    thinking_budget: int | None = None

    def __bool__(self) -> bool:
        return self.constrained or self.thinking_budget is not None

    def check(self, fmt: Format, *, reasoning: Reasoning = "write") -> Rules:
        """Refuse what a format cannot keep to.

        Raises:
            RecipeError: no grammar, a budget that is no number, or nothing to think.
        """
        budget = self.thinking_budget
        if budget is not None and (isinstance(budget, bool) or budget < 0):
            raise RecipeError(
                f"thinking_budget is {budget!r}",
                where="thinking_budget",
                expected="a number of tokens, 0 or more, or null",
            )
        if budget is not None and (fmt.mode == "answer" or reasoning == "skip"):
            raise RecipeError(
                "nothing is thought before the answer",
                where="thinking_budget",
                expected="a format of mode reason, and reasoning: write",
            )
        if self:
            check_grammar(fmt, where="thinking_budget" if budget is not None else "constrained")
        return self

    def rule(self, fmt: Format, view: View, prompt: Prompt) -> Rule | None:
        """The rule for one view, whose prompt is rendered already; None without any."""
        if not self:
            return None
        grammar = fmt.grammar(view)  # type: ignore[attr-defined]
        if fmt.mode == "answer":
            step = grammar.next(())
            opening = step.literal + (step.choices[0] if step.choices else "")
            lead = "" if opening.startswith(prompt.prefill) else prompt.prefill
            return Rule(grammar=grammar, lead=lead)
        if prompt.prefill.endswith(BEGUN):  # reasoning skipped
            return Rule(grammar=grammar, lead=prompt.prefill, end=END)
        if self.thinking_budget == 0:
            return Rule(grammar=grammar, lead=SKIPPED, end=END)
        opening = "" if OPENED in prompt.prefill else OPENED + "\n"
        budget = self.thinking_budget
        return Rule(grammar=grammar, thinks=True, opening=opening, end=END, budget=budget)


class How(TypedDict, total=False):
    """How answers are written."""

    reasoning: Reasoning
    rules: Rules


NO_RULES = Rules()


def written(
    generator: Generator,
    fmt: Format,
    views: Sequence[View],
    prompts: Sequence[Prompt],
    rules: Rules,
) -> list[Completion]:
    """Answers by their rules, and with a hint of what they are like, where a generator can.

    Raises:
        RecipeError: it cannot keep to rules.
    """
    answer: Any = getattr(generator, "answer", None)
    if answer is None and rules:
        raise RecipeError(
            f"{type(generator).__name__} cannot keep answers to rules",
            where="constrained" if rules.constrained else "thinking_budget",
            expected="a model loaded here, vLLM, or a server with structured outputs",
        )
    if answer is None:
        return generator.generate(prompts)
    requests = [
        Request(prompt=p, hint=hint(fmt, v), rule=rules.rule(fmt, v, p))
        for p, v in zip(prompts, views, strict=True)
    ]
    completions: list[Completion] = answer(requests)
    return completions


def hint(fmt: Format, view: View) -> str:
    """A text like an answer: that which knows of no grades. Empty where the view has none."""
    try:
        return fmt.ideal(view, {})
    except RecipeError:
        return ""


def bare(request: Request) -> Prompt:
    """The prompt as a model goes on from it: up to its reasoning, or without what a rule writes."""
    rule, prompt = request.rule, request.prompt
    if rule is None:
        return prompt
    return replace(prompt, prefill=prompt.prefill + rule.opening if rule.thinks else "")


def in_two(
    requests: Sequence[Request], free: Generate, ruled: Answers, progress: Progress | None
) -> list[Completion]:
    """Answers of requests without a rule by ``free``, of the others by ``ruled``; in order."""
    kept = [i for i, request in enumerate(requests) if request.rule is not None]
    rest = [i for i, request in enumerate(requests) if request.rule is None]
    done: dict[int, Completion] = {}
    if rest:
        prompts = [requests[i].prompt for i in rest]
        done.update(zip(rest, free(prompts, progress=progress), strict=True))
    if kept:
        done.update(zip(kept, ruled([requests[i] for i in kept]), strict=True))
        if progress is not None:
            progress(len(kept))
    return [done[i] for i in range(len(requests))]
