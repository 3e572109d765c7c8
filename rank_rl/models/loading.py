"""Model and tokenizer of a ``ModelSpec``, placed on a device, ready to score, generate or train.

Contract: everything that can be wrong with a model name or folder is a one-line ``ModelError``;
weights are read from safetensors, and code that a model brings is never run.
``sources`` finds the files, ``saving`` writes checkpoints, ``tokens`` turns chats into ids.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rank_rl.errors import ModelError
from rank_rl.models.quiet import file_bytes, quiet
from rank_rl.models.saving import save
from rank_rl.models.sources import Source, locate
from rank_rl.specs import LoraSpec, ModelSpec

if TYPE_CHECKING:
    import torch

__all__ = [
    "Loaded",
    "autocast_context",
    "cpu_has_amx",
    "load",
    "load_encoder",
    "load_tokenizer",
    "save",
]

# How every model is read: no pickled weights, no code from its folder.
SAFE = {"use_safetensors": True, "trust_remote_code": False}
# What transformers and PEFT raise for files that are damaged, or not what they seem.
UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    ImportError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model with its tokenizer and where both came from.

    ``path`` is the folder the (base) weights were read from; ``autocast`` is the dtype name that
    :func:`autocast_context` computes in, or None for the weights' own; ``share`` is among how many
    such models memory for keys and values is divided.
    """

    model: Any
    tokenizer: Any
    name: str
    revision: str
    path: Path
    device: str
    autocast: str | None = None
    share: int = 1


def load(spec: ModelSpec, *, device: str = "auto", train: bool = False) -> Loaded:
    """Load a student.

    Args:
        spec: name, revision, dtype, autocast; LoRA and frozen layers count only for training.
        device: a torch device; ``auto`` takes a GPU if there is one, but leaves the placing to
            the trainer when ``train`` is set.
        train: add the LoRA adapter, freeze layers, and put the model into training mode.

    Raises:
        ModelError: the model cannot be found, has no weights, or no chat template.
    """
    source = locate(spec.name, spec.revision)
    tokenizer = load_tokenizer(source)
    device = place(device, train)
    model = _weights(source, spec, device)
    if train:
        model = make_trainable(model, spec)
    else:
        model.requires_grad_(False)
        model.eval()
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        name=spec.name,
        revision=source.revision,
        path=source.adapter or source.path,
        device=device,
        autocast=autocast_of(spec, device, model),
    )


def load_tokenizer(source: Source, *, chat: bool = True) -> Any:
    """Load the tokenizer of a located model and, for a ``chat``, check that it can hold one.

    Raises:
        ModelError: no tokenizer; for a chat, no chat template or no end-of-sequence token.
    """
    from transformers import AutoTokenizer

    where = f"model {source.name!r}"
    own = source.adapter is not None and (source.adapter / "tokenizer_config.json").is_file()
    folder = source.adapter if own else source.path
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # tokenizers raises Exception itself for a malformed file
        raise ModelError(f"tokenizer cannot be loaded: {error}", where=where) from error
    if not tokenizer.is_fast:  # others cannot be told to read control tokens as text
        raise ModelError("tokenizer is not a fast one", where=where, expected="tokenizer.json")
    if not chat:
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        return tokenizer
    if not tokenizer.chat_template:
        raise ModelError(
            "tokenizer has no chat template",
            where=where,
            expected="an instruction-tuned model",
            remedy="put a chat_template.jinja into its folder",
        )
    if tokenizer.eos_token_id is None:
        raise ModelError("tokenizer has no end-of-sequence token", where=where)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def cpu_has_amx() -> bool:
    """Whether this CPU multiplies bf16 tiles (AMX), which makes bf16 autocast worth it."""
    import torch

    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe and probe())


