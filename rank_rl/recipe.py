"""Recipes: YAML files become validated specs, and a run leaves its provenance beside its outputs.

``load`` applies ``extends`` and ``--set``, resolves interpolations with OmegaConf (so that 1e-6 is
a number) and checks the result against ``rank_rl.specs``. Whatever is wrong is one ``RecipeError``
line with file, key path, value and what was expected. Relative paths inside a recipe are relative
to the current directory. Turning names into objects is left to the code that uses them.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from rank_rl.errors import RecipeError
from rank_rl.specs import PipelineSpec, RecipeSpec

SpecT = TypeVar("SpecT", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A checked recipe.

    ``resolved`` is the whole content with every default filled in and ``hash`` its first 12 hex
    digits of SHA-256: two recipes with the same hash ask for the same run.
    """

    spec: RecipeSpec
    path: str
    resolved: dict[str, Any] = field(repr=False)
    hash: str

    def info(self, **extra: Any) -> dict[str, Any]:
        """Hash, path and content as the plain dict that stages receive; ``extra`` is added."""
        return {"hash": self.hash, "path": self.path, "resolved": self.resolved, **extra}


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply ``extends`` and the ``a.b=c`` overrides, and check it.

    Raises:
        RecipeError: anything wrong with the file, its content or an override.
    """
    spec = _validate(RecipeSpec, _content(Path(path), overrides), str(path), overrides)
    resolved = spec.model_dump(mode="json")
    return Recipe(spec=spec, path=str(path), resolved=resolved, hash=content_hash(resolved))


def load_pipeline(folder: str | Path) -> tuple[PipelineSpec, Path]:
    """Read ``pipeline.yaml`` of a recipe folder (or the file itself) and return it with its path.

    Raises:
        RecipeError: no such file, or anything wrong with its content.
    """
    return load_beside(PipelineSpec, folder, "pipeline.yaml")


def load_beside(kind: type[SpecT], folder: str | Path, name: str) -> tuple[SpecT, Path]:
    """Read file ``name`` of a recipe folder (or the file itself) and return it with its path.

    Raises:
        RecipeError: no such file, or anything wrong with its content.
    """
    path = Path(folder)
    path = path / name if path.is_dir() else path
    return _validate(kind, _content(path, ()), str(path), ()), path


def content_hash(content: Mapping[str, Any]) -> str:
    """First 12 hex digits of the SHA-256 of ``content`` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _content(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The merged, overridden and interpolated content of a recipe file as plain Python."""
    config = _read_chain(path, ())
    for item in overrides:
        _override(config, item)
    try:
        content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise RecipeError(_first_line(error), where=str(path)) from error
    return typing.cast("dict[str, Any]", content)


def _read_chain(path: Path, seen: tuple[Path, ...]) -> DictConfig:
    """Read a file on top of what it ``extends``; mappings merge, everything else replaces."""
    here = path.resolve()
    if here in seen:
        chain = " -> ".join(p.name for p in (*seen[seen.index(here) :], here))
        raise RecipeError(f"extends itself: {chain}", where=str(path))
    config = _read(path)
    base = config.pop("extends", None)
    if base is None:
        return config
    if not isinstance(base, str):
        raise RecipeError(f"value {base!r}", where=f"{path}: extends", expected="a file name")
    below = _read_chain(path.parent / base, (*seen, here))
    return typing.cast(DictConfig, OmegaConf.merge(below, config))


def _read(path: Path) -> DictConfig:
    """Parse one YAML file that must hold a non-empty mapping."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            raise RecipeError("the file is empty", where=str(path), expected="a recipe mapping")
        if not isinstance(node, yaml.MappingNode):
            raise RecipeError("not a mapping", where=str(path), expected="'section: …' lines")
        return typing.cast(DictConfig, OmegaConf.create(text))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing_file(path) from error
    except IsADirectoryError as error:
        raise RecipeError("is a folder", where=str(path), expected="a YAML file") from error
    except UnicodeDecodeError as error:
        raise RecipeError("not UTF-8 text", where=str(path), expected="a YAML file") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = error.problem or error.context
        raise RecipeError(f"not valid YAML: {problem}", where=f"{path}, line {line}") from error
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise RecipeError(f"not valid YAML: {_first_line(error)}", where=str(path)) from error


def _missing_file(path: Path) -> RecipeError:
    folder = path.parent
    names = [p.name for p in folder.glob("*.yaml")] if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.4) or sorted(names)
    remedy = f"in that folder: {', '.join(near)}" if near else ""
    return RecipeError("no such file", where=str(path), expected="a YAML file", remedy=remedy)


