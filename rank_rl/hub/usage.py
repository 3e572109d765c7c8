"""Code on a card that works for this checkpoint: with rank_rl, transformers and vLLM.

Contract: a snippet asks the card's example as rank_rl does and reads the answer as the checkpoint's
contract says (label logits, label log-probabilities, written text, a scorer's head). Where plain
transformers or vLLM cannot do that, the card says so and shows no code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rank_rl import formats
from rank_rl.formats.base import reads_first_stage
from rank_rl.hub.contract import PromptContract
from rank_rl.hub.example import DOCUMENTS, QUERY, Example
from rank_rl.hub.usage_scorer import scorer_snippet
from rank_rl.models.tokens import ChatTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a snippet has to know of a repository.

    Attributes:
        name, revision: Hub id, and the branch where it is not the default one.
        contract: how the checkpoint wants to be asked.
        example: the task in its format.
        tokenizer: its own.
        architecture: class of the weights, as the configuration names it.
        base: Hub id of the base that an adapter needs; empty for whole weights.
        rank: of the adapter.
        own_head: whether the head lies in ``scorer.safetensors``.
    """

    name: str
    revision: str
    contract: PromptContract
    example: Example
    tokenizer: Any
    architecture: str = ""
    base: str = ""
    rank: int = 0
    own_head: bool = False

    @property
    def arguments(self) -> str:
        """What ``from_pretrained`` is given."""
        return json.dumps(self.name) + self.pinned

    @property
    def pinned(self) -> str:
        """The argument that names the branch, where it is not the default one."""
        return f", revision={json.dumps(self.revision)}" if self.revision else ""

    @property
    def start(self) -> str:
        """What the assistant's turn begins with."""
        return self.example.prompts[0].prefill

    @property
    def kind(self) -> str:
        """How its format is answered: text, slots or scorer."""
        return formats.kind(formats.make(self.contract.format))

    @property
    def reads_labels(self) -> bool:
        """Whether labels are read off a single pass, and nothing is generated."""
        return self.kind == "slots" or self.contract.readout == "score"


def section(published: Published) -> list[str]:
    """Markdown lines of how to use a checkpoint."""
    lines = ["With rank_rl:", "", *_with_rank_rl(published)]
    if published.kind == "scorer":
        lines += ["", "With plain transformers:", "", *scorer_snippet(published)]
        return [*lines, "", "vLLM does not load the weights that make this model's scores.", ""]
    lines += ["", *_said(published), "", *fenced(_prompts(published))]
    lines += ["", "With plain transformers:", "", *fenced(_transformers(published))]
    return [*lines, "", *_vllm(published), ""]


def fenced(lines: Sequence[str], language: str = "python") -> list[str]:
    """Lines as a block of code, whatever they quote."""
    fence = "````" if any("```" in line for line in lines) else "```"
    return [f"{fence}{language}", *lines, fence]


def _with_rank_rl(published: Published) -> list[str]:
    fmt = formats.make(published.contract.format)
    first = ', first_stage="given"' if reads_first_stage(fmt) else ""
    documents = [_document(*one, scored=fmt.spec.first_stage_hint == "score") for one in DOCUMENTS]
    code = [
        "from rank_rl import Reranker",
        "",
        f"reranker = Reranker.from_pretrained({published.arguments})",
        f"query = {json.dumps(QUERY)}",
        "documents = [",
        *(f"    {document}," for document in documents),
        "]",
        f"for result in reranker.rank(query, documents{first}):",
        "    print(result.rank, round(result.score, 3), result.text)",
    ]
    told = [
        "",
        "Its prompts tell the first stage's order: `given` says that the documents come in it; "
        "`auto` lets BM25 order documents that have no score of a first stage.",
    ]
    shell = f'rank-rl rerank --model {published.name} --query "…" --documents documents.jsonl'
    needs_shell = [] if published.revision else ["", *fenced([shell], "bash")]
    return [*fenced(code), *(told if first else []), *needs_shell]


