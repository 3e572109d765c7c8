"""A scorer of a model's files: the encoder, and the head that lies beside it or a new one.

Contract: whatever is wrong with name or folder is a one-line ``ModelError``. A checkpoint of
rank_rl scores as it did when it was saved; a model without a head gets one, drawn from torch's
generator in training and from a fixed seed otherwise.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from rank_rl.errors import ModelError
from rank_rl.formats import kind
from rank_rl.models import loading
from rank_rl.models.scorers import TABLE
from rank_rl.models.scorers.base import FILE, TASK, Scorer
from rank_rl.models.scorers.texts import TextTokens
from rank_rl.models.sources import Source, locate
from rank_rl.registry import resolve
from rank_rl.specs import ModelSpec

logger = logging.getLogger(__name__)


def load_scorer(
    spec: ModelSpec, fmt: Any, *, device: str = "auto", train: bool = False
) -> loading.Loaded:
    """Load the scorer that an input is read by.

    Args:
        spec: as for ``loading.load``.
        fmt: an input of ``formats.inputs``.
        device: a torch device; ``auto`` as for ``loading.load``.
        train: add the LoRA adapter, freeze layers, and put the model into training mode.

    Raises:
        ModelError: the model cannot be found or has no weights, or its head has another shape.
    """
    import torch

    source = locate(spec.name, spec.revision)
    tokenizer = loading.load_tokenizer(source, chat=False)
    device = loading.place(device, train)
    published = _published(source, fmt)
    encoder = loading.load_encoder(source, spec, device, classifier=published)
    tokens = TextTokens(tokenizer, window=_window(encoder))
    if train:
        encoder = loading.make_trainable(encoder, spec, TASK)
    with torch.random.fork_rng(enabled=not train, devices=[]):
        if not train:
            torch.manual_seed(0)
        model = make(encoder, tokens, fmt, published=published)
    _read_head(model, source.adapter or source.path, fmt.scorer)
    model.to(device=device)
    model.train(train)
    if not train:
        model.requires_grad_(False)
    return loading.Loaded(
        model=model,
        tokenizer=tokenizer,
        name=spec.name,
        revision=source.revision,
        path=source.adapter or source.path,
        device=device,
        autocast=loading.autocast_of(spec, device, model),
    )


def load_for(
    fmt: Any, spec: ModelSpec, *, device: str = "auto", train: bool = False
) -> loading.Loaded:
    """Load the model that a format is answered by: a scorer, or a decoder that writes.

    Raises:
        ModelError: as ``load_scorer`` or ``loading.load``.
    """
    if kind(fmt) == "scorer":
        return load_scorer(spec, fmt, device=device, train=train)
    return loading.load(spec, device=device, train=train)


def make(encoder: Any, tokens: TextTokens, fmt: Any, *, published: bool) -> Scorer:
    """A scorer around an encoder, with new heads in its dtype where it has none of its own."""
    made_by = resolve("scorer", fmt.scorer, TABLE)
    known = {"published": True} if published else {}
    scorer: Scorer = made_by(encoder, tokens, fmt, **known)
    return scorer.to(dtype=next(encoder.parameters()).dtype)


def _read_head(model: Scorer, folder: Path, kind: str) -> None:
    """Take over the head that lies in a folder, if it is one of this kind of scorer."""
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        return
    try:
        with safe_open(str(path), framework="pt") as file:
            if (file.metadata() or {}).get("scorer") != kind:
                logger.info("%s: its head is of another kind of scorer, %s gets a new one",
                            path, kind)  # fmt: skip
                return
            model.load_state_dict({k: file.get_tensor(k) for k in file.keys()}, strict=False)  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"head cannot be loaded: {first}", where=str(path)) from error


def _published(source: Source, fmt: Any) -> bool:
    """Whether a model's own classification head is to score."""
    from transformers import AutoConfig

    if getattr(fmt.params, "head", None) != "auto" or (source.path / FILE).is_file():
        return False
    try:
        config = AutoConfig.from_pretrained(str(source.path))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"config cannot be read: {error}", where=f"model {source.name!r}"
        ) from error
    names = config.architectures or []
    return config.num_labels == 1 and any("ForSequenceClassification" in name for name in names)


def _window(encoder: Any) -> int | None:
    """Most tokens that an encoder has positions for; None where that is not known."""
    positions = getattr(encoder.config, "max_position_embeddings", None)
    if not positions or positions < 0:
        return None
    # RoBERTa's first position is behind its padding id.
    table = next((m for n, m in encoder.named_modules() if n.endswith("position_embeddings")), None)
    first = getattr(table, "padding_idx", None)
    return int(positions) - (0 if first is None else first + 1)
