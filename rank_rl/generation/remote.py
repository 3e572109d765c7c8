"""A model behind a server as what answers a ranking: asked at the same time, stored, asked once.

Contract: an answer that a server gave for the same messages and sampling is not asked for again
while its file is there; one request that fails is a failed answer and the others go on; where
nobody answers, or no request can succeed, ranking stops with one ``BackendError``. Requests are
``endpoint``'s, labels read off log-probabilities are ``remote_labels``'s.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rank_rl.errors import BackendError, RecipeError
from rank_rl.formats import kind
from rank_rl.formats.base import Format
from rank_rl.formats.budget import TokenCounter
from rank_rl.generation import Progress
from rank_rl.generation.answers import Answers
from rank_rl.generation.asking import TextAsker
from rank_rl.generation.background import Background
from rank_rl.generation.calls import CallError, Reply, Sampling, in_workers
from rank_rl.generation.endpoint import EndpointGenerator, EndpointSettings
from rank_rl.generation.readout import readout_for
from rank_rl.generation.reasoning import ANY, begun, check_reasoning, label_lead
from rank_rl.generation.remote_grammar import LIMIT, answered, with_fields
from rank_rl.generation.remote_labels import ALTERNATIVES, RemoteLabelAsker, check_labels
from rank_rl.generation.ruled import NO_RULES, Request, Rules, in_two
from rank_rl.models.counting import Rough
from rank_rl.records import Completion, Prompt
from rank_rl.registry import nearest

log = logging.getLogger(__name__)

MAX_NEW_TOKENS = 2048  # of a model that may think before it answers
# So many requests given up in a row, none answered between: nobody is there.
IN_VAIN = 20
_DEAD = ("connection", "timeout", "server_error", "malformed", "refused")
# Prompts in one go for each request at once: the slowest of them keeps the others waiting.
ROUNDS = 4


class RemoteGenerator:
    """Answers of an endpoint; implements ``Generator``.

    Args:
        backend: the endpoint.
        sampling: how answers are drawn; the backend's own when None.
        answers: where they are kept; None keeps none.

    ``failed`` counts requests given up, by cause, and ``served`` holds the names under which the
    model answered.
    """

    def __init__(
        self,
        backend: EndpointGenerator,
        *,
        sampling: Sampling | None = None,
        answers: Answers | None = None,
    ) -> None:
        self.backend, self.answers = backend, answers
        self.sampling = sampling or backend.sampling
        self.batch_size = ROUNDS * backend.concurrency
        self.max_new_tokens = self.sampling.max_tokens
        self.failed: Counter[str] = Counter()
        self.served: set[str] = set(answers.served) if answers else set()
        self._again = False
        self._unanswered = 0
        self._answered = 0
        self._counted = True
        self._background = Background()

    def __repr__(self) -> str:
        return self.backend.where

    @property
    def deterministic(self) -> bool:
        """Whether the same prompt need not be asked twice: greedy decoding, and nothing timed."""
        return self.sampling.temperature == 0 and not self._again

    def drawing(self, sampling: Sampling) -> RemoteGenerator:
        """The same model and store with answers drawn in another way."""
        return RemoteGenerator(self.backend, sampling=sampling, answers=self.answers)

    @contextmanager
    def asking_again(self) -> Iterator[None]:
        """Ask for what is stored as well, inside: to measure how long answers take."""
        self._again = True
        try:
            yield
        finally:
            self._again = False

    def generate(
        self, prompts: Sequence[Prompt], *, progress: Progress | None = None
    ) -> list[Completion]:
        """Return one completion a prompt; a failed one has ``finish="error"`` and no text.

        Raises:
            BackendError: no prompt can be answered (key, credit, model), or nobody is there.
            StorageError: answers cannot be kept.
        """
        return self._run([(self, prompt) for prompt in prompts], progress)

    def answer(
        self, requests: Sequence[Request], *, progress: Progress | None = None
    ) -> list[Completion]:
        """Answer prompts, each by its rule; see ``ruled.Request``.

        Raises:
            BackendError: as ``generate``, or the server does not keep to choices.
        """
        return in_two(requests, self.generate, lambda asked: answered(self, asked), progress)

    def ask(
        self, prompts: Sequence[Prompt], fields: Sequence[Mapping[str, Any]]
    ) -> list[Completion]:
        """As ``generate``, each prompt with fields of its own in its request.

        Args:
            prompts: what is asked; the server goes on from their prefills.
            fields: further fields for each; ``max_tokens`` takes the place of the sampling's.

        Raises:
            BackendError: as ``generate``.
            StorageError: answers cannot be kept.
        """
        pairs = zip(prompts, fields, strict=True)
        return self._run([(self._with(own), prompt) for prompt, own in pairs], None)

    def _with(self, fields: Mapping[str, Any]) -> RemoteGenerator:
        """The same model, store and counts, asked with further fields."""
        other, backend = copy.copy(self), copy.copy(self.backend)  # connections are shared
        backend.extra = with_fields(backend.extra, fields)
        backend.continue_prefill = True
        other.backend = backend
        other.sampling = replace(self.sampling, max_tokens=fields[LIMIT])
        return other

    def _run(
        self, asked: Sequence[tuple[RemoteGenerator, Prompt]], progress: Progress | None
    ) -> list[Completion]:
        try:
            return self._background.run(self._all(asked, progress))
        except CallError as error:
            raise self.backend.explain(error) from None

    async def _all(
        self, asked: Sequence[tuple[RemoteGenerator, Prompt]], progress: Progress | None
    ) -> list[Completion]:
        keys = [how._key(prompt) for how, prompt in asked]
        found = {} if self._again else {k: c for k in keys if (c := self._stored(k))}
        # Prompts that are the same are one question.
        left = iter({k: a for k, a in zip(keys, asked, strict=True) if k not in found}.items())
        report = progress or (lambda _: None)
        report(sum(key in found for key in keys))
        repeats = Counter(keys)

        async def work() -> None:
            for key, (how, prompt) in left:
                found[key] = await self._one(key, prompt, how)
                report(repeats[key])

        await in_workers(work, self.backend.concurrency)
        return [found[key] for key in keys]

    def _stored(self, key: str) -> Completion | None:
        return self.answers.get(key) if self.answers else None

    async def _one(self, key: str, prompt: Prompt, how: RemoteGenerator) -> Completion:
        before = self._answered
        try:
            reply = await how.backend.answer(prompt, how.sampling)
        except CallError as error:
            if error.fatal:
                raise
            return self._given_up(error, alone=self._answered == before)
        self._answered, self._unanswered = self._answered + 1, 0
        self._check_count(reply)
        self.served.add(reply.model)
        if self.answers is not None:
            self.answers.add(key, reply.completions[0], model=reply.model)
        return reply.completions[0]

    def _given_up(self, error: CallError, *, alone: bool) -> Completion:
        """A failed answer, with the tokens that it took.

        Args:
            error: why there is none.
            alone: no other request was answered since this one was sent first.

        Raises:
            BackendError: nobody is there.
        """
        log.warning("%s gave no answer: %s", self.backend.where, error)
        self.failed[error.cause] += 1
        self._unanswered += error.cause in _DEAD
        nobody = error.cause == "connection" and alone
        if nobody or self._unanswered >= IN_VAIN:
            many = "" if nobody else f" to {IN_VAIN} requests in a row"
            raise BackendError(
                f"no answer{many}: {error}",
                where=self.backend.where,
                remedy="what was answered before is kept; start again when the server is there"
                if self.answers
                else "is the server there, and is base_url its address?",
            )
        return Completion(
            text="",
            finish="error",
            prompt_tokens=error.prompt_tokens,
            completion_tokens=error.completion_tokens,
        )

    def _check_count(self, reply: Reply) -> None:
        if self._counted and not reply.prompt_tokens and not reply.completion_tokens:
            self._counted = False
            log.warning(
                "%s does not say how many tokens it used: they count as 0", self.backend.where
            )

    def _key(self, prompt: Prompt) -> str:
        """Hash of everything that decides an answer."""
        content = {
            "model": self.backend.model,
            "server": self.backend.where,
            "messages": [dict(m) for m in prompt.messages],
            "prefill": prompt.prefill,
            "sampling": self.sampling.as_dict(),
            "extra": dict(self.backend.extra),
            "reasoning_fields": list(self.backend.reasoning_fields),
        }
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def remote_generator(
    model: str,
    *,
    answers: str | Path | None = None,
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    **settings: Any,
) -> RemoteGenerator:
    """What writes the answers of a model behind a server.

    Args:
        model: its name there.
        answers: a file that keeps answers.
        max_new_tokens: most tokens of an answer, reasoning included; 2,048 when None.
        temperature: 0 is greedy.
        top_p: nucleus, in (0, 1].
        settings: those of ``EndpointSettings``.

    Raises:
        RecipeError: an unknown or wrong setting, or no key.
        DataError: the file of answers cannot be read.
    """
    where = f"endpoint of {model!r}"
    right = {
        "max_new_tokens": max_new_tokens is None or _number(max_new_tokens, whole=True) >= 1,
        "temperature": _number(temperature) >= 0,
        "top_p": 0 < _number(top_p) <= 1,
    }
    if wrong := [name for name, good in right.items() if not good]:
        raise RecipeError(f"{wrong[0]} is out of range or no number", where=where)
    known = [f.name for f in fields(EndpointSettings) if f.name not in ("model", "sampling")]
    for name in settings:
        if name not in known:
            expected = ", ".join([*right, *known])
            near = nearest(name, [*right, *known])
            raise RecipeError(
                f"unknown parameter {name!r}", where=where, expected=expected, remedy=near
            )
    sampling = Sampling(
        temperature=temperature, top_p=top_p, max_tokens=max_new_tokens or MAX_NEW_TOKENS
    )
    backend = EndpointGenerator(model=model, sampling=sampling, **settings)
    kept = None if answers is None else Answers(Path(answers))
    return RemoteGenerator(backend, answers=kept)


def remote_asker(
    fmt: Format,
    generator: RemoteGenerator,
    *,
    tokens: TokenCounter | None = None,
    readout: str = "auto",
    reasoning: str = "write",
    rules: Rules = NO_RULES,
) -> TextAsker | RemoteLabelAsker:
    """What answers views through a server.

    Args:
        fmt: a text format.
        generator: what writes.
        tokens: what counts the document budget; a guess when None.
        readout: ``decoded``, or ``score`` where labels can be told by their first token and the
            server gives log-probabilities.
        reasoning: ``skip`` begins the answer, which the server must be able to continue.
        rules: what answers keep to, which takes vLLM's server.

    Raises:
        RecipeError: a server cannot be asked so.
    """
    where = f"endpoint of {generator.backend.model!r}"
    if kind(fmt) != "text":
        raise RecipeError(
            f"format {fmt.spec.name!r} is read off a model's weights",
            where=where,
            expected="a format that writes: permutation, scores, pointwise, choice, pair …",
        )
    how = check_reasoning(fmt, reasoning, where=f"{where}: reasoning")
    wanted = readout_for(fmt, readout, where=f"{where}: readout", reasoning=how)
    if wanted not in ("decoded", "score"):
        raise RecipeError(
            f"readout {wanted!r} needs the model's weights",
            where=where,
            expected="decoded, or score with a server that gives log-probabilities",
        )
    counter = tokens or Rough()
    kept = rules.check(fmt, reasoning=how)
    own = Prompt(messages=(), prefill=getattr(fmt, "prefill", ""))
    if wanted == "score":
        if fmt.spec.name == "pointwise":  # of others they depend on what is shown
            check_labels(fmt.choices(ANY), where=f"{where}: readout")  # type: ignore[attr-defined]
        _check_prefill(generator, label_lead(fmt, ANY, how) or "", where)
        sampling = Sampling(max_tokens=1, logprobs=ALTERNATIVES)
        return RemoteLabelAsker(fmt, generator.drawing(sampling), counter, reasoning=how)
    if not kept:  # what keeps to rules needs a server that goes on from an answer in any case
        _check_prefill(generator, begun(fmt, own, how).prefill, where)
    return TextAsker(fmt, generator, counter, reasoning=how, rules=kept)


def _check_prefill(generator: RemoteGenerator, prefill: str, where: str) -> None:
    """Refuse prompts that begin the answer where the server does not continue it.

    Raises:
        RecipeError: it is not said to.
    """
    if prefill and not generator.backend.continue_prefill:
        raise RecipeError(
            "the prompt begins the answer, which most servers do not continue",
            where=where,
            expected="a format without prefill, and reasoning: write",
            remedy="set continue_prefill: true for a server that does (vLLM, SGLang)",
        )


def _number(value: object, *, whole: bool = False) -> float:
    """The value as a number; -1 where it is none."""
    kinds = int if whole else (int, float)
    return float(value) if isinstance(value, kinds) and not isinstance(value, bool) else -1.0  # type: ignore[arg-type]
