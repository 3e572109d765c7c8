"""Checkpoints: full weights, tokenizer and prompt contract in one folder, written atomically.

Contract: the folder is either the former checkpoint or the whole new one, also when the disk
fills up. A LoRA adapter is merged into the copy that is written; the model in memory is left as
it is, so that training goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from rank_rl.errors import StorageError
from rank_rl.models.quiet import quiet, weight_bytes
from rank_rl.models.sources import replacing, storage_errors


class Contract(Protocol):
    """Whatever says how a checkpoint wants to be asked; see ``rank_rl.hub.contract``."""

    def write(self, folder: str | Path) -> Path:
        """Save beside the weights."""
        ...


def save(model: Any, tokenizer: Any, folder: str | Path, contract: Contract | None) -> Path:
    """Write a checkpoint that :func:`rank_rl.models.loading.load` can read.

    The folder belongs to the checkpoint alone: whatever it held is replaced.

    Raises:
        StorageError: the disk is full or not writable, or the folder holds something else.
    """
    from rank_rl.models.scorers.base import Scorer, write_head

    folder, scorer = Path(folder), isinstance(model, Scorer)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.json").is_file():
        raise StorageError("is not a checkpoint", where=str(folder), expected="an empty folder")
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as scratch:
            base, state = _merged(model.encoder if scorer else model)
            with quiet(weight_bytes(base)):
                base.save_pretrained(str(scratch), state_dict=state)
            if scorer:
                write_head(model, scratch)
            tokenizer.save_pretrained(str(scratch))
            if contract is not None:
                contract.write(scratch)
    return folder


def _merged(model: Any) -> tuple[Any, dict[str, Any] | None]:
    """The plain model and the state dict to save for it; None means its own."""
    if not hasattr(model, "get_base_model"):
        return model, None
    from peft.tuners.lora import LoraLayer

    base = model.get_base_model()
    state = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in base.state_dict().items()
        if ".lora_" not in name
    }
    for name, module in base.named_modules():
        if isinstance(module, LoraLayer):
            weight = module.get_base_layer().weight
            delta = sum(module.get_delta_weight(a) for a in module.active_adapters)
            state[f"{name}.weight"] = (weight + delta).detach().to(weight.dtype)
    return base, state
