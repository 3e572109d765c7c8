"""A scorer of a model's files: the encoder, and the head that lies beside it or a new one.

Contract: whatever is wrong with name or folder is a one-line ``ModelError``. A checkpoint of
rank_rl scores as it did when it was saved; a model without a head gets one, drawn from torch's
generator in training and from a fixed seed otherwise.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from rank_rl.errors import ModelError, RecipeError
from rank_rl.formats import kind
from rank_rl.models import loading
from rank_rl.models.scorers import TABLE
from rank_rl.models.scorers.base import FILE, TASK, Scorer
from rank_rl.models.scorers.texts import TextTokens
from rank_rl.models.sources import Source, locate
from rank_rl.models.tokens import ChatTokens
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
        RecipeError: ``pooling: cls`` of a model whose first state sees no later token.
    """
    import torch

    source = locate(spec.name, spec.revision)
    tokenizer = loading.load_tokenizer(source, chat=False)
    device = loading.place(device, train)
    published = _published(source, fmt)
    encoder = loading.load_encoder(source, spec, device, classifier=published)
    if published:
        _know_padding(encoder.config, tokenizer)
    _check_pooling(encoder, fmt, spec, published=published)
    tokens = TextTokens(tokenizer, window=_window(encoder))
    if train:
        encoder = loading.make_trainable(encoder, spec, TASK)
    with torch.random.fork_rng(enabled=not train, devices=[]):
        if not train:
            torch.default_generator.manual_seed(0)  # torch.manual_seed would seed GPUs too
        model = make(encoder, tokens, fmt, published=published)
    if (file := _head_file(source)) is not None:
        _read_head(model, file, fmt.scorer)
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


def tokens_of(loaded: loading.Loaded) -> Any:
    """What counts prompts: ``TextTokens`` of a scorer, ``ChatTokens`` of all other models."""
    scorer = isinstance(loaded.model, Scorer)
    return loaded.model.tokens if scorer else ChatTokens(loaded.tokenizer)


def make(encoder: Any, tokens: TextTokens, fmt: Any, *, published: bool) -> Scorer:
    """A scorer around an encoder, with new heads in fp32 where it has none of its own.

    The heads stay in fp32, as adapters do, over an encoder in bf16: the small steps of training
    would round to nothing in bf16, and scores are computed in fp32 anyway.
    """
    made_by = resolve("scorer", fmt.scorer, TABLE)
    known = {"published": True} if published else {}
    scorer: Scorer = made_by(encoder, tokens, fmt, **known)
    return scorer


def _head_file(source: Source) -> Path | None:
    """The head's file: beside the adapter, or beside the weights; None where there is none."""
    folders = [folder for folder in (source.adapter, source.path) if folder is not None]
    return next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)


def _read_head(model: Scorer, path: Path, kind: str) -> None:
    """Take over the head that lies in a file, if it is one of this kind of scorer."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            if (file.metadata() or {}).get("scorer") != kind:
                logger.info("%s: its head is of another kind of scorer, %s gets a new one",
                            path, kind)  # fmt: skip
                return
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        expected = model.heads().keys()
        if found.keys() != expected:
            raise ModelError(
                f"head has weights {', '.join(sorted(found))}",
                where=str(path),
                expected=f"{', '.join(sorted(expected))}, as format.params says",
            )
        model.load_state_dict(found, strict=False)
    except (OSError, SafetensorError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"head cannot be loaded: {first}", where=str(path)) from error


def _published(source: Source, fmt: Any) -> bool:
    """Whether a model's own classification head is to score."""
    from transformers import AutoConfig

    if getattr(fmt.params, "head", None) != "auto" or _head_file(source) is not None:
        return False
    try:
        config = AutoConfig.from_pretrained(str(source.path), trust_remote_code=False)
    except loading.UNREADABLE as error:
        raise ModelError(
            f"config cannot be read: {error}", where=f"model {source.name!r}"
        ) from error
    names = config.architectures or []
    return config.num_labels == 1 and any("ForSequenceClassification" in name for name in names)


def _know_padding(config: Any, tokenizer: Any) -> None:
    """Name the padding id to a decoder with a head, which scores at the last token before it."""
    for part in (config, config.get_text_config()):
        if getattr(part, "pad_token_id", None) is None:
            part.pad_token_id = tokenizer.pad_token_id or 0


def _check_pooling(encoder: Any, fmt: Any, spec: ModelSpec, *, published: bool) -> None:
    """Refuse the first token's state where no later token changes it: all scores were the same."""
    params = fmt.params
    unused = published and not params.term_control
    # Weights that are sharded while they are loaded cannot be asked.
    sharded = any(p.is_meta or not p.numel() for p in encoder.parameters())
    if params.pooling != "cls" or unused or sharded or not _looks_back_only(encoder):
        return
    raise RecipeError(
        f"model {spec.name!r} reads from left to right, so the state of the first token (cls) is "
        "the same for all documents",
        where="format.params.pooling",
        expected="last or mean",
        remedy="write pooling: last",
    )


def _looks_back_only(encoder: Any) -> bool:
    """Whether the first state of a sequence stays as it is when its later tokens change."""
    import torch

    base, device = encoder.base_model, next(encoder.parameters()).device
    with torch.no_grad(), loading.evaluating(base):
        one, other = (
            base(input_ids=torch.tensor([ids], device=device)).last_hidden_state[:, 0]
            for ids in ((1, 2, 3), (1, 4, 5))
        )
    return torch.equal(one, other)


def _window(encoder: Any) -> int | None:
    """Most tokens that an encoder has positions for; None where that is not known."""
    positions = getattr(encoder.config, "max_position_embeddings", None)
    if not positions or positions < 0:
        return None
    # RoBERTa's first position is behind its padding id.
    table = next((m for n, m in encoder.named_modules() if n.endswith("position_embeddings")), None)
    first = getattr(table, "padding_idx", None)
    return int(positions) - (0 if first is None else first + 1)
