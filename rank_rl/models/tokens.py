"""Chats to token ids and back: one place that agrees with the chat template of the model.

Contract: ordinary text gives exactly the ids of ``tokenizer.apply_chat_template``; text inside a
message that spells a control token (``<|im_end|>``) stays ordinary text and can never end a turn.
A template that takes no system message gets its text at the beginning of the user's.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from rank_rl.errors import ModelError
from rank_rl.formats.labels import softened
from rank_rl.records import Message, Prompt, SlotPrompt

_HOLLOW = "RankRlContent{}OfThisChat"
_REMEMBERED, _CHARACTERS = 4096, 1 << 22  # texts, and characters of them, whose ids are kept
# What breaks up an imitation and is taken out of the ids again: characters that no text has.
_MARKS = ("\ue000", "\U000f0000", "\u0378")
_MARKER = re.compile(r"[<＜\[｜|{].*[>＞\]｜|}]", re.DOTALL)
# Turns of templates that write them as plain text: "USER:", "### Instruction:".
_TURN = re.compile(
    r"(?:#+ ?)?\b(?:user|human|assistant|system|instruction|input|response|model|ai|bot)\s?:",
    re.IGNORECASE,
)
# Whether control tokens are text is a switch of the tokenizer, which threads may share.
_ONE_AT_A_TIME = threading.RLock()


def control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """What texts must not spell: special tokens, and other added ones that its template writes.

    Such a one is ``<think>`` of Qwen3. A single character is none: a tokenizer may pad with an
    exclamation mark.
    """
    template = _template(tokenizer)
    added = tokenizer.added_tokens_decoder.values()
    special = [*tokenizer.all_special_tokens, *(t.content for t in added if t.special)]
    written = [t.content for t in added if t.content in template and _MARKER.fullmatch(t.content)]
    known = dict.fromkeys([*special, *written])
    return tuple(t for t in known if t.strip() and len(t) > 1)


def _template(tokenizer: Any) -> str:
    found = getattr(tokenizer, "chat_template", None) or ""
    return "\n".join(found.values()) if isinstance(found, Mapping) else str(found)


class Tokens:
    """Encoder of plain texts for one tokenizer; ``special_tokens`` are what none should spell."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.special_tokens = control_tokens(tokenizer)
        self._known: dict[str, tuple[int, ...]] = {}
        self._characters = 0
        special = sorted(_specials(tokenizer), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special)) or r"(?!)")
        ids = set(tokenizer.convert_tokens_to_ids(special))
        # Characters that a tokenizer does not know may give its unknown token anywhere.
        self._control = frozenset(ids - {None, tokenizer.unk_token_id})

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
            rows = self._encode_all(new, split=True)["input_ids"]
            plain = (self._plain(text, row) for text, row in zip(new, rows, strict=True))
            known.update(zip(new, plain, strict=True))
            self._characters += sum(map(len, new))
            if len(self._known) > _REMEMBERED or self._characters > _CHARACTERS:
                self._known.clear()
                self._characters = sum(map(len, known))
            self._known.update(known)
        return [known[text] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, control tokens left out."""
        text = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def _plain(self, text: str, ids: Sequence[int]) -> tuple[int, ...]:
        """The ids of a text without control tokens: a Unigram model has them as pieces too."""
        if self._control.isdisjoint(ids):
            return tuple(ids)
        for mark in (m for m in _MARKS if m not in text):
            found = self._without_mark(self._broken(text, mark), mark, split=True)
            if found is not None and self._control.isdisjoint(found):
                return tuple(found)
        return tuple(i for i in ids if i not in self._control)

    def _encode_all(self, texts: Sequence[str], *, split: bool = False, **options: Any) -> Any:
        """What the tokenizer makes of texts; ``split`` reads control tokens as text."""
        with _ONE_AT_A_TIME:
            return self.tokenizer(
                list(texts), add_special_tokens=False, split_special_tokens=split, **options
            )

    def _broken(self, text: str, mark: str) -> str:
        """The text with a mark inside everything that spells a control token."""
        while self._special.search(text):  # breaking one up may leave another that overlapped
            text = self._special.sub(lambda m: m[0][0] + mark + m[0][1:], text)
        return text

    def _without_mark(self, text: str, mark: str, *, split: bool = False) -> list[int] | None:
        """Ids without those of a mark; None where a token holds the mark and more."""
        made = self._encode_all([text], split=split, return_offsets_mapping=True)
        places = zip(made["input_ids"][0], made["offset_mapping"][0], strict=True)
        kept = [i for i, (a, b) in places if a == b or text[a:b].strip(mark)]
        decoded = str(self.tokenizer.decode(kept))
        whole = mark not in decoded and decoded.count("\ufffd") <= text.count("\ufffd")
        return kept if whole else None


class ChatTokens(Tokens):
    """Token counter and encoder of chats; implements ``formats.budget.TokenCounter``.

    ``special_tokens`` also names the turns that the template writes as plain text ("USER:").

    Raises:
        ModelError: the chat template cannot be applied to a system and a user message.
    """

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self._spelled = re.compile(self._special.pattern, re.IGNORECASE)
        self._turns: dict[tuple[str, ...], list[int]] = {}
        self._merges = False
        if _template(tokenizer):  # a scorer's has none, and is asked for no chat
            self._merges = self._takes_no_system()
            hollow = self._render(_hollow(("system", "user")))
            turns = [m[0] for m in _TURN.finditer(self._special.sub("\n", hollow))]
            self.special_tokens = tuple(dict.fromkeys([*self.special_tokens, *turns]))

    def count_prompt(self, prompt: Prompt) -> int:
        """Number of tokens of a prompt with its chat template and prefill."""
        return len(self.encode_prompt(prompt))

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Ids of the chat up to where the model goes on: messages, assistant turn, prefill."""
        return self.encode_prompts([prompt])[0]

    def encode_prompts(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Ids of several prompts, tokenised in one go."""
        plain = [i for i, p in enumerate(prompts) if not self._imitates(p)]
        ids: list[list[int] | None] = [None] * len(prompts)
        if plain:
            encoded = self._encode_all([self.text(prompts[i]) for i in plain])["input_ids"]
            for i, row in zip(plain, encoded, strict=True):
                # A normalising tokenizer may find a control token where its text is none.
                ids[i] = list(row) if self._keeps_turns(prompts[i], row) else None
        return [
            self._encode_guarded(prompt) if row is None else row
            for prompt, row in zip(prompts, ids, strict=True)
        ]

    def text(self, prompt: Prompt) -> str:
        """The chat as text, up to where the model goes on.

        Raises:
            ModelError: the template refuses the messages.
        """
        return self._render(prompt.messages) + prompt.prefill

    def messages(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """Messages as the chat template takes them: without a system message where it has none."""
        taken = [dict(m) for m in messages]
        if self._merges and len(taken) > 1 and taken[0]["role"] == "system":
            system, first, *rest = taken
            joined = f"{system['content']}\n\n{first['content']}"
            return [{**first, "content": joined}, *rest]
        return taken

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

    def _takes_no_system(self) -> bool:
        """Whether the template refuses a system message, or leaves its text out."""
        hollow = _hollow(("system", "user"))
        try:
            return hollow[0]["content"] not in self._render(hollow)
        except ModelError:
            self._merges = True
            self._render(hollow)
            return True

    def _render(self, messages: Sequence[Message]) -> str:
        from jinja2 import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(
                self.messages(messages), tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"chat template cannot be applied: {said[:200]}",
                where=f"model {self.tokenizer.name_or_path!r}",
                expected="a template of system, user and assistant messages",
            ) from error
        return str(text)

    def _keeps_turns(self, prompt: Prompt, ids: Sequence[int]) -> bool:
        """Whether the control tokens of a chat are those of its template."""
        roles = tuple(m["role"] for m in prompt.messages)
        if roles not in self._turns:
            (row,) = self._encode_all([self._render(_hollow(roles))])["input_ids"]
            self._turns[roles] = [i for i in row if i in self._control]
        return [i for i in ids if i in self._control] == self._turns[roles]

    def _encode_guarded(self, prompt: Prompt) -> list[int]:
        """Encode a chat whose contents imitate control tokens: only the template's own count.

        Each imitation is broken up by a character that is no token's, whose ids are taken out
        again, so that everything around it is encoded as it always is. Where a tokenizer does not
        keep that character apart, imitations are softened.
        """
        whole = "".join([*(m["content"] for m in prompt.messages), prompt.prefill])
        for mark in (m for m in _MARKS if m not in whole):
            broken = self.text(_changed(prompt, partial(self._broken, mark=mark)))
            ids = self._without_mark(broken, mark)
            if ids is not None and self._keeps_turns(prompt, ids):
                return ids
        softer = _changed(prompt, self._softened)
        return list(self._encode_all([self.text(softer)])["input_ids"][0])

    def _softened(self, text: str) -> str:
        folded = unicodedata.normalize("NFKC", text)
        for _ in range(8):
            folded = self._spelled.sub(lambda m: softened(m[0]), folded)
        return folded


def _specials(tokenizer: Any) -> tuple[str, ...]:
    """Texts that the tokenizer always reads as control tokens."""
    added = {t.content: t.special for t in tokenizer.added_tokens_decoder.values()}
    return tuple(t for t in control_tokens(tokenizer) if added.get(t, True))


def _hollow(roles: Sequence[str]) -> list[dict[str, str]]:
    """A chat with names in the place of texts."""
    return [{"role": role, "content": _HOLLOW.format(i)} for i, role in enumerate(roles)]


def _changed(prompt: Prompt, change: Callable[[str], str]) -> Prompt:
    messages = tuple({**m, "content": change(m["content"])} for m in prompt.messages)
    return Prompt(messages=messages, prefill=change(prompt.prefill))


def slot_prompt(prompt: SlotPrompt, index: int) -> Prompt:
    """The chat that shows one document of a slot prompt alone."""
    user = {"role": "user", "content": prompt.head + prompt.bodies[index]}
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return Prompt(messages=(*system, user), prefill=prompt.lead)
