"""Cross-encoders that others published, as sentence-transformers loads them: a baseline to beat.

Encoders with a classification head, and causal models that say yes or no (Qwen3-Reranker) where
their folder brings the chat template that shows query and document. Contract: one score a pair,
before any activation, which would round the best ones to the same number; texts are cut to the
model's length and cuts are counted; only safetensors are read and no code of a model is run.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import Field

from rank_rl import formats
from rank_rl.errors import ModelError, RecipeError
from rank_rl.formats.base import Format, joined
from rank_rl.formats.budget import CutReport
from rank_rl.formats.inputs import shown
from rank_rl.formats.labels import neutralise
from rank_rl.generation.asking import Asked
from rank_rl.models import loading
from rank_rl.models.copies import twin
from rank_rl.models.quiet import file_bytes, quiet
from rank_rl.models.sources import Source, locate
from rank_rl.models.tokens import control_tokens
from rank_rl.records import Completion, Exchange, Outcome, Prompt, Scores, View
from rank_rl.registry import need
from rank_rl.specs import FormatSpec, ModelSpec

EXTRA, LIBRARY = "baselines", "sentence-transformers"
SETTINGS = {LIBRARY: f"{__name__}:CrossEncoderSettings"}
HEADS = ("ForSequenceClassification", "ForCausalLM")
ROUNDS = 8  # batches in one go: pairs of similar length share one
_LONGEST = 1 << 20
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEncoderSettings:
    """How pairs are scored.

    Args:
        max_length: most tokens of a pair; None is the model's own limit.
        batch_size: pairs a forward pass.
        prompt: what sentence-transformers shows before the pair (an instruction); "" is the
            model's own, if it has one.
        instructions: whether a query's own instruction is its prompt.
        dtype: of the weights; auto is bf16 on a GPU that has it and fp32 elsewhere.
    """

    max_length: Annotated[int, Field(ge=8)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 32
    prompt: str = ""
    instructions: bool = False
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairModel:
    """A cross-encoder of sentence-transformers with its name, revision and settings."""

    model: Any
    name: str
    revision: str
    settings: CrossEncoderSettings = field(default_factory=CrossEncoderSettings)

    @property
    def limit(self) -> int:
        """Most tokens of a pair."""
        return int(self.model.max_seq_length or _LONGEST)

    def lengths(self, pairs: Sequence[Pair], prompt: str | None) -> list[int]:
        """Tokens of each pair as the model is shown it, before anything is cut."""
        whole = {"text": {"truncation": False, "padding": False, "verbose": False}}
        plain = {**whole, "common": {"return_tensors": None}}
        features = self.model.preprocess(list(pairs), prompt=prompt, processing_kwargs=plain)
        return [len(row) for row in features["input_ids"]]

    def scores(self, pairs: Sequence[Pair], prompt: str | None) -> list[float]:
        """One score a pair, higher is better; pairs that are the same get the same one."""
        import torch

        unique = list(dict.fromkeys(pairs))  # padding would make them differ by rounding
        found = self.model.predict(
            unique,
            prompt=prompt,
            batch_size=self.settings.batch_size,
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
        )
        known = dict(zip(unique, map(float, found), strict=True))
        return [known[pair] for pair in pairs]


def load_cross_encoder(
    name: str,
    settings: CrossEncoderSettings | None = None,
    *,
    revision: str | None = None,
    device: str = "auto",
) -> PairModel:
    """Load a cross-encoder.

    Args:
        name: folder, Hub id, or ``pip:<package>``.
        settings: how pairs are scored.
        revision: Hub revision.
        device: a torch device or auto.

    Raises:
        ModelError: it cannot be found or loaded, or gives no single score a pair.
        RecipeError: sentence-transformers is not installed, or ``max_length`` is too long.
    """
    settings = settings or CrossEncoderSettings()
    library = need("sentence_transformers", EXTRA)
    source = locate(name, revision)
    _check_files(source)
    dtype = loading.weight_dtype(ModelSpec(name=name, dtype=settings.dtype))
    with _readable(name), quiet(file_bytes(source.path)):
        model = library.CrossEncoder(
            str(source.path),
            device=loading.place(device, train=False),
            max_length=settings.max_length,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": dtype},
        )
    found = PairModel(model=model, name=name, revision=source.revision, settings=settings)
    _check(found)
    return found


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """Whatever the library complains about, as one line."""
    from safetensors import SafetensorError

    known = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError)
    try:
        yield
    except (*known, SafetensorError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"cannot be used as a cross-encoder: {said[:300]}",
            where=f"model {name!r}",
            expected="a model that sentence-transformers' CrossEncoder loads from safetensors",
        ) from error


def _check_files(source: Source) -> None:
    """Refuse what would be loaded, but not as it was published.

    Raises:
        ModelError: an adapter, or a model without a head that scores.
    """
    from transformers import AutoConfig

    where = f"model {source.name!r}"
    if source.adapter is not None:
        raise ModelError("is an adapter", where=where, expected="a whole model")
    with _readable(source.name):
        config = AutoConfig.from_pretrained(str(source.path), trust_remote_code=False)
    named = " ".join(config.architectures or [])
    if not any(head in named for head in HEADS) and not (source.path / "modules.json").is_file():
        raise ModelError(
            f"has no head that scores ({named or 'no architecture named'})",
            where=where,
            expected="a published cross-encoder, or a causal model that says yes or no",
            remedy="kind scorer trains and loads heads of its own",
        )


def _check(found: PairModel) -> None:
    """Ask one pair, so that what cannot be asked fails before the ranking.

    Raises:
        ModelError: several scores a pair, labels that are no tokens, or a chat template that does
            not show query and document.
        RecipeError: ``max_length`` is more than the model has positions for.
    """
    where = f"model {found.name!r}"
    model = found.model
    if model.num_labels != 1:
        raise ModelError(f"gives {model.num_labels} scores a pair", where=where, expected="one")
    positions = getattr(model.config, "max_position_embeddings", None)
    if found.settings.max_length and positions and found.settings.max_length > positions:
        raise RecipeError(
            f"max_length {found.settings.max_length}",
            where=where,
            expected=f"at most {positions}, the positions of the model",
        )
    ids = [getattr(model[-1], f"{name}_token_id", None) for name in ("true", "false")]
    said = [i for i in ids if i is not None]  # a model may have one label only
    if len(set(said)) < len(said) or model.tokenizer.unk_token_id in said:
        raise ModelError(
            "its tokenizer has no tokens 'yes' and 'no' to tell apart",
            where=where,
            remedy="ask it as kind text with format pointwise, labels and readout score",
        )
    with _readable(found.name):
        found.scores([("a question", "a text")], found.settings.prompt or None)


class CrossEncoderAsker:
    """Scores of a cross-encoder; nothing can be unreadable.

    Views are pairs of the query and each document shown; as many views as fill several batches are
    asked together, since a view of strategy by_score with size 1 is one pair.
    """

    def __init__(self, model: PairModel) -> None:
        self.model = model
        self.fmt = pairs_format()
        self.tokens = _Tokens(model)
        self.cuts = CutReport()
        self.batch_size = ROUNDS * model.settings.batch_size
        self._special = control_tokens(model.model.tokenizer)

    def twin(self, count: int) -> CrossEncoderAsker:
        """Another one for another thread, with the same weights."""
        return CrossEncoderAsker(replace(self.model, model=twin(self.model.model)))

    def ask(self, views: Sequence[View]) -> list[Asked]:
        """One answer a view, in order; ``seconds`` is the share of the views' tokens."""
        answers: list[Asked] = []
        for prompt, group in groupby(views, key=self._prompt):
            answers += self._ask(list(group), prompt)
        return answers

    def _ask(self, views: Sequence[View], prompt: str | None) -> list[Asked]:
        shown_texts = [self._texts(view) for view in views]
        pairs = [(query, document) for query, rest in shown_texts for document in rest]
        read = self._cut(self.model.lengths(pairs, prompt))
        started = time.perf_counter()
        scores = self.model.scores(pairs, prompt)
        rate = (time.perf_counter() - started) / max(1, sum(read))
        answers, start = [], 0
        for view, (query, documents) in zip(views, shown_texts, strict=True):
            part = slice(start, start := start + len(documents))
            values = dict(zip(view.docids, scores[part], strict=True))
            exchange = Exchange(
                qid=view.query.qid,
                view=view,
                prompt=_record(prompt, query, documents),
                completion=Completion(
                    text="", prompt_tokens=sum(read[part]), seconds=rate * sum(read[part])
                ),
                outcome=Outcome(status="ok", answer=Scores(values=values)),
            )
            answers.append(Asked(exchange=exchange, statuses={}))
        return answers

    def _cut(self, lengths: Sequence[int]) -> list[int]:
        """Tokens that are read of pairs of these lengths; what is cut is counted."""
        read = [min(length, self.model.limit) for length in lengths]
        report = CutReport(
            documents=len(lengths),
            cut_documents=sum(a < b for a, b in zip(read, lengths, strict=True)),
            tokens_before=sum(lengths),
            tokens_after=sum(read),
        )
        self.cuts = self.cuts.merge(report)
        return read

    def _texts(self, view: View) -> tuple[str, list[str]]:
        """Query and documents, none of which can spell a token that ends the other."""
        titles = [(self._clean(c.title), self._clean(c.text)) for c in view.candidates]
        return self._clean(view.query.text), [joined(*parts) for parts in titles]

    def _prompt(self, view: View) -> str | None:
        own = view.query.instruction if self.model.settings.instructions else None
        return (own and self._clean(own)) or self.model.settings.prompt or None

    def _clean(self, text: str) -> str:
        return neutralise(text, self._special)


