"""Labels of documents in prompts, and text made unable to imitate them.

Label schemes are numeric (``1``, ``2`` …) or alphabetic (``A`` … ``Z``, ``AA`` …), shown in square
brackets. ``neutralise`` is applied to every document, title, query and instruction: what looks
like a label, an answer tag or a control token of a chat template stays readable, not effective.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

from rank_rl.records import View

_ITEM = r"[\"']?-?(?:\d+|[A-Z]{1,2})[\"']?"
_BRACKETED = re.compile(rf"[\[［【〔](\s*{_ITEM}(?:\s*[,>;=]\s*{_ITEM})*\s*)[\]］】〕]")
_CONTROL_WORD = re.compile(r"[\[［](/?[A-Z][A-Z_]{2,30})[\]］]")
_PIPED = re.compile(r"[<＜][|｜]([^<>＜＞]{0,60}?)[|｜][>＞]")
_TAG_NAMES = (
    "think|thinking|thought|reasoning|answer|s|bos|eos|pad|unk|mask|sep|cls|system|user|assistant"
    "|start_of_turn|end_of_turn|start_of_image|end_of_text|endoftext|tool_call|tool_response"
)
_TAG = re.compile(
    rf"[<＜](\s*/?\s*(?:{_TAG_NAMES})(?:\s[^<>＜＞]{{0,40}})?\s*/?\s*)[>＞]", re.IGNORECASE
)
_SYS = re.compile(r"<<\s*(/?SYS)\s*>>")
# What switches the reasoning of some models (Qwen3, SmolLM3), standing alone.
_SWITCH = re.compile(r"(?<!\S)/((?:no_?)?think)(?!\S)", re.IGNORECASE)
_SUSPECT = re.compile(r"[<\[＜［【〔]")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\u200b\u202a-\u202e\u2060\ufeff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SOFTER = str.maketrans("<>[]{}＜＞［］【】〔〕|｜", "()()()()()()()  ")
# Look-alikes of the characters answers are made of; one for one, so that offsets stay valid.
_ASCII = dict(zip("［］【】〔〕＞›≻→，、：＂“”｛｝－−", '[][][]>>>>,,:"""{}--', strict=True))
_NON_ASCII = re.compile(r"[^\x00-\x7f]")


def numeric(count: int) -> tuple[str, ...]:
    """Labels ``1`` … ``count``."""
    return tuple(str(i + 1) for i in range(count))


def alphabetic(count: int) -> tuple[str, ...]:
    """Labels ``A`` … ``Z``, ``AA`` …, at most 702."""
    letters = [chr(ord("A") + i) for i in range(26)]
    pairs = (a + b for a in ["", *letters] for b in letters)
    return tuple(label for label, _ in zip(pairs, range(count), strict=False))


def relabel(view: View, labels: Iterable[str]) -> View:
    """The same documents in the same order under other labels."""
    return replace(view, labels=tuple(labels))


def id_pattern(labels: Sequence[str]) -> str:
    """Regular expression of what a model may write as a label of this scheme, right or wrong."""
    return _id_pattern(tuple(labels))


@lru_cache(maxsize=256)
def _id_pattern(labels: tuple[str, ...]) -> str:
    return r"-?[0-9]+" if all(label.isdecimal() for label in labels) else r"-?[0-9]+|[A-Za-z]{1,2}"


def ascii_form(text: str) -> str:
    """Full-width brackets, other separators and digits of other scripts as ASCII, one for one."""
    return text if text.isascii() else _NON_ASCII.sub(_ascii_character, text)


def _ascii_character(match: re.Match[str]) -> str:
    found = match[0]
    if found.isdecimal():
        return str(unicodedata.decimal(found))
    return _ASCII.get(found, found)


def neutralise(text: str, special_tokens: Sequence[str] = ()) -> str:
    """Make a text unable to imitate labels, tags and control tokens; twice changes no more.

    ``[3]`` becomes ``(3)``, ``</answer>`` ``(/answer)``, ``<|im_end|>`` ``(im_end)``, ``/no_think``
    ``(no_think)``. White space is folded to single spaces, so that nothing can begin a line, and
    invisible characters are removed.

    Args:
        text: what a document, title, query or instruction says.
        special_tokens: exact strings that the tokenizer at hand treats as control tokens, or that
            its chat template writes around a turn ("USER:").
    """
    # Joining pieces can make a new look-alike ("<<s>s>"), hence again until nothing changes.
    for _ in range(8):
        softer = _soften(text, special_tokens)
        if softer == text:
            break
        text = softer
    return text


def _soften(text: str, special_tokens: Sequence[str]) -> str:
    text = _SURROGATE.sub("\ufffd", _UNPRINTABLE.sub("", text))
    text = " ".join(text.split())
    if _SUSPECT.search(text):
        text = _PIPED.sub(r"(\1)", text)
        text = _TAG.sub(r"(\1)", text)
        text = _SYS.sub(r"(\1)", text)
        text = _CONTROL_WORD.sub(r"(\1)", text)
        text = _BRACKETED.sub(r"(\1)", text)
    if "/" in text:
        text = _SWITCH.sub(r"(\1)", text)
    for token in special_tokens:
        if token.strip() and token in text:
            text = text.replace(token, softened(token))
    return text


def softened(token: str) -> str:
    """A control token with its brackets softened, without its colon, or split by a space."""
    if token.endswith(":"):  # a turn that a template writes as plain text
        return token.strip("#: ") or " "
    softer = token.translate(_SOFTER)
    if softer != token:
        return softer
    return f"{token[0]} {token[1:]}" if len(token) > 1 else " "
