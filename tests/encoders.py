"""Tiny encoders made on the spot: a BERT with WordPiece, 2 layers, hidden 32, and its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from small_recipes import COLOURS, tasks

WORDS = sorted(
    {
        word.strip("?.,").lower()
        for split in ("train", "validation", "test")
        for task in tasks(8, split)
        for text in (task["query"], *(c["text"] for c in task["candidates"]))
        for word in text.split()
    }
    | set(COLOURS)
)


def tokenizer(words: Sequence[str] = WORDS) -> Any:
    """Whole words, then single letters; pairs and segments as BERT has them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,:?!-()"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words, *letters, *(f"##{c}" for c in letters)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    raw = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=128,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def save_bert(folder: Path, *, classifier: bool = False, dropout: float = 0.0) -> Path:
    """Save a BERT with random weights; ``classifier``: a published cross-encoder with its head."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    torch.set_num_threads(1)
    made = tokenizer()
    config = BertConfig(
        vocab_size=len(made),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=1,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind = BertForSequenceClassification if classifier else BertModel
        kind(config).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder
