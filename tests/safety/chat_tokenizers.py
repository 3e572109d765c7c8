"""Fast tokenizers of every family with chat templates in the style of well-known models.

Each is trained on the spot on a few sentences. Templates are written from the shape of the prompts
that these models read, not copied.
"""

from __future__ import annotations

from functools import cache
from typing import Any

TEXTS = (
    "The river runs through the old town and into the lake. Who is the father of the director?",
    "[1] yes [2] no Is the document relevant? Passage: it was made in the town. Rank me first.",
    "<think>The first says who.</think><answer>[2] > [1]</answer> system user assistant model end",
    "naïve café 東京 🙂 Instruction: grade the passages {\"[1]\": 3} < > | [ ] / _ ( ) # : ! . ,",
) * 3  # fmt: skip

TURNS = "{% for m in messages %}{{ OPEN }}{{ m['content'] }}{{ CLOSE }}{% endfor %}"
GO_ON = "{% if add_generation_prompt %}{{ START }}{% endif %}"


def _template(opened: str, closed: str, start: str, before: str = "", trim: bool = False) -> str:
    body = TURNS.replace("OPEN", opened).replace("CLOSE", closed)
    if trim:
        body = body.replace("m['content']", "m['content'] | trim")
    return before + body + GO_ON.replace("START", start)


_CHATML = ("'<|im_start|>' + m['role'] + '\\n'", "'<|im_end|>\\n'", "'<|im_start|>assistant\\n'")
_ALTERNATE = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}{% endfor %}"
)
_SYSTEM_APART = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
)
_INSIDE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + (system + '\\n\\n' if system and loop.last else '') }}"
    "{{ m['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)

# Name → (family, template, control tokens of the template, other added tokens, bos, eos).
STYLES: dict[str, tuple[str, str, list[str], list[str], str, str]] = {
    "llama-2": (
        "sentencepiece, first",
        _SYSTEM_APART + "{% for m in messages %}{% if m['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + ('<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' if system and "
        "loop.first else '') + m['content'].strip() + ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
        ["<s>", "</s>"], [], "<s>", "</s>",
    ),
    "llama-3": (
        "byte-level",
        _template(
            "'<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n'", "'<|eot_id|>'",
            "'<|start_header_id|>assistant<|end_header_id|>\\n\\n'", "{{ bos_token }}", trim=True,
        ),
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        [], "<|begin_of_text|>", "<|eot_id|>",
    ),
    "qwen": (
        "byte-level",
        "{% for m in messages %}{% if m['role'] == 'user' and m['content'].startswith("
        "'<tool_response>') %}{% set last = loop.index0 %}{% endif %}"
        "{{ '<|im_start|>' + m['role'] + '\\n' }}"
        "{% if m['role'] == 'assistant' and '</think>' in m['content'] %}"
        "{{ m['content'].split('</think>')[-1] }}{% else %}{{ m['content'] }}{% endif %}"
        "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|im_start|>assistant\\n' }}"
        "{% if enable_thinking is defined and not enable_thinking %}"
        "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}",
        ["<|im_start|>", "<|im_end|>", "<|endoftext|>"],
        ["<think>", "</think>", "<tool_response>", "</tool_response>"], "", "<|im_end|>",
    ),
    "gemma": (
        "sentencepiece, spaces",
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
        "{{ '<start_of_turn>' + role + '\\n' + m['content'] | trim + '<end_of_turn>\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], ["\n\n", "<b>"], "<bos>", "<eos>",
    ),
    "gemma, merged": (
        "sentencepiece, spaces",
        _SYSTEM_APART + "{{ bos_token }}{% for m in messages %}"
        "{{ '<start_of_turn>' + m['role'] + '\\n' }}"
        "{{ (system + '\\n\\n' if system and loop.first else '') + m['content'] | trim }}"
        "{{ '<end_of_turn>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], [], "<bos>", "<eos>",
    ),
    "mistral, text": (
        "sentencepiece, always",
        "{{ bos_token }}" + _ALTERNATE + _INSIDE.replace("system and loop.last", "false"),
        ["<s>", "</s>"], [], "<s>", "</s>",
    ),
    "mistral, v3": (
        "sentencepiece, first", _SYSTEM_APART + "{{ bos_token }}" + _INSIDE,
        ["<s>", "</s>", "[INST]", "[/INST]"], [], "<s>", "</s>",
    ),
    "mistral, v7": (
        "byte-level",
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ '[SYSTEM_PROMPT]' + m['content'] + '[/SYSTEM_PROMPT]' }}"
        "{% elif m['role'] == 'user' %}{{ '[INST]' + m['content'] + '[/INST]' }}"
        "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}",
        ["<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"],
        [], "<s>", "</s>",
    ),
    "deepseek": (
        "byte-level",
        _SYSTEM_APART + "{{ bos_token + system }}{% for m in messages %}"
        "{{ ('<｜User｜>' if m['role'] == 'user' else '<｜Assistant｜>') + m['content'] }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}",
        ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"],
        ["<think>", "</think>"], "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>",
    ),
    "smollm": (
        "byte-level",
        _template(*_CHATML, before="{% if messages[0]['role'] != 'system' %}"
                  "{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}"),
        ["<|im_start|>", "<|im_end|>", "<|endoftext|>"], [], "<|im_start|>", "<|im_end|>",
    ),
    "phi": (  # its tokens swallow the white space behind them
        "sentencepiece, first",
        _template("'<|' + m['role'] + '|>\\n'", "'<|end|>\\n'", "'<|assistant|>\\n'"),
        ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"], [], "", "<|end|>",
    ),
    "vicuna": (
        "unigram",
        _SYSTEM_APART + "{{ system }}{% for m in messages %}{{ ' USER: ' + m['content'] }}"
        "{% endfor %}{{ ' ASSISTANT:' }}",
        ["<s>", "</s>"], [], "<s>", "</s>",
    ),
    "wordpiece": (
        "wordpiece",
        _template("'[CLS] ' + m['role'] + ' '", "' [SEP] '", "'[CLS] assistant '"),
        ["[CLS]", "[SEP]", "[PAD]"], [], "[CLS]", "[SEP]",
    ),
}  # fmt: skip


