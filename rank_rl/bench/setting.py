"""How a system of the benchmark is asked, which model it asks, and what its numbers depend on.

Contract: ``key`` changes whenever a system could give other numbers, so that finished systems are
reused safely. Asking is left to ``systems``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rank_rl
from rank_rl import formats, strategies
from rank_rl.errors import RecipeError
from rank_rl.generation.readout import readout_for
from rank_rl.generation.reasoning import check_reasoning
from rank_rl.hub.contract import FILE, PromptContract
from rank_rl.models.sources import locate
from rank_rl.records import RankingTask
from rank_rl.specs import FormatSpec, Readout, Reasoning, RecipeSpec, StrategySpec, SystemSpec
from rank_rl.strategies.fit import check_fit

if TYPE_CHECKING:
    from rank_rl.formats import Format
    from rank_rl.models.loading import Loaded
    from rank_rl.models.tokens import ChatTokens

_EXPECTED = {"slots": "slots", "text": "that writes", "scorer": "that a scorer reads"}
OTHERS = ("endpoint", "cross_encoder")  # kinds whose model is no checkpoint: see ``others``
T = TypeVar("T")
MAX_NEW_TOKENS = 256  # of a system without a checkpoint that says how long answers are


class Models:
    """Loads models for systems and keeps the last one, as neighbours often share it."""

    def __init__(self, spec: RecipeSpec) -> None:
        self.spec = spec
        self._last: tuple[tuple[str, ...], Any] | None = None

    def revision(self, name: str) -> str:
        """What pins the content of a model (downloads or converts it if needed)."""
        return locate(name, self.pinned(name)).revision

    def tokens(self, name: str) -> ChatTokens:
        """The tokenizer of a model, without its weights."""
        from rank_rl.models.loading import load_tokenizer
        from rank_rl.models.tokens import ChatTokens

        return ChatTokens(load_tokenizer(locate(name, self.pinned(name))))

    def load(self, name: str, fmt: Format) -> Loaded:
        """Load a model as the recipe's model section says, in the form that a format asks."""
        from rank_rl.models.scorers.loading import load_for

        # A scorer is made for its format; all others are asked through the same weights.
        form = fmt.spec.model_dump_json() if formats.kind(fmt) == "scorer" else ""
        update = {"name": name, "revision": self.pinned(name), "lora": None}
        spec = self.spec.model.model_copy(update=update)
        return self.keep((name, form), lambda: load_for(fmt, spec))

    def keep(self, key: tuple[str, ...], make: Callable[[], T]) -> T:
        """What was made last for this key, else a new one in its place: two need not fit."""
        if self._last is None or self._last[0] != key:
            self._last = None
            self._last = key, make()
        found: T = self._last[1]
        return found

    def pinned(self, name: str) -> str | None:
        """The revision that the recipe asks of a model."""
        return self.spec.model.revision if name == self.spec.model.name else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a system is asked; ``contract`` is the hash of its checkpoint's, empty without one."""

    format: FormatSpec
    strategy: StrategySpec
    readout: Readout
    reasoning: Reasoning
    max_new_tokens: int
    contract: str


def setting(system: SystemSpec, spec: RecipeSpec) -> Setting:
    """Format, strategy, readout, reasoning and length of answers of a system.

    The system's own come first, then those saved with its checkpoint, then the recipe's; a format
    is skipped when it does not answer in the system's kind.

    Raises:
        RecipeError: no format fits, or it cannot be read out as asked for.
        ModelError: the checkpoint's wording is not the installed one.
    """
    if system.kind in OTHERS:
        from rank_rl.bench.others import other_setting

        return other_setting(system, spec)
    return setting_with(system, spec, _contract(system, spec))


def setting_with(system: SystemSpec, spec: RecipeSpec, contract: PromptContract | None) -> Setting:
    """``setting`` of a system whose checkpoint has this contract, or none."""
    from_checkpoint = [contract.format] if contract else []
    known = [system.format] if system.format else [*from_checkpoint, spec.format]
    fitting = [f for f in known if formats.kind(formats.make(f)) == system.kind]
    if not fitting:
        raise RecipeError(
            f"no format for kind {system.kind}",
            where=f"bench.systems {system.name!r}",
            expected=f"a format {_EXPECTED[system.kind]} under its format key",
        )
    chosen = fitting[0]
    own = contract if contract and contract.format.name == chosen.name else None
    if own and chosen == own.format:
        own.check(formats.make(chosen), where=f"model {system.model!r}")
    # The recipe's readout is meant for the recipe's format.
    saved = own.readout if own else spec.eval.readout if chosen.name == spec.format.name else "auto"
    wanted = saved if system.readout == "auto" else system.readout
    reasoning = _reasoning(system, spec, own, chosen)
    where = f"bench.systems {system.name!r}: readout"
    readout = readout_for(formats.make(chosen), wanted, where=where, reasoning=reasoning)
    scores = system.kind != "text"
    fallback = StrategySpec(name="by_score") if scores else spec.eval.strategy
    return Setting(
        format=chosen,
        strategy=system.strategy or (own.strategy if own else fallback),
        readout=readout,
        reasoning=reasoning,
        max_new_tokens=system.max_new_tokens or (own.max_new_tokens if own else MAX_NEW_TOKENS),
        contract=contract.hash if contract else "",
    )


