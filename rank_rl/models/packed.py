"""Label slots read off a model: relevance scores for whole groups in one pass, no generation.

``PackedScorer`` turns views into ``SlotReading``s through the packed pass and writes explanations
for single documents on demand. Which words stand at a slot is the format's business, how several
groups share a sequence is ``packing``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rank_rl.errors import ModelError
from rank_rl.models.packed_attention import choose, slot_logits
from rank_rl.models.packing import PackedBatch, pack
from rank_rl.records import SlotPrompt, View

if TYPE_CHECKING:
    import torch

    from rank_rl.formats.slots import SlotFormat
    from rank_rl.models.loading import Loaded
    from rank_rl.models.tokens import ChatTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotReading:
    """What the model says at the slots of one view, one entry a document in the order shown.

    Attributes:
        logprobs: log-probability of every label under the whole vocabulary.
        scores: label logits weighted by their centred values (yes/no: logit(yes) - logit(no)).
        expected: expected label value under the probabilities of the labels alone.
        greedy: the token that greedy decoding would write at the slot.
        tokens: prompt tokens computed for this view.
    """

    logprobs: tuple[dict[str, float], ...]
    scores: tuple[float, ...]
    expected: tuple[float, ...]
    greedy: tuple[str, ...]
    tokens: int

    def best(self) -> list[str]:
        """The likeliest label of each document."""
        return [max(row, key=row.__getitem__) for row in self.logprobs]


def label_ids(tokens: ChatTokens, prompt: SlotPrompt) -> list[int]:
    """Token id of each label as it follows the prompt's lead.

    Raises:
        ModelError: a label is not a single token for this tokenizer, or two share one.
    """
    lead = tokens.encode(prompt.lead)
    ids = []
    for label in prompt.labels:
        both = tokens.encode(prompt.lead + label)
        if both[: len(lead)] != lead or len(both) != len(lead) + 1:
            raise ModelError(
                f"label {label!r} is not one token after {prompt.lead!r}",
                where="format.params.labels",
                expected="labels that this tokenizer keeps whole",
                remedy='try labels such as ["no", "yes"]',
            )
        ids.append(both[-1])
    if len(set(ids)) != len(ids):
        raise ModelError(f"labels {prompt.labels!r} share a token", where="format.params.labels")
    return ids


def label_weights(values: Sequence[float]) -> list[float]:
    """Label values centred and scaled to -1 … 1, the weights of the logits in a score."""
    middle = (max(values) + min(values)) / 2
    half = (max(values) - min(values)) / 2 or 1.0
    return [(value - middle) / half for value in values]


def batch_prompts(tokens: ChatTokens, prompts: Sequence[SlotPrompt]) -> PackedBatch:
    """Encode and pack several groups as one sequence."""
    encoded = [tokens.encode_slots(prompt) for prompt in prompts]
    return pack([prefix for prefix, _ in encoded], [segments for _, segments in encoded])


class PackedScorer:
    """Scores views by their label slots.

    Args:
        loaded: model and tokenizer.
        fmt: the format whose slots are read.
        batch_tokens: about how many tokens one packed sequence may hold.
    """

    def __init__(self, loaded: Loaded, fmt: SlotFormat, *, batch_tokens: int = 4000) -> None:
        from rank_rl.models.tokens import ChatTokens

        self.loaded, self.fmt, self.batch_tokens = loaded, fmt, batch_tokens
        self.tokens = ChatTokens(loaded.tokenizer)
        self.attention = choose(loaded.model)

    def score(
        self, views: Sequence[View], *, progress: Callable[[int], None] | None = None
    ) -> list[SlotReading]:
        """Read the slots of every view.

        Args:
            views: groups of any sizes; texts already cut to their budget.
            progress: called with the number of views finished since the last call.
        """
        import torch

        from rank_rl.models.loading import autocast_context

        model = self.loaded.model
        was_training = model.training
        model.eval()
        readings: list[SlotReading] = []
        try:
            with torch.no_grad(), autocast_context(self.loaded):
                for prompts, batch in self._batches(views):
                    logits = slot_logits(model, batch.to(model.device), self.attention).cpu()
                    readings += self._read(prompts, batch, logits)
                    if progress:
                        progress(len(prompts))
        finally:
            model.train(was_training)
        return readings

    def _batches(self, views: Sequence[View]) -> Iterator[tuple[list[SlotPrompt], PackedBatch]]:
        """Consecutive views, as many as fit ``batch_tokens``."""
        prompts: list[SlotPrompt] = []
        encoded: list[tuple[list[int], list[list[int]]]] = []
        held = 0
        for view in views:
            prompt = self.fmt.slots(view)
            prefix, segments = self.tokens.encode_slots(prompt)
            size = len(prefix) + sum(map(len, segments))
            if prompts and held + size > self.batch_tokens:
                yield prompts, pack([p for p, _ in encoded], [s for _, s in encoded])
                prompts, encoded, held = [], [], 0
            prompts.append(prompt)
            encoded.append((prefix, segments))
            held += size
        if prompts:
            yield prompts, pack([p for p, _ in encoded], [s for _, s in encoded])

    def _read(
        self, prompts: Sequence[SlotPrompt], batch: PackedBatch, logits: torch.Tensor
    ) -> list[SlotReading]:
        import torch

        logprobs = logits.log_softmax(-1)
        top = logits.argmax(-1)
        sizes = _tokens_by_owner(batch)
        readings = []
        for number, prompt in enumerate(prompts):
            rows = (batch.owner == number).nonzero()[:, 0]
            ids = label_ids(self.tokens, prompt)
            picked = logits[rows][:, ids]
            values = torch.tensor(prompt.values)
            readings.append(
                SlotReading(
                    logprobs=tuple(
                        dict(zip(prompt.labels, row, strict=True))
                        for row in logprobs[rows][:, ids].tolist()
                    ),
                    scores=tuple((picked @ torch.tensor(label_weights(prompt.values))).tolist()),
                    expected=tuple((picked.softmax(-1) @ values).tolist()),
                    greedy=tuple(self.tokens.decode([i]) for i in top[rows].tolist()),
                    tokens=sizes[number],
                )
            )
        return readings


def _tokens_by_owner(batch: PackedBatch) -> list[int]:
    """Tokens of each group: its prefix once plus all its segments."""
    import torch

    prefix = torch.zeros_like(batch.prefix_index).flatten()
    prefix[batch.prefix_flat] = 1
    segment = torch.zeros_like(batch.segment_index).flatten()
    segment[batch.segment_flat] = 1
    sizes = prefix.view(batch.prefix_index.shape).sum(1)
    sizes = sizes.index_add(0, batch.owner, segment.view(batch.segment_index.shape).sum(1))
    return [int(size) for size in sizes]


def explain(
    scorer: PackedScorer, view: View, reading: SlotReading, docids: Sequence[str], generator: Any
) -> dict[str, str]:
    """Answer texts (label, then reasoning) for some documents of a view that was scored.

    Args:
        scorer: the scorer whose format and tokenizer wrote the prompts.
        view: the documents shown.
        reading: the slots of that view; its likeliest label is what gets explained.
        docids: which documents to explain.
        generator: anything with ``generate(prompts) -> list[Completion]``.

    Returns:
        docid → label text followed by what the model wrote after it.
    """
    from rank_rl.records import Prompt

    labels = dict(zip(view.docids, reading.best(), strict=True))
    lead = scorer.fmt.slots(view).lead
    prompts = [
        Prompt(
            messages=tuple(scorer.fmt.slot_messages(view, view.docids.index(docid))),
            prefill=lead + labels[docid],
        )
        for docid in docids
    ]
    completions = generator.generate(prompts)
    return {
        docid: labels[docid] + completion.text
        for docid, completion in zip(docids, completions, strict=True)
    }
