"""Answers that keep to rules from a server: under a grammar, reasoning within a budget.

It takes a server that keeps to a list of choices, as vLLM's does (``structured_outputs``). Every
choice of an answer is a request that goes on from the answer so far and may write nothing but one
of the texts named. A server that writes something else, or refuses the field, stops the ranking
with one line. Contract: answers are those of engine ``engine``, but where the server's chat
template or tokenizer treats the beginning of an answer in another way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rank_rl.errors import BackendError
from rank_rl.generation.remote_rounds import Fork, decode
from rank_rl.generation.ruled import BEGUN, THOUGHT, Request, Rule, bare
from rank_rl.records import Completion, Prompt

if TYPE_CHECKING:
    from rank_rl.generation.remote import RemoteGenerator


STRUCTURED, LIMIT = "structured_outputs", "max_tokens"


def answered(generator: RemoteGenerator, requests: Sequence[Request]) -> list[Completion]:
    """Answers by their rules; every request has one.

    ``prompt_tokens`` count a prompt once, although each of its choices is a request: a server keeps
    what it has read. ``seconds`` add up all of them.

    Raises:
        BackendError: the server does not keep to choices, or nobody is there.
    """
    drafts = [_Draft(request=request, rule=_rule(request)) for request in requests]
    _think(generator, [draft for draft in drafts if draft.rule.thinks])
    live = [draft for draft in drafts if not draft.failed]

    def choose(forks: Sequence[Fork]) -> list[int | None]:
        return _choose(generator, [live[fork.index] for fork in forks], forks)

    grammars, ends = [d.rule.grammar for d in live], [d.rule.end for d in live]
    for draft, answer in zip(live, decode(grammars, ends, choose), strict=True):
        draft.answer = answer
    return [draft.completion() for draft in drafts]


@dataclass(slots=True, kw_only=True)
class _Draft:
    """An answer under way, with what its requests took so far."""

    request: Request
    rule: Rule
    thought: str = ""
    answer: str | None = None
    spent: Completion = Completion(text="")

    @property
    def failed(self) -> bool:
        """Whether a request of it was given up."""
        return self.spent.finish == "error"

    @property
    def before(self) -> str:
        """What the assistant's turn says before the answer."""
        if not self.rule.thinks:
            return self.rule.lead
        said = self.rule.opening + self.thought + self.rule.bridge(self.thought)
        return self.request.prompt.prefill + said

    def spend(self, done: Completion) -> None:
        """Count a request."""
        known = self.spent
        self.spent = replace(
            known,
            prompt_tokens=known.prompt_tokens or done.prompt_tokens,
            completion_tokens=known.completion_tokens + done.completion_tokens,
            seconds=known.seconds + done.seconds,
            finish="error" if done.finish == "error" else known.finish,
        )

    def completion(self) -> Completion:
        """The answer; one that was given up is an error and has no text."""
        if self.answer is None:
            return replace(self.spent, finish="error")
        text = self.before + self.answer
        return replace(self.spent, text=text.removeprefix(self.request.prompt.prefill))


def _think(generator: RemoteGenerator, drafts: Sequence[_Draft]) -> None:
    """Write the reasoning of answers."""
    if not drafts:
        return
    ends = {"stop": [THOUGHT, BEGUN], "include_stop_str_in_output": True}
    budgets = [draft.rule.budget for draft in drafts]
    fields = [{**ends, LIMIT: generator.max_new_tokens if b is None else b} for b in budgets]
    found = generator.ask([bare(draft.request) for draft in drafts], fields)
    for draft, done in zip(drafts, found, strict=True):
        draft.spend(done)
        draft.thought = done.text


def _choose(
    generator: RemoteGenerator, drafts: Sequence[_Draft], forks: Sequence[Fork]
) -> list[int | None]:
    asked, fields, choices = [], [], []
    for draft, fork in zip(drafts, forks, strict=True):
        prompt, texts = choice_prompt(draft.request.prompt, draft.before, fork)
        most = max(len(text.encode()) for text in texts) + 1  # no more tokens than bytes
        asked.append(prompt)
        choices.append(texts)
        fields.append({STRUCTURED: {"choice": list(texts)}, LIMIT: most})
    refused = generator.failed["refused"]
    completions = generator.ask(asked, fields)
    if generator.failed["refused"] > refused and all(c.finish == "error" for c in completions):
        raise _unable(generator, "refuses to keep to choices (structured_outputs)")
    taken: list[int | None] = []
    for draft, done, texts in zip(drafts, completions, choices, strict=True):
        draft.spend(done)
        if done.finish != "error" and done.text not in texts:
            wrote = f"wrote {done.text[:40]!r}, which is none of the choices given"
            raise _unable(generator, wrote)
        taken.append(None if done.finish == "error" else texts.index(done.text))
    return taken


def _unable(generator: RemoteGenerator, what: str) -> BackendError:
    return BackendError(
        f"the server {what}",
        where=repr(generator),
        expected="vLLM's server",
        remedy="leave constrained and thinking_budget out",
    )


def choice_prompt(prompt: Prompt, before: str, fork: Fork) -> tuple[Prompt, tuple[str, ...]]:
    """The chat of a choice, and its texts as they go on from it.

    White space at the end of what is said so far moves to the texts: chat templates strip it.
    """
    said = before + fork.text
    kept = said.rstrip()
    space = said[len(kept) :]
    return replace(prompt, prefill=kept), tuple(space + choice for choice in fork.choices)


def with_fields(extra: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Further fields of one request beside those of the server's settings."""
    return {**extra, **{name: value for name, value in fields.items() if name != LIMIT}}


def _rule(request: Request) -> Rule:
    if request.rule is None:
        raise ValueError("a request without a rule")
    return request.rule
