"""Texts and pairs of texts to token ids, as an encoder reads them.

Contract: a pair is what the tokenizer makes of two texts; where it has no separator token (most
decoders) a line break stands between them and its end-of-sequence token behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rank_rl.models.tokens import Tokens
from rank_rl.records import Prompt

UNBOUNDED = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sequence.

    Attributes:
        ids: token ids, with the tokenizer's special ones.
        types: segment of each token, where the model wants them; else empty.
        matches: positions of document tokens that the query has too; only where asked for.
    """

    ids: tuple[int, ...]
    types: tuple[int, ...] = ()
    matches: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The special tokens around one text or two, and the segment that each belongs to."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    types: tuple[int, int, int, int, int]

    @property
    def added(self) -> int:
        """How many tokens a frame adds."""
        return len(self.before) + len(self.between) + len(self.after)

    @classmethod
    def of(cls, tokenizer: Any, texts: Sequence[str], line_break: Sequence[int]) -> Frame:
        """The frame that a tokenizer puts around texts, learnt from two short ones."""
        made = tokenizer(*texts)
        ids, places = list(made["input_ids"]), made.sequence_ids()
        types = list(made.get("token_type_ids") or [0] * len(ids))
        known = [i for i, place in enumerate(places) if place is not None]
        first = [i for i in known if places[i] == 0]
        start, end = first[0], first[-1] + 1
        second = [i for i in known if places[i] == 1] or [end]
        stop = known[-1] + 1
        end_token = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        between = tuple(ids[end : second[0]]) if len(texts) > 1 else ()
        if len(texts) > 1 and not between:
            between = tuple(line_break)
        return cls(
            before=tuple(ids[:start]),
            between=between,
            after=tuple(ids[stop:]) or end_token,
            types=(types[0], types[start], types[min(end, len(ids) - 1)], types[stop - 1],
                   types[-1]),
        )  # fmt: skip


class TextTokens(Tokens):
    """Token counter and encoder of plain texts; implements ``formats.budget.TokenCounter``.

    Args:
        tokenizer: of transformers, a fast one.
        window: most tokens that the model reads, where known; the tokenizer's own limit counts too.
    """

    def __init__(self, tokenizer: Any, window: int | None = None) -> None:
        super().__init__(tokenizer)
        self.window = min(tokenizer.model_max_length or UNBOUNDED, window or UNBOUNDED, UNBOUNDED)
        self.typed = "token_type_ids" in tokenizer.model_input_names
        line_break = self.encode("\n")
        self.frames = {n: Frame.of(tokenizer, ["a", "a"][:n], line_break) for n in (1, 2)}

    def count_prompt(self, prompt: Prompt) -> int:
        """Tokens of a sequence of one text or of a pair, special ones included."""
        texts = [message["content"] for message in prompt.messages]
        return sum(len(self.encode(text)) for text in texts) + self.frames[len(texts)].added

    def rows(self, texts: Sequence[str]) -> list[Row]:
        """One sequence a text."""
        return [self.row(ids) for ids in self.prime(texts)]

    def row(self, ids: Sequence[int]) -> Row:
        """The sequence of a text's ids: with the special tokens around them."""
        frame = self.frames[1]
        made = (*frame.before, *ids, *frame.after)
        return Row(ids=made, types=(frame.types[1],) * len(made) if self.typed else ())

    def pairs(self, first: str, seconds: Sequence[str], *, match: bool = False) -> list[Row]:
        """One sequence for each second text behind the first; ``match`` finds equal tokens."""
        encoded = self.prime([first, *seconds])
        return [self._pair(encoded[0], ids, match) for ids in encoded[1:]]

    def _pair(self, first: tuple[int, ...], second: tuple[int, ...], match: bool) -> Row:
        frame = self.frames[2]
        pieces = (frame.before, first, frame.between, second, frame.after)
        start = len(frame.before) + len(first) + len(frame.between)
        known = set(first) if match else set()
        types = zip(frame.types, map(len, pieces), strict=True)
        return Row(
            ids=tuple(token for piece in pieces for token in piece),
            types=tuple(kind for kind, n in types for _ in range(n)) if self.typed else (),
            matches=tuple(start + i for i, token in enumerate(second) if token in known),
        )