class _Tokens:
    """What the cost of ranking is foreseen with; implements ``formats.budget.TokenCounter``."""

    def __init__(self, model: PairModel) -> None:
        self.model = model

    def encode(self, text: str) -> list[int]:
        """Ids of a text alone."""
        return list(self.model.model.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: list[int]) -> str:
        """Text of ids."""
        return str(self.model.model.tokenizer.decode(ids))

    def count_prompt(self, prompt: Prompt) -> int:
        """Tokens of a pair as the model reads it."""
        query, document = (m["content"] for m in prompt.messages[-2:])
        own = self.model.settings.prompt or None
        return min(self.model.limit, *self.model.lengths([(query, document)], own))


def pairs_format() -> Format:
    """Query and document as they are: the model's own length is the only budget."""
    params = {"query_tokens": _LONGEST}
    spec = FormatSpec(
        name="cross_encoder", doc_tokens=_LONGEST, prompt_tokens=_LONGEST, params=params
    )
    return formats.make(spec)


def _record(prompt: str | None, query: str, documents: Sequence[str]) -> Prompt:
    """All that was read of a view, with the instruction before it."""
    said = shown(query, documents)
    before = ({"role": "instruction", "content": prompt},) if prompt else ()
    return Prompt(messages=(*before, *said.messages))
