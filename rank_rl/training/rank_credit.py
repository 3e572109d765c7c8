"""Rank-level credit at TRL's border: advantages of shape (B, T) in the place of (B,).

What is credited is decided in ``rewards.credit``; here completions are gathered over processes, and
characters become tokens. TRL's losses take one advantage a token as they are; a ratio of whole
sequences cannot carry it. Zhu et al., 2025 (Rank-GRPO, arXiv 2510.20150).
"""

from __future__ import annotations

import functools
import os.path
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rank_rl.data.rows import view_of
from rank_rl.errors import RecipeError
from rank_rl.records import Completion
from rank_rl.rewards.adapter import TrlRewards
from rank_rl.rewards.credit import (
    Credit,
    Earned,
    assign,
    char_ends,
    credited,
    earned,
    token_places,
)
from rank_rl.specs import RecipeSpec

if TYPE_CHECKING:
    import torch

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def check(spec: RecipeSpec, fmt: Any) -> None:
    """Refuse what rank-level credit cannot do.

    Raises:
        RecipeError: a format whose answer is no permutation, or trainer arguments that leave one
            weight for a whole answer.
    """
    if not hasattr(fmt, "label_spans"):
        raise RecipeError(
            f"value rank with format {spec.format.name!r}, whose answers have no places",
            where="grpo.credit",
            expected="answer, or format permutation",
        )
    for key, value in (
        ("importance_sampling_level", "sequence"),
        ("multi_objective_aggregation", "normalize_then_sum"),
    ):
        if spec.training.get(key) == value:
            raise RecipeError(
                f"value {value}",
                where=f"training.{key}",
                expected="another one, or grpo.credit: answer",
            )


class RankCredit:
    """Turns the advantages of a batch into those of its tokens.

    Args:
        adapter: what judged the batch.
        tokenizer: what wrote its text.

    Raises:
        RecipeError: no reward can be divided among places.
    """

    def __init__(self, adapter: TrlRewards, tokenizer: Any) -> None:
        self.adapter, self.tokenizer = adapter, tokenizer
        self.parts = credited(adapter.composite)

    def __call__(
        self, trainer: Any, rows: Sequence[Mapping[str, Any]], batch: Mapping[str, Any]
    ) -> torch.Tensor:
        """(B, T) advantages of the tokens of this process's completions.

        Args:
            trainer: its group size, scale and processes.
            rows: of the completions, as they were judged.
            batch: what TRL made of them: ``advantages`` (B,), ``completion_ids`` and
                ``completion_mask`` (B, T). Groups may be spread over processes.
        """
        from accelerate.utils import gather_object

        own = batch["advantages"]
        everyone = gather_object([self._earned(i, row) for i, row in enumerate(rows)])
        given = assign(
            everyone,
            trainer.accelerator.gather(own).tolist(),
            group_size=trainer.num_generations,
            scale=trainer.scale_rewards,
        )
        placed = sum(bool(answer.places) for answer in everyone) / len(everyone)
        trainer._metrics["train"]["credit/placed"].append(placed)
        start = trainer.accelerator.process_index * len(rows)
        advantages = own.new_zeros(batch["completion_ids"].shape)
        for i, row in enumerate(rows):
            ids = batch["completion_ids"][i][: int(batch["completion_mask"][i].sum())].tolist()
            values = self._tokens(given[start + i], i, row, ids)
            advantages[i, : len(values)] = own.new_tensor(values)
        return advantages

    def _earned(self, number: int, row: Mapping[str, Any]) -> Earned:
        texts, judged = self.adapter.last
        view, grades = view_of(row)
        one = judged[number]
        said = Completion(text=texts[number])
        return earned(self.parts, one.scored, one.outcome, view, grades, said)

    def _tokens(
        self, credit: Credit, number: int, row: Mapping[str, Any], ids: Sequence[int]
    ) -> list[float]:
        """The advantage of each token of a completion."""
        if not credit.places:
            return [credit.before] * len(ids)
        text = self.adapter.last[0][number]
        fmt: Any = self.adapter.fmt
        spans = fmt.label_spans(text, view_of(row)[0], prefill=row.get("prefill") or "")
        by_place = [*credit.places, credit.after, credit.before]  # the last one is place -1
        return [by_place[k] for k in token_places(spans, token_ends(self.tokenizer, ids, text))]


def token_ends(tokenizer: Any, ids: Sequence[int], text: str) -> list[int]:
    """How many characters of ``text`` are complete after each token that wrote it.

    Exact for tokens that hold a part of a character or several labels. The tokens' bytes are read
    off the vocabulary (byte-level BPE, or SentencePiece with byte fallback) where they give the
    text; otherwise every beginning of the ids is decoded, which is slow.

    Args:
        tokenizer: of transformers.
        ids: as the model wrote them; they need not be how the tokenizer would write the text.
        text: decoded without special tokens.
    """
    special = set(tokenizer.all_special_ids)
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    for read in (_byte_level, _sentence_piece):
        pieces = [
            b"" if i in special else read(token) for i, token in zip(ids, tokens, strict=True)
        ]
        found, ends = char_ends(pieces)
        if found == text:
            return ends
        if found == " " + text:  # SentencePiece drops the space that begins a text
            return [max(0, end - 1) for end in ends]
    decoded = (
        str(tokenizer.decode(list(ids[: i + 1]), skip_special_tokens=True)) for i in range(len(ids))
    )
    return [len(os.path.commonprefix([beginning, text])) for beginning in decoded]


def _byte_level(token: str) -> bytes:
    # What is no byte of the vocabulary gives another text, which the caller sees.
    return token.translate(_byte_values()).encode("latin-1", "replace")


def _sentence_piece(token: str) -> bytes:
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode("utf-8", "replace")


@functools.lru_cache
def _byte_values() -> dict[int, int]:
    """Byte of each character of a byte-level vocabulary (Radford et al., 2019)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    return {256 + i: byte for i, byte in enumerate(others)}
