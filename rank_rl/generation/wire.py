"""What a server's response to a chat completion means: a ``Reply`` or a ``CallError``.

Contract: no response raises anything but ``CallError``, whatever a server sends; words of the
server go through ``clean``, which takes secrets out, before they enter a message. Sending is left
to ``rank_rl.generation.endpoint``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from rank_rl.generation.calls import CallError, Reply
from rank_rl.records import Completion

FIRST = "first"  # the place of an answer's first token in ``Completion.slots``
# json.loads joins the pairs; a half that is left over could not be written to a file.
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# Gateways answer 403 also when a filter of theirs did not like one prompt.
MODERATION = re.compile("moderation|content[ _](policy|filter)|flagged|safety", re.IGNORECASE)


def rejection(
    response: Any, clean: Callable[[str], str], *, model: str = "", answered: bool = False
) -> CallError:
    """What an HTTP error status means for this call and for the others.

    Args:
        response: of the HTTP library.
        clean: takes secrets out of the server's words.
        model: the name asked for.
        answered: the same server has brought a completion before: key, address and model are
            right, so that a 403 or 404 is about this request, or passes.
    """
    status, text = response.status_code, response.text
    data = parsed(text)
    error = data.get("error", data) if isinstance(data, dict) else {}
    error = error if isinstance(error, dict) else {"message": error}
    words = error.get("message") or error.get("detail") or text
    detail = clean(f"{status} {words}")
    kinds = f"{error.get('code')} {error.get('type')}".lower()
    broke = "insufficient_quota" in text or "billing" in kinds
    if status == 402 or (status == 429 and broke):
        return CallError("no_credit", detail, retry=False, fatal=True)
    if status == 401 or (status == 403 and not answered and not MODERATION.search(text)):
        return CallError("unauthorised", detail, retry=False, fatal=True)
    if status == 404:
        named = "model" in str(words).lower() and bool(model) and model in str(words)
        unknown = data is not None and (named or "model_not_found" in kinds)
        if unknown or not answered:
            return CallError("no_model", detail, retry=False, fatal=True)
        return CallError("server_error", detail, after=retry_after(response.headers))
    if status == 429:
        return CallError("rate_limit", detail, after=retry_after(response.headers))
    if status >= 500 or status in (408, 409, 425):
        return CallError("server_error", detail, after=retry_after(response.headers))
    return CallError("refused", detail, retry=False)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: a number or a date; None when it says nothing."""
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
        seconds = (date - datetime.now(timezone.utc)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def parsed(text: str | bytes) -> Any:
    """The JSON value, or None when it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def payload(response: Any, clean: Callable[[str], str]) -> dict[str, Any]:
    """The JSON object of a response that the server calls a success.

    Raises:
        CallError: it is none, or an error in disguise.
    """
    kind = response.headers.get("content-type", "")
    data = parsed(response.content) if "json" in kind else None
    if not isinstance(data, dict):
        raise CallError("malformed", clean(f"{kind or 'no content type'}: {response.text[:1000]}"))
    if data.get("error"):
        words = clean(json.dumps(data["error"], ensure_ascii=False))
        raise CallError("server_error", words, usage=used(data))
    return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the object of a chat completion becomes a ``Reply``.

    ``thinking``: the answer was begun inside an open ``<think>``.
    """

    reasoning_fields: tuple[str, ...]
    thinking: bool = False

    def reply(self, data: Mapping[str, Any], *, most: int) -> Reply:
        """Every choice that can be read.

        Raises:
            CallError: there is none; the first one's failure, with the tokens it took.
        """
        choices, usage = data.get("choices"), used(data)
        if not isinstance(choices, list) or not choices:
            raise CallError("malformed", "the answer holds no choices", usage=usage)
        read = [self._choice(choice) for choice in choices[:most]]
        kept = [c for c in read if isinstance(c, Completion)]
        if not kept:
            failure = next(c for c in read if isinstance(c, CallError))
            failure.prompt_tokens, failure.completion_tokens = usage
            raise failure
        prompt, written = usage
        share, rest = divmod(written, len(kept))
        kept = [replace(c, completion_tokens=share) for c in kept]
        kept[0] = replace(kept[0], prompt_tokens=prompt, completion_tokens=share + rest)
        name = data.get("model")
        return Reply(
            completions=tuple(kept),
            prompt_tokens=prompt,
            completion_tokens=written,
            model=name if isinstance(name, str) else "",
        )

    def _choice(self, choice: Any) -> Completion | CallError:
        choice = choice if isinstance(choice, dict) else {}
        message, finish = choice.get("message"), choice.get("finish_reason")
        if finish == "content_filter":
            return CallError("refused", "content_filter", retry=False)
        if finish == "error" or choice.get("error"):
            return CallError("server_error", "the server broke off")
        if not isinstance(message, dict):
            return CallError("malformed", "a choice without a message")
        content = message.get("content") or ""
        reasoning = next((message[f] for f in self.reasoning_fields if message.get(f)), "")
        if not isinstance(content, str) or not isinstance(reasoning, str):
            return CallError("malformed", "content that is not text")
        if not content.strip() and not reasoning and finish != "length":
            if message.get("refusal"):
                return CallError("refused", "the model refused", retry=False)
            return CallError("empty", f"no content, finish {finish!r}"[:100])
        content, reasoning = (LONE_SURROGATE.sub("\ufffd", t) for t in (content, reasoning))
        text = content
        if reasoning and "<think>" not in content:
            start = "" if self.thinking else "<think>\n"
            text = f"{start}{reasoning}\n</think>\n{content}"
        return Completion(
            text=text,
            finish="length" if finish == "length" else "stop",
            reasoning=reasoning,
            logprob=total(choice.get("logprobs")),
            slots=first_token(choice.get("logprobs")),
        )


def used(data: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of the prompt and of the answers."""
    usage = data.get("usage")
    return count(usage, "prompt_tokens"), count(usage, "completion_tokens")


def count(usage: Any, name: str) -> int:
    """A number of tokens; 0 when the server does not say."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value > 0 else 0


def total(logprobs: Any) -> float | None:
    """Sum of the tokens' log-probabilities; None when the server gave none."""
    try:
        terms = [float(token["logprob"]) for token in logprobs["content"]]
    except (TypeError, KeyError, ValueError):
        return None
    return math.fsum(terms) if terms and all(map(math.isfinite, terms)) else None


def first_token(logprobs: Any) -> dict[str, dict[str, float]]:
    """What could have stood at the first token, with log-probabilities, under the name ``FIRST``.

    Empty where the server does not tell; alternatives with one text count as one.
    """
    try:
        told = logprobs["content"][0]["top_logprobs"]
        pairs = [(str(one["token"]), float(one["logprob"])) for one in told]
    except (TypeError, KeyError, IndexError, ValueError):
        return {}
    found: dict[str, float] = {}
    for token, logprob in pairs:
        if not math.isnan(logprob):
            token = LONE_SURROGATE.sub("\ufffd", token)
            found[token] = max(logprob, found.get(token, -math.inf))
    return {FIRST: found} if found else {}
