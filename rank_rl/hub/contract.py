"""The prompt contract: how a checkpoint wants to be asked, saved beside its weights.

A reranker is only as good as the prompt it was trained with, so ``rank_rl.json`` pins format,
wording version, strategy and readout, and where the checkpoint came from. Reading checks that the
file is whole and that this version of rank_rl still writes the same words. It is data: a file that
names code (``package.module:Name``) is refused unless ``RANK_RL_TRUST_CODE`` names the package.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rank_rl
from rank_rl.errors import ModelError
from rank_rl.generation.readout import readout_for
from rank_rl.generation.reasoning import check_reasoning
from rank_rl.specs import FormatSpec, StrategySpec

if TYPE_CHECKING:
    from rank_rl.formats.base import Format

FILE = "rank_rl.json"
MOST_BYTES = 1 << 20
MOST_TOKENS = 1 << 20
MOST_TEXT = 4096
TRUST = "RANK_RL_TRUST_CODE"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptContract:
    """What has to be the same at inference as in training, and where a checkpoint came from.

    Attributes:
        format: the format with its mode and budgets.
        version: the wording the model was trained with, e.g. ``permutation/default@1``.
        strategy: how validation ranked with it.
        readout: what validation took as a document's score: ``score``, ``expected``,
            ``guided`` or ``decoded``. Files of the first days say ``slots`` for score and ``text``
            for decoded.
        stage: the stage that wrote the checkpoint (score, sft, grpo).
        base_model, base_revision: what the stage started from.
        recipe_hash, data: the recipe's hash and the name of the training collection.
        max_new_tokens: most tokens of an answer (text) or an explanation (slots).
        reasoning: ``skip`` where validation let the model answer at once, else ``write``, which is
            not written to the file.
        rank_rl_version: version that wrote the file.
        extra: anything else worth knowing (validation metric, parent stages …).
    """

    format: FormatSpec
    version: str
    strategy: StrategySpec
    readout: str
    stage: str = ""
    base_model: str = ""
    base_revision: str = ""
    recipe_hash: str = ""
    data: str = ""
    max_new_tokens: int = 256
    reasoning: str = "write"
    rank_rl_version: str = rank_rl.__version__
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, fmt: Format, strategy: StrategySpec, **known: Any) -> PromptContract:
        """The contract of a format; ``readout`` may be ``auto``.

        Raises:
            RecipeError: the format cannot be read out that way, or has no reasoning to skip.
        """
        known["reasoning"] = check_reasoning(fmt, known.get("reasoning", "write"))
        known["readout"] = readout_for(
            fmt, known.get("readout", "auto"), reasoning=known["reasoning"]
        )
        return cls(format=fmt.spec, version=fmt.version, strategy=strategy, **known)

    @property
    def mode(self) -> str:
        """``reason`` or ``answer``."""
        return self.format.mode

    @property
    def hash(self) -> str:
        """First 12 hex digits of SHA-256 over everything in the contract."""
        text = json.dumps(self._content(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def record(self) -> dict[str, Any]:
        """What the file holds, with the mode and the hash."""
        return {**self._content(), "mode": self.mode, "hash": self.hash}

    def write(self, folder: str | Path) -> Path:
        """Save as ``rank_rl.json`` in a checkpoint folder."""
        path = Path(folder) / FILE
        text = json.dumps(self.record(), indent=2, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")
        return path

    @classmethod
    def read(cls, folder: str | Path) -> PromptContract:
        """Read the contract of a checkpoint folder.

        Raises:
            ModelError: there is none, it cannot be read, or it was changed by hand.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise ModelError(
                f"{FILE} is missing",
                where=str(folder),
                expected="a checkpoint saved by rank_rl",
                remedy="name a format to use it without a contract, e.g. rerank --format slots",
            )
        try:
            content = _content(path)
            known = {f.name: content[f.name] for f in fields(cls) if f.name in content}
            known["format"] = FormatSpec.model_validate(content["format"])
            known["strategy"] = StrategySpec.model_validate(content["strategy"])
            contract = cls(**known)
            _check_types(contract)
            whole = content.get("hash") == contract.hash
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            said = str(error)[:300] or type(error).__name__
            raise ModelError(f"cannot be read: {said}", where=str(path)) from error
        if not whole:
            raise ModelError(
                "hash does not match its content",
                where=str(path),
                remedy="restore the file; pass overrides instead of editing it",
            )
        _check_names(contract, str(path))
        return contract

    def check(self, fmt: Format, *, where: str = "") -> None:
        """Check that a format still writes the words this checkpoint was trained with.

        Raises:
            ModelError: the wording has another version.
        """
        if fmt.version != self.version:
            raise ModelError(
                f"trained with wording {self.version}, installed is {fmt.version}",
                where=where or "prompt contract",
                remedy=f"use rank_rl {self.rank_rl_version} or train again",
            )

    def _content(self) -> dict[str, Any]:
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        content["format"] = self.format.model_dump(mode="json")
        content["strategy"] = self.strategy.model_dump(mode="json")
        if self.reasoning == "write":  # files from before there was a choice have no such key
            del content["reasoning"]
        return content


def _content(path: Path) -> Mapping[str, Any]:
    """The JSON object in a contract's file; ValueError where it is too large or none."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    return content


def _check_types(contract: PromptContract) -> None:
    """ValueError where a value is not of the kind that every contract has."""
    for part in fields(contract):
        value = getattr(contract, part.name)
        if part.type == "str" and (not isinstance(value, str) or len(value) > MOST_TEXT):
            raise ValueError(f"{part.name} is no text of at most {MOST_TEXT} characters")
    most = contract.max_new_tokens
    if isinstance(most, bool) or not isinstance(most, int) or not 0 <= most <= MOST_TOKENS:
        raise ValueError(f"max_new_tokens is {most!r:.40}, not a number up to {MOST_TOKENS}")
    if not isinstance(contract.extra, dict):
        raise ValueError("extra is no JSON object")
    for params in (contract.format.params, contract.strategy.params):
        json.dumps(params, allow_nan=False)  # ValueError for numbers that are none


def _check_names(contract: PromptContract, where: str) -> None:
    """Refuse names of code, on any level, that nobody asked for.

    Raises:
        ModelError: naming the first one.
    """
    trusted = {name.strip() for name in os.environ.get(TRUST, "").split(",")} - {""}
    spec, strategy = contract.format, contract.strategy
    for name in (spec.name, strategy.name, *_names([spec.params, strategy.params])):
        package = name.partition(":")[0].partition(".")[0]
        if ":" in name and package not in trusted:
            raise ModelError(
                f"names code to run, {name[:80]!r}",
                where=where,
                expected="parts of rank_rl",
                remedy=f"if you trust it, set {TRUST}={package[:40]}",
            )


def _names(value: Any) -> Iterator[str]:
    """Everything that a strategy inside others may be called."""
    if isinstance(value, Mapping):
        if isinstance(value.get("name"), str):
            yield value["name"]
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _names(inner)