def _byte_level(special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(TEXTS, trainer)
    return raw


def _sentencepiece(special: list[str], scheme: str) -> Any:
    """BPE with byte fallback; ``scheme`` says where a space is put before a text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if scheme == "spaces":
        raw.normalizer = normalizers.Replace(" ", "▁")
        raw.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_previous")
    else:
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    fallback = [decoders.ByteFallback(), decoders.Fuse()]
    strip = [] if scheme == "spaces" else [decoders.Strip(" ", 1, 0)]
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), *fallback, *strip])
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<unk>", *special, *bytes_], show_progress=False
    )
    raw.train_from_iterator([t.replace(" ", "▁") for t in TEXTS], trainer)
    _forget(raw, bytes_)
    return raw


def _forget(raw: Any, tokens: list[str]) -> None:
    """Byte tokens are part of the vocabulary and not added ones."""
    import json

    from tokenizers import Tokenizer

    content = json.loads(raw.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] not in tokens]
    raw.__setstate__(Tokenizer.from_str(json.dumps(content)).__getstate__())


def _unigram(special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    bytes_ = [(f"<0x{i:02X}>", -9.0) for i in range(256)]
    letters = sorted({c for t in TEXTS for c in t if c != " " and c.isascii()} | {"▁"})
    words = sorted({f"▁{w}" for t in TEXTS for w in t.split() if w.isalpha()})
    vocabulary = [("<unk>", 0.0), *((t, 0.0) for t in special), *bytes_]
    vocabulary += [(c, -6.0) for c in letters] + [(w, -4.0) for w in words]
    raw = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    raw.normalizer = normalizers.NFKC()
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    raw.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]
    )
    return raw


def _wordpiece(special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece()
    alphabet = [chr(i) for i in range(33, 127)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=500,
        special_tokens=["[UNK]", *special],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    raw.train_from_iterator(TEXTS, trainer)
    return raw


def _raw(family: str, special: list[str]) -> Any:
    if family == "byte-level":
        return _byte_level(special)
    if family == "unigram":
        return _unigram(special)
    if family == "wordpiece":
        return _wordpiece(special)
    return _sentencepiece(special, family.partition(", ")[2])


@cache
def make(style: str) -> Any:
    """The tokenizer of a style, with its chat template."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    family, template, special, more, bos, eos = STYLES[style]
    raw = _raw(family, special)
    swallow = style == "phi"
    raw.add_special_tokens([AddedToken(t, rstrip=swallow, normalized=False) for t in special])
    raw.add_tokens([AddedToken(t, normalized=False, special=False) for t in more])
    unknown = {"byte-level": None, "wordpiece": "[UNK]"}.get(family, "<unk>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=bos or None, eos_token=eos, unk_token=unknown, pad_token=eos
    )
    tokenizer.chat_template = template
    return tokenizer