def _override(config: DictConfig, item: str) -> None:
    """Apply one ``a.b=c``; the value is YAML, list items are ``rewards.0.weight``."""
    where = f"--set {item}"
    key, equals, text = item.partition("=")
    if not equals or not key.strip():
        raise RecipeError("no key=value", where=where, expected="a.b=value")
    try:
        parsed = typing.cast(Any, OmegaConf.to_container(OmegaConf.create(f"value: {text}")))
        OmegaConf.update(config, key.strip(), parsed["value"], merge=False, force_add=True)
    except yaml.YAMLError as error:
        raise RecipeError("value is not valid YAML", where=where) from error
    except (OmegaConfBaseException, ValueError, TypeError, AttributeError) as error:
        raise RecipeError(f"cannot be set: {_first_line(error)}", where=where) from error


def _validate(
    model: type[SpecT], content: Mapping[str, Any], path: str, overrides: Sequence[str]
) -> SpecT:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _readable(model, error, path, overrides) from error


def _readable(
    model: type[BaseModel], error: ValidationError, path: str, overrides: Sequence[str]
) -> RecipeError:
    """Turn a validation error into one line about its most telling problem."""
    # A misspelled section is both unknown and missing: the unknown key says more.
    problems = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first, places = problems[0], {tuple(_walk(model, p["loc"])[0]) for p in problems}
    keys, section = _walk(model, first["loc"])
    dotted = ".".join(map(str, keys))
    given = any(item.partition("=")[0].strip() == dotted for item in overrides)
    where = f"{path}: {dotted}{' (--set)' if given else ''}" if dotted else path
    more = f"{len(places) - 1} more problem(s) in this file" if len(places) > 1 else ""
    if first["type"] == "extra_forbidden":
        return _unknown(str(keys[-1]), section.model_fields, where, more=more)
    if first["type"] == "missing":
        return RecipeError("missing key", where=where, expected="a value", remedy=more)
    if first["type"] == "value_error":
        text = first["msg"].removeprefix("Value error, ")
        return RecipeError(text, where=where, remedy=more)
    value = first["input"]
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "…"
    return RecipeError(f"value {shown}", where=where, expected=_expected(first["msg"]), remedy=more)


def _walk(
    model: type[BaseModel], loc: Sequence[str | int]
) -> tuple[list[str | int], type[BaseModel]]:
    """The key path of an error without pydantic's union tags, and the section that holds it."""
    keys: list[str | int] = []
    section, inside = model, True
    for i, key in enumerate(loc):
        known = isinstance(key, int) or (inside and key in section.model_fields)
        if not known and i < len(loc) - 1:
            continue
        if not known and not inside:
            continue
        keys.append(key)
        if isinstance(key, str) and known:
            nested = _section_in(section.model_fields[key].annotation)
            section, inside = nested or section, nested is not None
    return keys, section


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The spec class inside a field's annotation (``list[RewardSpec]``, ``LoraSpec | None``)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section_in(argument) for argument in typing.get_args(annotation))
    return next((f for f in found if f is not None), None)


def _unknown(key: str, known: Iterable[str], where: str, *, more: str = "") -> RecipeError:
    near = difflib.get_close_matches(key, list(known), n=3, cutoff=0.5)
    expected = f"one of {', '.join(known)}" if not near and len(list(known)) <= 20 else ""
    remedy = f"nearest: {', '.join(near)}" if near else ""
    remedy = "; ".join(part for part in (remedy, more) if part)
    return RecipeError(f"unknown key {key!r}", where=where, expected=expected, remedy=remedy)


def _expected(message: str) -> str:
    text = message.removeprefix("Input should be ")
    return re.sub(r"a valid dictionary or instance of \w+", "a mapping", text)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
