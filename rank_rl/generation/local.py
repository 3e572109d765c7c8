"""Text from a local transformers model: many prompts together, stopped where each is done.

Contract: one completion a prompt, in the order asked; randomness depends on the seed and the
prompt, never on global state; a prompt that leaves no room to answer gets ``finish="error"``.
Models that ``ragged`` agrees with decode in place (``writing``), all others by transformers' own
``generate`` (``stock``); the answers are the same.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch

from rank_rl.errors import ModelError
from rank_rl.generation import Progress, ragged, stock
from rank_rl.generation.endings import closed, finished
from rank_rl.generation.group_decode import Drawing
from rank_rl.generation.ruled import BEGUN, THOUGHT, Request, Rule, bare
from rank_rl.generation.stock import ends
from rank_rl.generation.writers import Free, Guided, Lookup, Rules, Thinking, Writer
from rank_rl.generation.writing import Job, Writing
from rank_rl.models.copies import known_of_models
from rank_rl.models.loading import Loaded, autocast_context, evaluating
from rank_rl.models.tokens import ChatTokens
from rank_rl.records import Completion, Prompt
from rank_rl.seeds import derive

log = logging.getLogger(__name__)
STOP = ("</answer>",)
BATCH_TOKENS = 32768
# Keys and values that rows may take on a CPU; transformers' own decoding copies them all the time.
CPU_CACHE_BYTES = 2 << 30
CPU_BATCH_TOKENS = 4096
# Tokens of prompts in one pass.
READ_TOKENS = {"cpu": 4096}
READ_MOST = 16384
# Whether a model can decode in place; found out once.
_IN_PLACE: WeakKeyDictionary[Any, bool] = known_of_models()


class LocalGenerator:
    """Greedy or sampled answers of a loaded model.

    Args:
        loaded: model and tokenizer.
        max_new_tokens: most tokens of an answer.
        temperature: 0 is greedy.
        top_p: nucleus (Holtzman et al., 2020), in (0, 1]; 1 keeps every token.
        seed: what sampling is derived from, together with the prompt.
        batch_size: most prompts at once. Long ones are fewer, so that their keys and values take
            no more memory than ``BATCH_TOKENS`` and ``CPU_CACHE_BYTES`` allow.

    ``stop`` holds the texts that end an answer; they stay in it.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        batch_size: int = 32,
    ) -> None:
        self.loaded = loaded
        self.tokens = ChatTokens(loaded.tokenizer)
        self.max_new_tokens = max_new_tokens
        self.temperature, self.top_p, self.seed = temperature, top_p, seed
        self.batch_size = batch_size
        self.stop = STOP

    @property
    def deterministic(self) -> bool:
        """Whether a prompt always gets the same answer."""
        return self.temperature == 0

    def shortened(self, max_new_tokens: int) -> LocalGenerator:
        """The same generator with shorter answers."""
        short = copy.copy(self)
        short.max_new_tokens = min(max_new_tokens, self.max_new_tokens)
        return short

    def on(self, loaded: Loaded) -> LocalGenerator:
        """The same generator for another model with the same tokens."""
        other = copy.copy(self)
        other.loaded, other.tokens = loaded, ChatTokens(loaded.tokenizer)
        return other

    def generate(
        self, prompts: Sequence[Prompt], *, progress: Progress | None = None
    ) -> list[Completion]:
        """Answer prompts; ``seconds`` of a completion is its share of the passes it was in."""
        return self.answer([Request(prompt=prompt) for prompt in prompts], progress=progress)

    def answer(
        self, requests: Sequence[Request], *, progress: Progress | None = None
    ) -> list[Completion]:
        """Answer prompts, each by its rule; see ``ruled.Request``.

        Raises:
            ModelError: rules for a model that cannot decode in place, or whose tokens do not allow
                them.
        """
        rows = self.tokens.encode_prompts([bare(request) for request in requests])
        return self._answer(rows, requests, progress)

    def generate_ids(
        self, rows: Sequence[Sequence[int]], *, progress: Progress | None = None
    ) -> list[Completion]:
        """Go on from token ids, one row a prompt."""
        free = Request(prompt=Prompt(messages=()))
        return self._answer([list(row) for row in rows], [free] * len(rows), progress)

    def closed(self, ids: Sequence[int]) -> bool:
        """Whether the end of an answer holds a text that ends it."""
        return closed(self.tokens, ids, self.stop)

    def _answer(
        self, rows: list[list[int]], requests: Sequence[Request], progress: Progress | None
    ) -> list[Completion]:
        done: dict[int, Completion] = {}
        report = progress or (lambda _: None)
        for i, row in enumerate(rows):
            if len(row) >= window(self.loaded):
                done[i] = Completion(text="", finish="error", prompt_tokens=len(row))
                report(1)
        left = [i for i in range(len(rows)) if i not in done]
        if left and in_place(self.loaded):
            done |= self._write({i: rows[i] for i in left}, requests, report)
        elif any(requests[i].rule for i in left):
            raise ModelError(
                "answers cannot be kept to a grammar",
                where=f"model {self.loaded.name!r}",
                expected="plain causal attention",
                remedy="write answers freely (constrained: false, no thinking_budget)",
            )
        elif left:
            done |= self._stock({i: rows[i] for i in left}, report)
        return [done[i] for i in range(len(rows))]

    @torch.no_grad()
    def _write(
        self, rows: dict[int, list[int]], requests: Sequence[Request], report: Progress
    ) -> dict[int, Completion]:
        """Decode in place, the longest prompts first."""
        order = sorted(rows, key=lambda i: (-len(rows[i]), i))
        jobs = [Job(prompt=rows[i], writer=self._writer(rows[i], requests[i])) for i in order]
        model = self.loaded.model
        longest = max(len(row) for row in rows.values()) + self.max_new_tokens
        with evaluating(model), autocast_context(self.loaded):
            Writing(
                model=model,
                jobs=jobs,
                rows=max(1, min(self.batch_size, cache_tokens(self.loaded) // longest)),
                read_tokens=read_tokens(self.loaded),
                done=lambda _: report(1),
            ).run()
        return {i: self._completed(job, requests[i]) for i, job in zip(order, jobs, strict=True)}

    def _writer(self, row: list[int], request: Request) -> Writer:
        room = window(self.loaded) - len(row)
        rule = request.rule
        last = frozenset(ends(self.loaded))
        if rule is None:
            lookup = Lookup(row, self.tokens.encode(request.hint)) if not self.temperature else None
            most = min(room, self.max_new_tokens)
            rules = Rules(most=most, ends=last, closed=self.closed, draw=self._draw(row, most))
            return Free(rules, lookup)
        if not rule.thinks:
            return self._guided(rule, rule.lead)
        most = self.max_new_tokens if rule.budget is None else rule.budget
        needed = len(self.tokens.encode(request.hint)) + 16  # the answer itself, and its tags
        most = max(1, min(most, room - needed))
        stop = (THOUGHT, BEGUN)
        rules = Rules(
            most=most,
            ends=last,
            closed=lambda ids: closed(self.tokens, ids, stop),
            draw=self._draw(row, most),
        )
        lookup = None if self.temperature else Lookup(row)
        return Thinking(
            Free(rules, lookup),
            lambda ids: self._guided(rule, rule.bridge(self.tokens.decode(ids))),
        )

    def _guided(self, rule: Rule, lead: str) -> Guided:
        stop = ends(self.loaded)[0]
        return Guided(rule.grammar, self.tokens, stop=stop, lead=lead, end=rule.end)

    def _draw(self, row: Sequence[int], most: int) -> Any:
        """What draws a token; None for the likeliest one."""
        if not self.temperature:
            return None
        drawing = Drawing(temperature=self.temperature, top_p=self.top_p)
        source = torch.Generator().manual_seed(derive(self.seed, *row) % 2**63)
        uniform = torch.rand(most, generator=source, dtype=torch.float64)
        return lambda logits, n: int(drawing(logits[None], uniform[n : n + 1])[0])

    def _completed(self, job: Job, request: Request) -> Completion:
        writer = job.writer
        if isinstance(writer, Free):
            found = finished(self.tokens, writer.ids, ends(self.loaded), self.stop)
        else:
            text = self._ruled_text(writer, request)
            found = Completion(text=text, completion_tokens=len(writer.ids))
        return replace(found, prompt_tokens=len(job.prompt), seconds=job.seconds)

    def _ruled_text(self, writer: Writer, request: Request) -> str:
        if isinstance(writer, Thinking) and writer.guided is not None and request.rule is not None:
            thought = self.tokens.decode(writer.free.ids)
            return request.rule.opening + thought + writer.guided.text
        text = writer.text if isinstance(writer, Guided) else ""
        return text.removeprefix(request.prompt.prefill)

    def _stock(self, rows: dict[int, list[int]], report: Progress) -> dict[int, Completion]:
        done: dict[int, Completion] = {}
        names = list(rows)
        lengths = [len(row) + self.max_new_tokens for row in rows.values()]
        for batch in batches(lengths, size=self.batch_size, loaded=self.loaded):
            part = [rows[names[i]] for i in batch]
            room = window(self.loaded) - max(map(len, part))
            started = time.perf_counter()
            answers = stock.generate(self, part, min(room, self.max_new_tokens))
            share = (time.perf_counter() - started) / len(part)
            for i, row, ids in zip(batch, part, answers, strict=True):
                found = finished(self.tokens, ids, ends(self.loaded), self.stop)
                done[names[i]] = replace(found, prompt_tokens=len(row), seconds=share)
            report(len(batch))
        return done


@torch.no_grad()
def in_place(loaded: Loaded) -> bool:
    """Whether a model decodes in place as it does by itself; tried once a model."""
    model = loaded.model
    if model not in _IN_PLACE:
        with evaluating(model):
            _IN_PLACE[model] = ragged.agrees(model)
        if not _IN_PLACE[model]:
            log.info("%s decodes by transformers' own generate", loaded.name)
    return _IN_PLACE[model]


def read_tokens(loaded: Loaded) -> int:
    """About how many tokens of prompts a pass reads."""
    return READ_TOKENS.get(next(loaded.model.parameters()).device.type, READ_MOST)


def cache_tokens(loaded: Loaded) -> int:
    """How many tokens of keys and values may be held at once."""
    model = loaded.model
    parameter = next(model.parameters())
    if parameter.device.type != "cpu":
        return BATCH_TOKENS
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    kinds = getattr(config, "num_key_value_heads", None) or heads
    size = 2 * config.num_hidden_layers * kinds * dim * parameter.element_size()
    return min(BATCH_TOKENS, CPU_CACHE_BYTES // size // loaded.share)


def window(loaded: Loaded) -> int:
    """How many tokens a model takes at most, prompt and answer."""
    return int(getattr(loaded.model.config, "max_position_embeddings", None) or 1 << 30)


def batches(lengths: Sequence[int], *, size: int, loaded: Loaded) -> Iterator[list[int]]:
    """Indices in batches, longest first, so that the largest one fails first if any does.

    Args:
        lengths: tokens of each row, prompt and answer.
        size: most rows a batch.
        loaded: the model, whose device says how many tokens a batch may hold.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    on_cpu = next(loaded.model.parameters()).device.type == "cpu"
    most = CPU_BATCH_TOKENS if on_cpu else BATCH_TOKENS
    start = 0
    while start < len(order):
        end = start + max(1, min(size, most // lengths[order[start]]))
        yield order[start:end]
        start = end
