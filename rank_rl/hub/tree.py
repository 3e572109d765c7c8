"""The tree of a repository before it is sent: which files, from where, and what was left out.

Contract: only files of a known kind are taken, so that optimizer states, ``.env`` and whatever
else lies in a folder stay where they are. A tree depends on its sources alone: made again from
the same files it has the same bytes. Sending is left to ``publish``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import rank_rl
from rank_rl.data.files import sha256 as sha256_of_file
from rank_rl.errors import DataError, ModelError, StorageError
from rank_rl.hub.scrub import Found, keys_in, portable, portable_page, refuse_keys

MANIFEST = "published.json"
CARD = "README.md"
# Vocabularies and templates: published word for word.
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model"),
    *("sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json"),
)
# Settings that may name folders of this machine.
CONFIGS = ("config.json", "generation_config.json", "adapter_config.json", "tokenizer_config.json")
WEIGHTS = (
    *("model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    *("adapter_model.safetensors", "scorer.safetensors"),
)
PICKLED = ("pytorch_model*.bin", "adapter_model.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One file of the repository: its path there, and its bytes or the file that holds them."""

    path: str
    source: Path | bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    def sha256(self) -> str:
        """Hash of the content, in hexadecimal digits."""
        if isinstance(self.source, bytes):
            return hashlib.sha256(self.source).hexdigest()
        return sha256_of_file(self.source)

    def git_hash(self) -> str:
        """What git calls the content when it is not kept as a large file."""
        data = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Everything that a repository is to hold.

    Attributes:
        items: the files, by path.
        left_out: names of what lay beside them and is not published.
        said: what whoever publishes should know, one sentence each.
        keys: what in the files looks like a key.
    """

    items: tuple[Item, ...]
    left_out: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    keys: tuple[Found, ...] = field(default=(), repr=False)

    def finished(self) -> Tree:
        """The tree with its manifest, sorted, after the check for keys.

        Raises:
            DataError: a file holds a key, or two files have one path.
        """
        refuse_keys(self.keys)
        found: dict[str, str] = {}
        for item in self.items:
            if item.path in found:
                raise DataError("two files have this path", where=item.path)
            found[item.path] = item.sha256()
        record = {"rank_rl": rank_rl.__version__, "files": dict(sorted(found.items()))}
        manifest = Item(path=MANIFEST, source=as_json(record))
        items = sorted((*self.items, manifest), key=lambda item: item.path)
        return Tree(items=tuple(items), left_out=self.left_out, said=self.said)

    def write(self, folder: Path) -> None:
        """Put all files into a new or empty folder.

        Raises:
            StorageError: it holds something, or cannot be written.
        """
        if folder.exists() and any(folder.iterdir()):
            raise StorageError("is not empty", where=str(folder), expected="a new folder")
        for item in self.items:
            target = folder / item.path
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(item.source, bytes):
                    target.write_bytes(item.source)
                else:
                    shutil.copyfile(item.source, target)
            except OSError as error:
                raise StorageError(f"cannot be written: {error}", where=str(target)) from error


class Gathering:
    """Files on their way into a tree: shortened where they name places, searched for keys."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.left_out: list[str] = []
        self.said: list[str] = []
        self.keys: list[Found] = []

    def tree(self) -> Tree:
        """What was gathered."""
        return Tree(
            items=tuple(self.items),
            left_out=tuple(self.left_out),
            said=tuple(self.said),
            keys=tuple(self.keys),
        )

    def made(self, path: str, content: bytes, *, text: str | None = None) -> None:
        """Add what is written for the repository; ``text`` is what to search for keys in it."""
        shown = content.decode("utf-8") if text is None else text
        self.keys += keys_in(shown, path, written_here=text is None)
        self.items.append(Item(path=path, source=content))

    def weights(self, file: Path, path: str) -> None:
        """Add a safetensors file.

        Raises:
            ModelError: it is none, or its header names what should not be published.
        """
        self.keys += keys_in(_header(file), path, written_here=True)
        self.items.append(Item(path=path, source=file))

    def copied(self, file: Path, path: str) -> None:
        """Add a file of text as it is: vocabularies, runs, tables."""
        self.keys += keys_in(read(file), path)
        self.items.append(Item(path=path, source=file))

    def json(self, file: Path, path: str) -> None:
        """Add a JSON file whose paths are shortened; one without any stays byte for byte."""
        self._changed(file, path, _json_portable)

    def json_lines(self, file: Path, path: str) -> None:
        """Add a file of JSON lines whose paths are shortened."""
        self._changed(file, path, _lines_portable)

    def records(self, file: Path, path: str, *, fields: Sequence[str]) -> None:
        """Add JSON lines of data: only the named fields of a record may be shortened."""
        text = read(file)
        self.keys += keys_in(text, path)

        def changed(line: str) -> str:
            record = json.loads(line)
            shortened = {k: portable(v) if k in fields else v for k, v in record.items()}
            return line if shortened == record else json.dumps(shortened, ensure_ascii=False)

        try:
            new = "".join(f"{changed(line)}\n" for line in text.split("\n") if line)
        except (ValueError, AttributeError) as error:
            raise DataError(f"cannot be read: {_first(error)}", where=str(file)) from error
        source = file if new == text else new.encode("utf-8")
        self.items.append(Item(path=path, source=source))

    def yaml(self, file: Path, path: str) -> None:
        """Add a YAML file whose paths are shortened."""
        self._changed(file, path, _yaml_portable)

    def page(self, file: Path, path: str) -> None:
        """Add a page that quotes texts, without this machine's own folders."""
        text = read(file)
        self.keys += keys_in(text, path)
        changed = portable_page(text)
        source = file if changed == text else changed.encode("utf-8")
        self.items.append(Item(path=path, source=source))

    def _changed(self, file: Path, path: str, change: Callable[[str], str]) -> None:
        text = read(file)
        self.keys += keys_in(text, path, written_here=True)
        try:
            changed = change(text)
        except (ValueError, yaml.YAMLError) as error:
            raise DataError(f"cannot be read: {_first(error)}", where=str(file)) from error
        source = file if changed == text else changed.encode("utf-8")
        self.items.append(Item(path=path, source=source))