def _document(title: str, text: str, score: float, *, scored: bool) -> str:
    whole = f"{title}. {text}"
    if scored:
        return json.dumps({"text": whole, "score": score}, ensure_ascii=False)
    return json.dumps(whole, ensure_ascii=False)


def _said(published: Published) -> list[str]:
    contract = published.contract
    if published.kind == "slots":
        what = "the score of a document is read off the label logits behind its prompt"
    elif contract.readout == "score":
        what = "the log-probability of every label behind the prompt is read, nothing is generated"
    elif contract.readout in ("expected", "guided"):
        what = (
            "the answer is generated; rank_rl then takes the expectation of every score, which "
            "this code leaves out, so that its scores are whole numbers"
        )
    else:
        what = "the answer is generated, which rank_rl then parses"
    return [
        f"Without rank_rl, {what}. The prompts here are those of the example: rank_rl makes them "
        "of query and documents, cuts long documents, and decides what is asked "
        f"(strategy `{contract.strategy.name}`)."
    ]


def _prompts(published: Published) -> list[str]:
    tokens = ChatTokens(published.tokenizer)
    chats = [tokens.messages(prompt.messages) for prompt in published.example.prompts]
    return [
        "from transformers import AutoTokenizer",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({published.arguments})",
        "chats = [",
        *(f"    {json.dumps(chat, ensure_ascii=False)}," for chat in chats),
        "]",
        f"start = {json.dumps(published.start, ensure_ascii=False)}"
        "  # what the assistant's turn begins with",
        "",
        "",
        "def encode(chat, start):",
        "    text = tokenizer.apply_chat_template(",
        "        chat, tokenize=False, add_generation_prompt=True",
        "    )",
        '    return tokenizer(text + start, add_special_tokens=False)["input_ids"]',
        *(["", "", *_labels(published)] if published.reads_labels else []),
    ]


def _labels(published: Published) -> list[str]:
    lines = [f"labels = {json.dumps(list(published.example.choices), ensure_ascii=False)}"]
    if published.kind != "slots":
        return lines
    return [
        *lines,
        f"worth = {_worth(published)}",
        "ids = [",
        '    tokenizer(start + label, add_special_tokens=False)["input_ids"][-1]',
        "    for label in labels",
        "]",
    ]


def _worth(published: Published) -> list[float]:
    from rank_rl.models.packed import label_weights

    fmt: Any = formats.make(published.contract.format)
    expected = published.contract.readout == "expected"
    return list(fmt.values) if expected else label_weights(fmt.values)


def _transformers(published: Published) -> list[str]:
    adapter = f"  # {published.base} and the adapter; needs peft"
    load = [
        "import torch",
        "from transformers import AutoModelForCausalLM",
        "",
        f"model = AutoModelForCausalLM.from_pretrained({published.arguments}).eval()"
        + (adapter if published.base else ""),
    ]
    if published.kind == "slots":
        return [*load, *_slots(published)]
    return [*load, *(_LOGPROBS if published.reads_labels else _generate(published))]


def _slots(published: Published) -> list[str]:
    score = {
        "expected": "(logits[ids].softmax(-1) * torch.tensor(worth)).sum().item()",
        "decoded": "tokenizer.decode([logits.argmax().item()])",
    }.get(published.contract.readout, "(logits[ids] * torch.tensor(worth)).sum().item()")
    return [
        "for number, chat in enumerate(chats, 1):",
        "    with torch.no_grad():",
        "        logits = model(torch.tensor([encode(chat, start)])).logits[0, -1].float()",
        f"    print(number, {score})",
    ]


_LOGPROBS = [
    "",
    "",
    "def logprob(chat, label):",
    '    """Log-probability that the answer goes on with this label."""',
    "    stem, whole = encode(chat, start), encode(chat, start + label)",
    "    shared = next((i for i, (a, b) in enumerate(zip(stem, whole)) if a != b), len(stem))",
    "    with torch.no_grad():",
    "        rows = model(torch.tensor([whole])).logits[0].float().log_softmax(-1)",
    "    return sum(rows[i - 1, whole[i]].item() for i in range(shared, len(whole)))",
    "",
    "",
    "for chat in chats:",
    "    print({label: logprob(chat, label) for label in labels})",
]


