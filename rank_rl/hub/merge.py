"""A LoRA adapter merged into its base: whole weights that need neither PEFT nor the base.

Contract: the merged model computes what base and adapter compute together. Weights are added in
single precision and saved in the dtype of the base, as plain transformers and vLLM load it.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from rank_rl.errors import ModelError
from rank_rl.models.sources import locate, storage_errors

log = logging.getLogger(__name__)


def merge(checkpoint: Path, folder: Path, *, scorer: bool = False) -> Path:
    """Write the merged weights of an adapter, its settings and its tokenizer.

    Args:
        checkpoint: a folder with ``adapter_config.json``.
        folder: an empty folder.
        scorer: whether the base is an encoder without a vocabulary head.

    Raises:
        ModelError: the base is missing, or weights do not fit it.
        StorageError: the folder cannot be written.
    """
    import torch
    import transformers
    from peft import PeftModel
    from safetensors import SafetensorError

    from rank_rl.models.loading import SAFE, load_tokenizer

    source = locate(str(checkpoint))
    where = f"adapter {checkpoint}"
    auto: Any = transformers.AutoModel if scorer else transformers.AutoModelForCausalLM
    log.info("merging the adapter into %s", source.path)
    try:
        base = auto.from_pretrained(str(source.path), dtype=torch.float32, **SAFE)
        adapted = PeftModel.from_pretrained(base, str(checkpoint))
        model = adapted.merge_and_unload(safe_merge=True).to(_dtype(source.path))
    except (OSError, ValueError, KeyError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"cannot be merged: {error}", where=where) from error
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(str(folder))
        load_tokenizer(source, chat=not scorer).save_pretrained(str(folder))
        head = checkpoint / "scorer.safetensors"
        if head.is_file():
            (folder / head.name).write_bytes(head.read_bytes())
    return folder


def _dtype(folder: Path) -> Any:
    """The dtype that a model's configuration names; single precision where it names none."""
    import torch

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    return getattr(torch, str(name).removeprefix("torch."), torch.float32)
