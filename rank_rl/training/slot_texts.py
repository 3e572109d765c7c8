"""What stands behind the label slots: ideal texts, for a language-model term in stage score.

Loss ``lm`` wants the cross-entropy of every document's ideal answer, its label and the reasoning
behind it (the joint objectives of ReasoningRank, 2410.05168, and RRADistill, 2410.18097). The texts
follow their slots in the same packed pass; as attention is causal, the slots read what they read
without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rank_rl.models.packing import Encoded, PackedBatch, pack
from rank_rl.training.followed import losses_of

if TYPE_CHECKING:
    import torch

    from rank_rl.formats.slots import SlotFormat
    from rank_rl.records import RankingTask, View
    from rank_rl.specs import RecipeSpec
    from rank_rl.training.common import Stage

NAME = "lm"
Written = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Which rows of a pass's (M, V) logits are what; N documents.

    Attributes:
        slots: (N,) rows of the label slots.
        targets: (M,) the token that each row should say.
        owner: (M,) document of each row.
    """

    slots: torch.Tensor
    targets: torch.Tensor
    owner: torch.Tensor

    def losses(self, logits: torch.Tensor) -> torch.Tensor:
        """(N,) cross-entropy of each document's text, the mean over its tokens."""
        from torch.nn.functional import cross_entropy

        owner = self.owner.to(logits.device)
        each = cross_entropy(logits, self.targets.to(logits.device), reduction="none")
        total = each.new_zeros(len(self.slots)).index_add(0, owner, each)
        return total / owner.bincount(minlength=len(self.slots))


def wanted(stage: str, spec: RecipeSpec) -> bool:
    """Whether the losses of a stage of this name learn texts."""
    return any(loss.name == NAME for loss in losses_of(stage, spec))


def ideal(stage: Stage, task: RankingTask, view: View) -> Written:
    """Token ids of the ideal answer of each document behind the lead, with the end of the turn.

    Reasoning is that of stage sft: as ``data.reasoning`` says.
    """
    from rank_rl.data.annotations import reasoning

    fmt: SlotFormat = stage.fmt  # type: ignore[assignment]
    known = None if stage.spec.data.reasoning == "none" else reasoning(task)
    grades = view.grades(task.grades or {})
    end = stage.tokens.tokenizer.eos_token_id
    made = []
    for docid in view.docids:
        note = known.note(docid) if known and fmt.mode == "reason" else ""
        made.append((*stage.tokens.encode(fmt.ideal_slot(grades[docid], note)), end))
    return tuple(made)


def longer(encoded: Encoded, written: Written) -> Encoded:
    """A group whose segments go on to the last token but one of their texts."""
    prefix, segments = encoded
    if not written:
        return encoded
    return prefix, [[*s, *text[:-1]] for s, text in zip(segments, written, strict=True)]


def pack_texts(groups: Sequence[tuple[Encoded, Written]]) -> tuple[PackedBatch, Texts]:
    """A packed sequence that is read from every slot to the end of its text."""
    import torch

    packed = pack([longer(encoded, written) for encoded, written in groups])
    texts = [text for _, written in groups for text in written]
    sizes = torch.tensor([len(text) for text in texts])
    first = sizes.cumsum(0) - sizes
    owner = torch.arange(len(texts)).repeat_interleave(sizes)
    place = torch.arange(len(owner)) - first[owner]
    read = (packed.slots - sizes + 1)[owner] + place
    targets = torch.tensor([token for text in texts for token in text])
    return replace(packed, slots=read), Texts(slots=first, targets=targets, owner=owner)


def split(logits: torch.Tensor, texts: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(N, V) logits at the slots and, where there are texts, their (N,) losses."""
    if texts is None:
        return logits, None
    return logits[texts.slots.to(logits.device)], texts.losses(logits)
