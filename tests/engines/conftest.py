"""A tiny model that vLLM runs. Tests that start vLLM are marked so and are opt-in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

# On a CPU: little memory for keys and values, nothing compiled; vLLM starts in half the time.
SETTINGS: dict[str, Any] = {
    "dtype": "float32",
    "max_model_len": 1024,
    "extra": {"enforce_eager": True},
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "vllm: starts vLLM; left out unless asked for")


@pytest.fixture(scope="session")
def engine_model_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2-layer Llama whose heads have a size that vLLM has kernels for, as decided as trained."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(str(tiny_model_dir))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = LlamaForCausalLM(config)
    folder = tmp_path_factory.mktemp("models") / "engine"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def engine(engine_model_dir: Path) -> Any:
    """vLLM with the tiny model."""
    pytest.importorskip("vllm")
    from rank_rl.generation.engine import open_engine
    from rank_rl.specs import ModelSpec

    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    return open_engine(ModelSpec(name=str(engine_model_dir)), SETTINGS)
