"""Configurations of untrained decoders with two layers, for tests of attention and decoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
)

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # as decided as a trained model
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# Decoders that attend to all that came before.
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**SIZES),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=16),
    "gemma": lambda: GemmaConfig(**SIZES, head_dim=8),
}
HALF = ["sliding_attention", "full_attention"]


def gemma3(window: int, **changes: Any) -> Any:
    """Layers see ``window`` tokens; all of them, unless ``layer_types`` says otherwise."""
    return Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=window, **changes)


def model_of(config: Any) -> Any:
    """A model with the same random weights at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return AutoModelForCausalLM.from_config(config).eval()
