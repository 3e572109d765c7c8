"""Code on a card for scorers: an encoder with a head, asked with plain transformers.

Contract: the code gives the scores that rank_rl gives for the example. Pair scorers and listwise
embeddings combine documents in ways that no short code shows; then the card says so.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rank_rl import formats
from rank_rl.models.scorers.texts import TextTokens

if TYPE_CHECKING:
    from rank_rl.hub.usage import Published

NEEDS_RANK_RL = (
    "No snippet: {what}, which rank_rl does. Plain transformers loads the encoder of this "
    "repository (`AutoModel`), not its scores."
)
_POOLED = {"cls": "states[0]", "last": "states[-1]", "mean": "states.mean(0)"}


def scorer_snippet(published: Published) -> list[str]:
    """Markdown lines that score the example with a scorer, or say why there are none."""
    fmt: Any = formats.make(published.contract.format)
    if published.base:
        return [NEEDS_RANK_RL.format(what="the adapter is put under a head of its own")]
    if fmt.scorer == "pair_scores":
        return [NEEDS_RANK_RL.format(what="documents are compared two by two")]
    if fmt.scorer == "embedding" and fmt.params.listwise:
        return [NEEDS_RANK_RL.format(what="the query is embedded together with documents")]
    size = 2 if fmt.scorer == "cross_encoder" else 1
    encode = _encode(published.tokenizer, size)
    if encode is None:
        return [NEEDS_RANK_RL.format(what="texts are joined with tokens of its own")]
    query, documents = fmt.texts(published.example.views[0])
    head = [
        f"query = {json.dumps(query, ensure_ascii=False)}",
        "documents = [",
        *(f"    {json.dumps(text, ensure_ascii=False)}," for text in documents),
        "]",
        "",
        "",
        *encode,
        "",
        "",
    ]
    body = _crossed(published, fmt) if size == 2 else _embedded(fmt)
    code = [*_load(published, fmt), "", *head, *body]
    return [
        f"Long documents have to be cut to {fmt.spec.doc_tokens} tokens first, as rank_rl does.",
        "",
        "```python",
        *code,
        "```",
    ]


def _load(published: Published, fmt: Any) -> list[str]:
    whole = fmt.scorer == "cross_encoder" and not published.own_head
    auto = "AutoModelForSequenceClassification" if whole else "AutoModel"
    needs = published.own_head
    lines = ["import torch"]
    lines += ["from huggingface_hub import hf_hub_download"] if needs else []
    lines += ["from safetensors.torch import load_file"] if needs else []
    lines += [f"from transformers import {auto}, AutoTokenizer", ""]
    lines += [f"tokenizer = AutoTokenizer.from_pretrained({published.arguments})"]
    lines += [f"model = {auto}.from_pretrained({published.arguments}).eval()"]
    if needs:
        pinned = f", revision={published.revision!r}" if published.revision else ""
        where = f'hf_hub_download({json.dumps(published.name)}, "scorer.safetensors"{pinned})'
        lines += [f"head = load_file({where})"]
    return lines


def _crossed(published: Published, fmt: Any) -> list[str]:
    lines = ["for document in documents:", "    with torch.no_grad():"]
    if not published.own_head:
        return [*lines, "        print(model(**encode(query, document)).logits[0, 0].item())"]
    return [
        *lines,
        "        states = model(**encode(query, document)).last_hidden_state[0].float()",
        f"    pooled = {_POOLED[fmt.params.pooling]}",
        '    print((head["head.weight"].float() @ pooled + head["head.bias"].float()).item())',
    ]


def _embedded(fmt: Any) -> list[str]:
    return [
        "def embed(text):",
        "    with torch.no_grad():",
        "        states = model(**encode(text)).last_hidden_state[0].float()",
        f"    return torch.nn.functional.normalize({_POOLED[fmt.params.pooling]}, dim=-1)",
        "",
        "",
        "for document in documents:",
        f"    print((embed(query) @ embed(document)).item() / {fmt.params.temperature!r})",
    ]


def _encode(tokenizer: Any, size: int) -> list[str] | None:
    """A function that makes what the scorer reads of one text or two; None if there is none."""
    texts = ["who was born", "in this town"][:size]
    tokens = TextTokens(tokenizer)
    row = tokens.rows(texts)[0] if size == 1 else tokens.pairs(texts[0], texts[1:])[0]
    plain = tokenizer(*texts)
    names = ", ".join(["text", "other"][:size])
    if list(plain["input_ids"]) == list(row.ids):
        return [f"def encode({names}):", f'    return tokenizer({names}, return_tensors="pt")']
    if row.types:
        return None
    frame = tokens.frames[size]
    parts = [f"*{list(frame.before)}", "*ids[0]"]
    parts += [f"*{list(frame.between)}", "*ids[1]"] if size == 2 else []
    parts = [p for p in (*parts, f"*{list(frame.after)}") if p != "*[]"]
    return [
        f"def encode({names}):",
        f"    texts = [{names}]",
        '    ids = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]',
        f'    return {{"input_ids": torch.tensor([[{", ".join(parts)}]])}}',
    ]