def settled(system: SystemSpec, spec: RecipeSpec) -> Setting | None:
    """``setting`` where it is known without fetching anything; None for a checkpoint to come.

    Raises:
        RecipeError, ModelError: as ``setting``.
    """
    if not system.model:
        return None
    if system.kind in OTHERS:
        return setting(system, spec)
    contract = contract_here(system.model)
    bare = system.model.startswith("pip:") or Path(system.model).expanduser().is_dir()
    return setting_with(system, spec, contract) if contract or bare else None


def check_strategy(
    system: SystemSpec, how: Setting, spec: RecipeSpec, tasks: Sequence[RankingTask]
) -> None:
    """Refuse a strategy that the system's format does not fit, before the model is asked.

    Raises:
        RecipeError: naming the system.
    """
    strategy = strategies.make(how.strategy, seed=spec.run.seed)
    where = f"bench.systems {system.name!r}"
    check_fit(tasks, strategy, formats.make(how.format), how.readout, where=where)


def _reasoning(
    system: SystemSpec, spec: RecipeSpec, own: PromptContract | None, chosen: FormatSpec
) -> Reasoning:
    """Whether reasoning is skipped: as the system says, its checkpoint, or the recipe.

    The recipe's switch is meant for the recipe's format.

    Raises:
        RecipeError: the system skips what its format does not write.
    """
    known = "write"
    if own and chosen == own.format:
        known = own.reasoning
    elif chosen == spec.format:
        known = spec.eval.reasoning
    where = f"bench.systems {system.name!r}: reasoning"
    return check_reasoning(formats.make(chosen), system.reasoning or known, where=where)


def saved_format(model: str, models: Models) -> FormatSpec | None:
    """The format saved with a checkpoint; None for a model without a contract."""
    contract = _saved(model, models.pinned(model))
    return contract.format if contract else None


def _contract(system: SystemSpec, spec: RecipeSpec) -> PromptContract | None:
    """The contract saved with a system's checkpoint, if it has one."""
    if not system.model:
        return None
    return _saved(system.model, spec.model.revision if system.model == spec.model.name else None)


def contract_here(model: str) -> PromptContract | None:
    """The contract in a model's folder; None where there is no folder yet. Nothing is fetched."""
    folder = Path(model).expanduser()
    return PromptContract.read(folder) if (folder / FILE).is_file() else None


def _saved(model: str, revision: str | None) -> PromptContract | None:
    if model.startswith("pip:"):
        return None
    source = locate(model, revision)
    folder = source.adapter or source.path
    return PromptContract.read(folder) if (folder / FILE).is_file() else None


def key(system: SystemSpec, spec: RecipeSpec, tasks: Sequence[RankingTask], models: Models) -> str:
    """Hash of everything that a system's rankings depend on."""
    parts: dict[str, Any] = {
        "rank_rl": rank_rl.__version__,
        "seed": spec.run.seed,
        # What is made of a system's rankings afterwards asks nothing again.
        "system": system.model_dump(mode="json", exclude={"fusion"}),
        "test": digest([_task_facts(t) for t in tasks]),
    }
    if system.model is not None:
        how = setting(system, spec)
        parts |= {
            **_pins(system, spec, models),
            "format": how.format.model_dump(mode="json"),
            "wording": formats.make(how.format).version,
            "strategy": how.strategy.model_dump(mode="json"),
            "readout": how.readout,
            "reasoning": how.reasoning,
            "max_new_tokens": how.max_new_tokens,
        }
    elif system.path is not None and Path(system.path).is_file():
        parts["file"] = hashlib.sha256(Path(system.path).read_bytes()).hexdigest()
    return digest(parts)


def _pins(system: SystemSpec, spec: RecipeSpec, models: Models) -> dict[str, Any]:
    """What pins the content of a system's model."""
    if system.kind in OTHERS:
        from rank_rl.bench.others import other_pins

        return other_pins(system, spec, models)
    loading = spec.model.model_dump(mode="json", include={"dtype", "autocast"})
    return {"model": models.revision(str(system.model)), "loading": loading}


def _task_facts(task: RankingTask) -> list[Any]:
    shown = [[c.docid, c.title, c.text, c.rank, c.score] for c in task.candidates]
    # Grades decide the perfect order only, but a key that is too strict costs little.
    return [task.query.qid, task.query.text, task.query.instruction, shown, dict(task.grades or {})]


def digest(content: Any) -> str:
    """First 16 hex digits of SHA-256 over a JSON value."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
