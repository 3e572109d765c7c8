"""Weights as vLLM loads them: a folder of whole weights, and the tokens that end an answer.

An adapter is merged into its base once, as engine local merges it when it loads, and kept in
``$RANK_RL_CACHE`` (else ``~/.cache/rank_rl``). Contract: the folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from rank_rl.errors import ModelError
from rank_rl.models.sources import WEIGHTS, Source, cache_dir, storage_errors

log = logging.getLogger(__name__)


def whole_weights(source: Source, tokenizer: Any) -> Path:
    """The folder that vLLM is to load.

    Args:
        source: what ``locate`` found.
        tokenizer: of the model; saved beside merged weights.

    Raises:
        ModelError: an adapter cannot be merged.
        StorageError: the cache cannot be written.
    """
    from filelock import FileLock

    if source.adapter is None:
        return source.path
    name = hashlib.sha256(source.revision.encode()).hexdigest()[:16]
    target = cache_dir() / "merged" / name
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not any((target / file).is_file() for file in WEIGHTS):
                _merge(source, tokenizer, target)
    return target


def _merge(source: Source, tokenizer: Any, target: Path) -> None:
    from rank_rl.models.loading import load
    from rank_rl.models.saving import save
    from rank_rl.specs import ModelSpec

    log.info("%s: merging the adapter once into %s", source.name, target)
    # In single precision; vLLM rounds to its own dtype when it loads them.
    merged = load(ModelSpec(name=str(source.adapter), dtype="float32"), device="cpu")
    save(merged.model, tokenizer, target, None)


def answer_ends(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end an answer: the tokenizer's, then those of the model's configuration.

    Raises:
        ModelError: ``generation_config.json`` cannot be read.
    """
    path = folder / "generation_config.json"
    try:
        own = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ModelError(f"cannot be read: {error}", where=str(path)) from error
    named = own.get("eos_token_id") if path.is_file() else _of_config(folder)
    found = [tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])]
    return tuple(dict.fromkeys(int(i) for i in found if i is not None))


def _of_config(folder: Path) -> Any:
    """What transformers takes where a model has no generation_config.json."""
    return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("eos_token_id")
