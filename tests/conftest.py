"""Shared fixtures. Nothing here imports torch at collection: floors 0-2 are tested without it."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SENTENCES = (
    "The river runs through the old town and into the lake.",
    "Who is the father of the director of the film about the lake?",
    "The director was born in a small town near the river.",
    "Query: which document answers the question? Document: the film was made in the town.",
    "It says who the father is. It does not say where the film was made.",
    "[1] yes [2] no [3] yes [4] no. Is the document relevant? yes. Is it relevant? no.",
    "<think>The first document says who, the second says where.</think><answer>[2] > [1]</answer>",
)


LAST: list[Path] = []  # the file of the test before


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Take what outlives a file of tests out of the collector's sight.

    Trainer collects garbage in every run, which takes longer than a step of a tiny model when all
    tests and libraries are looked at each time.
    """
    if [item.path] != LAST:
        LAST[:] = [item.path]
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def converted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache of converted models for all workers of a run, empty when it begins.

    A few tests that are run by hand, without workers, use the one of the user.
    """
    with pytest.MonkeyPatch.context() as patch:
        if "PYTEST_XDIST_WORKER" in os.environ:
            shared = tmp_path_factory.getbasetemp().parent
            patch.setenv("RANK_RL_CACHE", str(shared / "converted"))
        yield


def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer with ChatML; " yes", " no" and " 0" to " 10" are one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = "".join(f" {i}" for i in range(11)) + " yes no yes no Yes No"
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([*SENTENCES, *[words] * 50], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        extra_special_tokens=[],
    )
    tokenizer.chat_template = CHATML
    tokenizer.model_max_length = 2048
    return tokenizer


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untrained 2-layer Llama (hidden 64, 4 heads) with its tokenizer; one thread."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    gc.collect()
    gc.freeze()  # torch and transformers
    return folder