def _stop() -> str:
    from rank_rl.generation.local import STOP

    return json.dumps(list(STOP))


def _generate(published: Published) -> list[str]:
    return [
        "for chat in chats:",
        "    ids = torch.tensor([encode(chat, start)])",
        "    with torch.no_grad():",
        "        output = model.generate(",
        "            ids, attention_mask=torch.ones_like(ids), do_sample=False,",
        f"            max_new_tokens={published.contract.max_new_tokens},"
        f" stop_strings={_stop()}, tokenizer=tokenizer,",
        "        )",
        "    print(start + tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))",
    ]


def _vllm(published: Published) -> list[str]:
    if published.reads_labels and not _single_tokens(published):
        return [
            "With vLLM there is no short code: labels take several tokens here, whose "
            "log-probabilities need several passes."
        ]
    engine = f"LLM(model={json.dumps(published.name)}{published.pinned})"
    lora, imports = "", []
    if published.base:
        engine = (
            f"LLM(model={json.dumps(published.base)}, enable_lora=True, "
            f"max_lora_rank={max(8, published.rank)})"
        )
        lora = ", lora_request=adapter"
        imports = [
            "from huggingface_hub import snapshot_download",
            "from vllm.lora.request import LoRARequest",
        ]
    code = [
        *imports[:1],
        "from vllm import LLM, SamplingParams",
        *imports[1:],
        "",
        f"llm = {engine}",
        *([f'adapter = LoRARequest("adapter", 1, snapshot_download({published.arguments}))']
          if lora else []),
        'prompts = [{"prompt_token_ids": encode(chat, start)} for chat in chats]',
        *(_vllm_read(published, lora) if published.reads_labels else _vllm_write(published, lora)),
    ]  # fmt: skip
    needs = f"With a version of vLLM that knows `{published.architecture or 'the architecture'}`"
    return [f"{needs} (not run when this card was made):", "", *fenced(code)]


def _vllm_read(published: Published, lora: str) -> list[str]:
    lines = []
    if published.kind != "slots":
        token = 'tokenizer(start + label, add_special_tokens=False)["input_ids"][-1]'
        lines.append(f"ids = [{token} for label in labels]")
    score = "dict(zip(labels, logprobs))"
    if published.kind == "slots" and published.contract.readout == "score":
        score = "sum(w * lp for w, lp in zip(worth, logprobs))"
    if published.kind == "slots" and published.contract.readout == "expected":
        lines.insert(0, "from math import exp")
        shares = "[exp(lp) for lp in logprobs]"
        score = f"sum(v * p for v, p in zip(worth, {shares})) / sum({shares})"
    return [
        *lines,
        "settings = SamplingParams(max_tokens=1, temperature=0, logprobs=20)",
        f"for number, output in enumerate(llm.generate(prompts, settings{lora}), 1):",
        "    found = output.outputs[0].logprobs[0]",
        "    logprobs = [found[i].logprob if i in found else -100.0 for i in ids]",
        f"    print(number, {score})",
    ]


def _vllm_write(published: Published, lora: str) -> list[str]:
    return [
        "settings = SamplingParams(",
        f"    max_tokens={published.contract.max_new_tokens}, temperature=0, stop={_stop()},",
        "    include_stop_str_in_output=True,",
        ")",
        f"for output in llm.generate(prompts, settings{lora}):",
        "    print(start + output.outputs[0].text)",
    ]


def _single_tokens(published: Published) -> bool:
    """Whether every label is one token behind what the assistant's turn begins with."""

    def ids(text: str) -> list[int]:
        return list(published.tokenizer(text, add_special_tokens=False)["input_ids"])

    stem = ids(published.start) if published.start else []
    rows = [ids(published.start + choice) for choice in published.example.choices]
    return all(row[:-1] == stem for row in rows) and len({row[-1] for row in rows}) == len(rows)