def checkpoint_files(gathering: Gathering, folder: Path, *, where: Path | None = None) -> None:
    """Add weights, settings and tokenizer of a checkpoint's folder; say what stays.

    Args:
        gathering: where to.
        folder: a checkpoint; ``rank_rl.json`` and ``README.md`` are left to others.
        where: the folder to name in messages.

    Raises:
        ModelError: no weights, or weights that are pickled.
    """
    weights = [file for kind in WEIGHTS for file in sorted(folder.glob(kind))]
    named = str(where or folder)
    if not any(file.suffix == ".safetensors" and file.name != "scorer.safetensors"
               for file in weights):  # fmt: skip
        _refuse_pickles(folder, named)
    for file in weights:
        if file.suffix == ".json":
            gathering.json(file, file.name)
        else:
            gathering.weights(file, file.name)
    taken = {file.name for file in weights}
    for name in dict.fromkeys((*CONFIGS, *TOKENIZER)):
        if (file := folder / name).is_file():
            taken.add(name)
            _add(gathering, file)
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        gathering.copied(file, f"additional_chat_templates/{file.name}")
        taken.add("additional_chat_templates")
    own = {"rank_rl.json", CARD}
    gathering.left_out += [f.name for f in sorted(folder.iterdir()) if f.name not in taken | own]


def _add(gathering: Gathering, file: Path) -> None:
    """Settings with short paths, vocabularies as they are; those of SentencePiece are no text."""
    if file.suffix == ".model":
        gathering.items.append(Item(path=file.name, source=file))
    elif file.name in CONFIGS:
        gathering.json(file, file.name)
    else:
        gathering.copied(file, file.name)


def as_json(record: Any) -> bytes:
    """JSON as the files of this project have it."""
    return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def read(file: Path) -> str:
    """The text of a file.

    Raises:
        DataError: it is missing or not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(file)) from error
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", where=str(file)) from error


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file or it holds something else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def size_text(size: int) -> str:
    """Bytes as people read them."""
    for unit, worth in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= worth:
            return f"{size / worth:.1f} {unit}"
    return f"{size} B"


def _refuse_pickles(folder: Path, named: str) -> None:
    found = [f.name for kind in PICKLED[:2] for f in sorted(folder.glob(kind))]
    if found:
        raise ModelError(
            f"weights are pickled ({found[0]})",
            where=named,
            expected="safetensors, which run no code when they are read",
            remedy="load the folder with transformers and save_pretrained it, or publish --merge",
        )
    raise ModelError("no weights", where=named, expected="model.safetensors, or an adapter")


def _header(file: Path) -> str:
    """The metadata of a safetensors file.

    Raises:
        ModelError: the file is no such file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="numpy") as opened:
            return json.dumps(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"not a safetensors file: {_first(error)}",
            where=str(file),
            expected="weights written by save_pretrained",
        ) from error


def _json_portable(text: str) -> str:
    record = json.loads(text)
    shortened = portable(record)
    return text if shortened == record else as_json(shortened).decode("utf-8")


def _lines_portable(text: str) -> str:
    return "".join(_portable_lines(text.split("\n")))


def _portable_lines(lines: Iterable[str]) -> Iterator[str]:
    for line in filter(None, lines):
        record = json.loads(line)
        shortened = portable(record)
        same = shortened == record
        yield (line if same else json.dumps(shortened, ensure_ascii=False)) + "\n"


def _yaml_portable(text: str) -> str:
    record = yaml.safe_load(text)
    shortened = portable(record)
    if shortened == record:
        return text
    return yaml.safe_dump(shortened, sort_keys=False, allow_unicode=True)


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
