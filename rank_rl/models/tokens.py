"""Chats to token ids and back: one place that agrees with the chat template of the model.

Contract: ordinary text gives exactly the ids of ``tokenizer.apply_chat_template``; text inside a
message that spells a control token (``<|im_end|>``) stays ordinary text and can never end a turn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rank_rl.records import Message, Prompt, SlotPrompt

_SLOT = "RankRlContent{}OfThisChat"
_REMEMBERED = 4096


class Tokens:
    """Encoder of plain texts for one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        added = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
        unique = dict.fromkeys([*tokenizer.all_special_tokens, *added])
        self.special_tokens: tuple[str, ...] = tuple(t for t in unique if t.strip())
        longest_first = sorted(self.special_tokens, key=len, reverse=True)
        self._known: dict[str, tuple[int, ...]] = {}
        self._special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; control tokens spelled in it are ordinary characters."""
        ids = self._known.get(text)
        return list(self.prime([text])[0] if ids is None else ids)

    def prime(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Encode texts in one go, which is several times faster, and remember their ids.

        Fitting a view asks for the same texts again and again; a few thousand are remembered.
        """
        known = {text: ids for text in texts if (ids := self._known.get(text)) is not None}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            rows = self.tokenizer(new, add_special_tokens=False, split_special_tokens=True)
            known.update(zip(new, map(tuple, rows["input_ids"]), strict=True))
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            self._known.update(known)
        return [known[text] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, control tokens left out."""
        text = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)


class ChatTokens(Tokens):
    """Token counter and encoder of chats; implements ``formats.budget.TokenCounter``."""

    def count_prompt(self, prompt: Prompt) -> int:
        """Number of tokens of a prompt with its chat template and prefill."""
        return len(self.encode_prompt(prompt))

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Ids of the chat up to where the model goes on: messages, assistant turn, prefill."""
        return self.encode_prompts([prompt])[0]

    def encode_prompts(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Ids of several prompts, tokenised in one go."""
        plain = [i for i, p in enumerate(prompts) if not self._imitates(p)]
        ids: list[list[int]] = [[] for _ in prompts]
        if plain:
            texts = [self._render(prompts[i].messages) + prompts[i].prefill for i in plain]
            encoded = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
            for i, row in zip(plain, encoded, strict=True):
                ids[i] = list(row)
        for i in set(range(len(prompts))).difference(plain):
            ids[i] = self._encode_guarded(prompts[i])
        return ids

    def encode_slots(self, prompt: SlotPrompt) -> tuple[list[int], list[list[int]]]:
        """A slot prompt as a shared prefix and one segment a document, ending at its slot.

        ``prefix + segments[i]`` equals :meth:`encode_prompt` of the chat that shows document
        ``i`` alone. The prefix is the longest run of ids that all documents share, so it may
        reach into the bodies; every segment keeps at least one id.
        """
        rows = self.encode_prompts([slot_prompt(prompt, i) for i in range(len(prompt.bodies))])
        if not rows:
            return [], []
        limit = min(map(len, rows)) - 1
        first, last = min(rows), max(rows)
        size = next((k for k in range(limit) if first[k] != last[k]), limit)
        return rows[0][:size], [row[size:] for row in rows]

    def _imitates(self, prompt: Prompt) -> bool:
        texts = [*(m["content"] for m in prompt.messages), prompt.prefill]
        return any(self._special.search(text) for text in texts)

    def _render(self, messages: Sequence[Message]) -> str:
        text = self.tokenizer.apply_chat_template(
            [dict(m) for m in messages], tokenize=False, add_generation_prompt=True
        )
        return str(text)

    def _encode_guarded(self, prompt: Prompt) -> list[int]:
        """Encode a chat whose contents imitate control tokens: only the template's own count."""
        contents = {_SLOT.format(i): m["content"] for i, m in enumerate(prompt.messages)}
        hollow = [{**m, "content": name} for m, name in zip(prompt.messages, contents, strict=True)]
        pieces = re.split("(" + "|".join(contents) + ")", self._render(hollow))
        ids: list[int] = []
        run = ""
        for piece in pieces:
            if piece in contents:
                run += contents[piece]
                continue
            start = 0
            for match in self._special.finditer(piece):
                ids += self.encode(run + piece[start : match.start()])
                ids.append(self.tokenizer.convert_tokens_to_ids(match.group()))
                run, start = "", match.end()
            run += piece[start:]
        return ids + self.encode(run + prompt.prefill)


def slot_prompt(prompt: SlotPrompt, index: int) -> Prompt:
    """The chat that shows one document of a slot prompt alone."""
    user = {"role": "user", "content": prompt.head + prompt.bodies[index]}
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return Prompt(messages=(*system, user), prefill=prompt.lead)
