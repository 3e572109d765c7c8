"""Label slots read off a model: relevance scores for whole groups in one pass, no generation.

``SlotLabels`` ties the words of a format to token ids, ``PackedScorer`` turns views into
``SlotReading``s through the packed pass. Which words stand at a slot is the format's business, how
several groups share a sequence is ``packing``'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rank_rl.errors import ModelError, RecipeError
from rank_rl.models.packed_attention import choose, slot_logits
from rank_rl.models.packing import Encoded, pack
from rank_rl.records import View

if TYPE_CHECKING:
    import torch

    from rank_rl.formats.slots import SlotFormat
    from rank_rl.models.loading import Loaded
    from rank_rl.models.tokens import ChatTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLabels:
    """The labels of a slot, worst first: their texts, what they are worth, their token ids.

    ``weights`` are the values centred on their mean and divided by half their range, so that a
    score does not change when all logits of a slot do, and yes/no gives logit(yes) - logit(no).
    """

    texts: tuple[str, ...]
    values: tuple[float, ...]
    ids: tuple[int, ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, fmt: SlotFormat, tokens: ChatTokens) -> SlotLabels:
        """The labels of a format for one tokenizer.

        Raises:
            ModelError: a label is not a single token for this tokenizer, or two share one.
            RecipeError: all labels are worth the same.
        """
        return cls(
            texts=fmt.labels,
            values=fmt.values,
            ids=tuple(label_ids(tokens, fmt.lead, fmt.labels)),
            weights=tuple(label_weights(fmt.values)),
        )

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """(n,) weighted sums of (n, K) label logits."""
        # No matrix product: autocast would round the scores to 8 bits and so tie them.
        return (logits * logits.new_tensor(self.weights)).sum(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotReading:
    """What the model says at the slots of one view, one entry a document in the order shown.

    Attributes:
        logprobs: log-probability of every label under the whole vocabulary.
        scores: label logits weighted by ``SlotLabels.weights``.
        expected: expected label value under the probabilities of the labels alone.
        greedy: what greedy decoding would write at the slot: a label, or another token's text.
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


def label_ids(tokens: ChatTokens, lead: str, labels: Sequence[str]) -> list[int]:
    """Token id of each label as it follows the lead.

    Raises:
        ModelError: a label is not a single token for this tokenizer, or two share one.
    """
    where = "format.params.labels"
    stem = tokens.encode(lead)
    ids = []
    for label in labels:
        both = tokens.encode(lead + label)
        if both[:-1] != stem:
            raise ModelError(
                f"label {label!r} is not one token after {lead!r}",
                where=where,
                expected="labels that this tokenizer keeps whole",
                remedy='try labels such as ["no", "yes"]',
            )
        ids.append(both[-1])
    if len(set(ids)) != len(ids):
        raise ModelError(f"labels {list(labels)!r} share a token", where=where)
    return ids


def label_weights(values: Sequence[float]) -> list[float]:
    """Weights of the label logits in a score; they sum to 0 and span 2.

    Raises:
        RecipeError: all values are the same.
    """
    half = (max(values) - min(values)) / 2
    if not half > 0:
        raise RecipeError(
            f"values {list(values)!r}", where="format.params.values", expected="different values"
        )
    mean = sum(values) / len(values)
    return [(value - mean) / half for value in values]


class PackedScorer:
    """Scores views by their label slots.

    Args:
        loaded: model and tokenizer.
        fmt: the format whose slots are read.
        batch_tokens: about how many tokens one packed sequence may hold; a view is never divided.

    Raises:
        ModelError: labels of several tokens, or a model that packed passes do not fit.
    """

    def __init__(self, loaded: Loaded, fmt: SlotFormat, *, batch_tokens: int = 4000) -> None:
        from rank_rl.models.tokens import ChatTokens

        self.loaded, self.fmt, self.batch_tokens = loaded, fmt, batch_tokens
        self.tokens = ChatTokens(loaded.tokenizer)
        self.labels = SlotLabels.of(fmt, self.tokens)
        self.attention = choose(loaded.model)

    def score(self, views: Sequence[View]) -> list[SlotReading]:
        """Read the slots of every view.

        Args:
            views: groups of any sizes; texts already cut to their budget.
        """
        import torch

        from rank_rl.models.loading import autocast_context, evaluating

        model = self.loaded.model
        readings: list[SlotReading] = []
        with torch.no_grad(), evaluating(model), autocast_context(self.loaded):
            for groups in self._batches(views):
                batch = pack(groups).to(model.device)
                logits = slot_logits(model, batch, self.attention).cpu()
                rows = logits.split([len(segments) for _, segments in groups])
                readings += map(self._read, rows, groups)
        return readings

    def _batches(self, views: Sequence[View]) -> Iterator[list[Encoded]]:
        """Consecutive views, as many as fit ``batch_tokens``."""
        groups: list[Encoded] = []
        held = 0
        for view in views:
            group = self.tokens.encode_slots(self.fmt.slots(view))
            if groups and held + _size(group) > self.batch_tokens:
                yield groups
                groups, held = [], 0
            groups.append(group)
            held += _size(group)
        if groups:
            yield groups

    def _read(self, logits: torch.Tensor, group: Encoded) -> SlotReading:
        """The reading of one view from its (n, V) logits."""
        picked = logits[:, list(self.labels.ids)]
        logprobs = (picked - logits.logsumexp(-1, keepdim=True)).tolist()
        expected = (picked.softmax(-1) * picked.new_tensor(self.labels.values)).sum(-1)
        likeliest: list[int] = logits.argmax(-1).tolist()
        # A single token may decode without the space that its label has.
        known = dict(zip(self.labels.ids, self.labels.texts, strict=True))
        return SlotReading(
            logprobs=tuple(dict(zip(self.labels.texts, row, strict=True)) for row in logprobs),
            scores=tuple(self.labels.scores(picked).tolist()),
            expected=tuple(expected.tolist()),
            greedy=tuple(known.get(i) or self.tokens.decode([i]) for i in likeliest),
            tokens=_size(group),
        )


def _size(group: Encoded) -> int:
    """Tokens of a group: its prefix once and all its segments."""
    prefix, segments = group
    return len(prefix) + sum(map(len, segments))