@contextlib.contextmanager
def autocast_context(loaded: Loaded) -> Iterator[None]:
    """Compute in the autocast dtype of ``loaded`` within the block (nothing when it has none).

    Enter it with gradients already off where none are needed: weights are then cast once a block.
    """
    import torch

    if loaded.autocast is None:
        yield
        return
    dtype = getattr(torch, loaded.autocast)
    device = next(loaded.model.parameters()).device.type
    with cast_once(loaded.model), torch.autocast(device, dtype=dtype):
        yield


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode within the block, without dropout."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextlib.contextmanager
def cast_once(model: Any) -> Iterator[None]:
    """Let autocast keep its casts of frozen weights within the block, where gradients are off.

    It keeps only those of weights that require a gradient; casting all weights anew for every
    generated token takes longer than the token.
    """
    import torch

    off = not torch.is_grad_enabled()
    frozen = [p for p in model.parameters() if off and not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def place(device: str, train: bool) -> str:
    """The device that ``load`` puts a model on."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() and not train else "cpu"


def weight_dtype(spec: ModelSpec) -> torch.dtype:
    """The dtype that the weights of a spec are loaded in on this machine."""
    import torch

    if spec.dtype != "auto":
        return torch.float32 if spec.dtype == "float32" else torch.bfloat16
    gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if gpu else torch.float32


def autocast_of(spec: ModelSpec, device: str, model: Any) -> str | None:
    """Name of the dtype that a model on a device is to compute in; None for its weights' own."""
    import torch

    if spec.autocast != "auto":
        return None if spec.autocast == "off" else spec.autocast
    on_cpu = device == "cpu" and not torch.cuda.is_available()
    single = next(model.parameters()).dtype == torch.float32
    return "bfloat16" if on_cpu and single and cpu_has_amx() else None


def precision(loaded: Loaded) -> str:
    """Name of the dtype that a loaded model computes in: ``bfloat16``, ``float32``."""
    own = next(loaded.model.parameters()).dtype
    return loaded.autocast or str(own).removeprefix("torch.")


def load_encoder(source: Source, spec: ModelSpec, device: str, *, classifier: bool = False) -> Any:
    """The weights of an encoder, or of a decoder without its vocabulary head.

    Args:
        source: what ``locate`` found.
        spec: for its dtype.
        device: a torch device.
        classifier: with the head of AutoModelForSequenceClassification.

    Raises:
        ModelError: no weights, none of a model that transformers knows, or an encoder-decoder.
    """
    model = _weights(
        source, spec, device, "AutoModelForSequenceClassification" if classifier else "AutoModel"
    )
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(
            f"{type(model).__name__} is an encoder-decoder",
            where=f"model {source.name!r}",
            expected="an encoder or a decoder",
        )
    model.config.use_cache = False
    if not classifier and getattr(model, "pooler", None) is not None:
        model.pooler.requires_grad_(False)  # kept in checkpoints; scorers pool token states
    return model


def _weights(
    source: Source, spec: ModelSpec, device: str, auto: str = "AutoModelForCausalLM"
) -> Any:
    import transformers
    from safetensors import SafetensorError

    kind = getattr(transformers, auto)
    where = f"model {source.name!r}"
    try:
        with quiet(file_bytes(source.path)):
            model = kind.from_pretrained(str(source.path), dtype=weight_dtype(spec), **SAFE)
        if source.adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(source.adapter)).merge_and_unload()
        return model.to(device)
    except (*UNREADABLE, SafetensorError) as error:
        raise ModelError(f"weights cannot be loaded: {error}", where=where) from error


def make_trainable(model: Any, spec: ModelSpec, task: str = "CAUSAL_LM") -> Any:
    """A model in training mode with its adapter or frozen layers, as a spec says.

    ``task`` is PEFT's task type.
    """
    model.train()
    if spec.lora is not None:
        from peft import get_peft_model

        return get_peft_model(model, lora_config(spec.lora, task))
    if spec.freeze_layers:
        layers = _layers(model)
        if spec.freeze_layers > len(layers):
            raise ModelError(
                f"freeze_layers is {spec.freeze_layers}",
                where=f"model {spec.name!r}",
                expected=f"at most its {len(layers)} layers",
            )
        model.get_input_embeddings().requires_grad_(False)
        for layer in layers[: spec.freeze_layers]:
            layer.requires_grad_(False)
    return model


def _layers(model: Any) -> Any:
    """The layers of a model, lowest first; of an encoder, its module list of that length."""
    import torch

    if (layers := getattr(model.get_decoder(), "layers", None)) is not None:
        return layers
    count = getattr(model.config, "num_hidden_layers", None)
    lists = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    return next((found for found in lists if len(found) == count), ())


def lora_config(spec: LoraSpec, task: str = "CAUSAL_LM") -> Any:
    """PEFT configuration of a LoRA adapter (Hu et al., 2021); ``task`` is PEFT's task type."""
    from peft import LoraConfig

    return LoraConfig(
        r=spec.r,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=spec.target_modules,
        task_type=task,
        # An encoder's pooler is not used, so an adapter of it would never be trained.
        exclude_modules="pooler.*|.*\\.pooler\\..*" if task == "FEATURE_EXTRACTION" else None,
    )
