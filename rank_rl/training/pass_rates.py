"""Measure how often the start model solves each training row, and choose rows by it.

Answers are drawn as training will draw them and judged by the recipe's own rewards. What was earned
is written to ``pass_rates.jsonl`` as it comes: a run that was killed goes on from there, and bounds
and order can be changed without asking again. Which rows to keep is decided in ``data.curriculum``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rank_rl import seeds
from rank_rl.data.curriculum import Curriculum, Rated, choose, distribution, matched, view_key
from rank_rl.data.rows import Row, view_of
from rank_rl.errors import DataError, RecipeError
from rank_rl.records import Completion
from rank_rl.rewards.baselines import answer_kind, baselines, best_answer
from rank_rl.rewards.compose import Composite
from rank_rl.specs import RecipeSpec
from rank_rl.training.common import Stage, saving

if TYPE_CHECKING:
    from rank_rl.generation.local import LocalGenerator

logger = logging.getLogger(__name__)
FILE = "pass_rates.jsonl"
KEY = "grpo.pass_rate.file"
# Rows asked together. Their draws depend on one another, so it is the same on any number of
# processes.
CHUNK = 16


def select(
    stage: Stage, rows: Sequence[Row], composite: Composite, args: Any
) -> tuple[list[Row], dict[str, Any]]:
    """The rows to train on, in the order to train in, and a JSON-safe report.

    Args:
        stage: what ``common.begin`` returned; its model is asked as it is.
        rows: prompts as text, with the columns of their views.
        composite: the rewards.
        args: the trainer's config: sampling, processes, batch size.

    Raises:
        RankRLError: no row or too few are left, rates are missing, or weights are divided.
    """
    spec = stage.spec.grpo.pass_rate
    if spec is None:
        return list(rows), {}
    pairs = [view_of(row) for row in rows]
    views = [view for view, _ in pairs]
    rated = None
    if spec.file is not None:
        where = f"{KEY} {spec.file!r}"
        rated = matched(views, read_rates(Path(spec.file)), where=where)
    elif spec.samples:
        known = _Measuring(stage=stage, composite=composite, args=args).run(rows)
        rated = [known[view_key(view)] for view in views]
    chosen = choose(spec, pairs, rated)
    logger.info("pass rates: %s", chosen.line())
    _enough(chosen, args.generation_batch_size // args.num_generations)
    report = {**dataclasses.asdict(chosen), "kept": len(chosen.kept), "rows": len(rows)}
    return [rows[i] for i in chosen.kept], {"pass_rate": report}


def _enough(chosen: Curriculum, batch: int) -> None:
    if len(chosen.kept) < batch:
        raise DataError(
            f"{len(chosen.kept)} training rows are left, less than a batch of {batch} prompts; "
            f"{distribution(chosen.rates)}",
            where="grpo.pass_rate",
            remedy="widen low and high, or generate for fewer prompts at once",
        )


def check_file(spec: RecipeSpec) -> None:
    """Read the file of rates that a recipe names, before data and model are loaded.

    Raises:
        RecipeError: it cannot be read, or holds no rates.
    """
    if spec.grpo.pass_rate is not None and spec.grpo.pass_rate.file is not None:
        read_rates(Path(spec.grpo.pass_rate.file))


def read_rates(path: Path) -> dict[str, Rated]:
    """What a file of rates holds, by view.

    Raises:
        RecipeError: it cannot be read, or holds no rates.
    """
    expected = f"a {FILE} of a grpo run"
    try:
        found = {rated.key: rated for _, rated in _records(path) if rated is not None}
    except OSError as error:
        why = error.strerror or str(error)
        raise RecipeError(
            f"{str(path)!r} cannot be read: {why}", where=KEY, expected=expected
        ) from error
    if not found:
        raise RecipeError(f"{str(path)!r} holds no pass rates", where=KEY, expected=expected)
    return found


def _records(path: Path) -> Iterator[tuple[str | None, Rated | None]]:
    """Identities (of the lines that follow) and rates; a line cut short by a kill is neither."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            if "identity" in record:
                yield str(record["identity"]), None
            else:
                yield None, Rated.from_record(record)
        except (ValueError, KeyError, TypeError):
            continue


def _sampling(args: Any) -> None:
    """Refuse sampling that the answers of a measurement would not have.

    Raises:
        RecipeError: a setting other than temperature and top_p.
    """
    neutral = {"top_k": 0, "min_p": None, "repetition_penalty": 1.0, "generation_kwargs": None}
    for name, value in neutral.items():
        if (getattr(args, name) or value) != value:
            raise RecipeError(
                f"pass rates are not sampled with training.{name}",
                where="grpo.pass_rate",
                expected="temperature and top_p only",
                remedy="leave it out, or name a file of rates",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measuring:
    """One measurement: a stage's model, rewards and sampling."""

    stage: Stage
    composite: Composite
    args: Any

    def run(self, rows: Sequence[Row]) -> dict[str, Rated]:
        """Rates of all rows by view; what the folder already holds is not asked again."""
        from accelerate import PartialState
        from accelerate.utils import gather_object

        _sampling(self.args)
        self.stage.loaded.model.to(self.args.device)  # also sets the processes up
        state = PartialState()
        asked = list({view_key(view_of(row)[0]): row for row in rows}.items())
        known = self._known(state)
        chunks = [asked[start : start + CHUNK] for start in range(0, len(asked), CHUNK)]
        open_ = [chunk for chunk in chunks if any(key not in known for key, _ in chunk)]
        if open_:
            self._whole_weights()
        mine = dict(known)
        path = self._path(state.process_index)
        for chunk in self._bar(open_[state.process_index :: state.num_processes], state):
            found = self._ask([row for _, row in chunk])
            self._append(path, [rated for rated in found if rated.key not in mine])
            mine = {rated.key: rated for rated in found} | mine
        everyone = {r.key: r for r in gather_object(list(mine.values()))}
        state.wait_for_everyone()
        if state.is_main_process:
            self._replace([everyone[key] for key, _ in asked])
        state.wait_for_everyone()
        return everyone

    @property
    def identity(self) -> str:
        """Fingerprint of whatever changes an answer or its reward."""
        spec = self.stage.spec
        told = [
            self.stage.loaded.revision,
            spec.model.model_dump(mode="json"),
            spec.format.model_dump(mode="json"),
            self.stage.fmt.version,
            [reward.model_dump(mode="json") for reward in spec.rewards],
            spec.grpo.pass_rate.samples if spec.grpo.pass_rate else 0,
            [self.args.temperature, self.args.top_p, self.args.max_completion_length],
            spec.run.seed,
            dict(self.stage.collection.provenance),
        ]
        return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()[:16]

    def _path(self, process: int) -> Path:
        """The file that a process appends to."""
        name = FILE if process == 0 else f"pass_rates.rank{process}.jsonl"
        return self.stage.out_dir / name

    def _known(self, state: Any) -> dict[str, Rated]:
        """What former runs of this measurement found; what is of another one is removed."""
        folder = self.stage.out_dir
        if state.is_main_process:
            found: dict[str, Rated] = {}
            stale = 0
            for path in sorted(folder.glob("pass_rates*.jsonl")):
                current: str | None = None
                for identity, rated in _records(path):
                    current = identity or current
                    if rated is not None and current == self.identity:
                        found[rated.key] = rated
                    stale += rated is not None and current != self.identity
            if stale:
                logger.info("pass rates: %s of other weights or settings are dropped", stale)
            self._replace(list(found.values()))
        state.wait_for_everyone()
        path = self._path(0)
        held = {r.key: r for _, r in _records(path) if r} if path.is_file() else {}
        state.wait_for_everyone()
        return held

    def _replace(self, rated: Sequence[Rated]) -> None:
        """Write all rates in one step, and drop the files of the other processes."""
        path = self._path(0)
        part = path.with_name(path.name + ".part")
        with saving(self.stage.out_dir):
            part.write_text(self._lines(rated, head=True), encoding="utf-8")
            os.replace(part, path)
        for other in self.stage.out_dir.glob("pass_rates.rank*.jsonl"):
            other.unlink(missing_ok=True)

    def _append(self, path: Path, rated: Sequence[Rated]) -> None:
        with saving(self.stage.out_dir), path.open("a", encoding="utf-8") as file:
            file.write(self._lines(rated, head=not path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())

    def _lines(self, rated: Sequence[Rated], *, head: bool) -> str:
        records = [{"identity": self.identity}] if head else []
        return "".join(json.dumps(r) + "\n" for r in [*records, *(r.record() for r in rated)])

    def _whole_weights(self) -> None:
        """Before the trainer exists, sharded weights are on no process whole.

        Raises:
            RecipeError: the launch shards them.
        """
        from transformers.integrations import is_deepspeed_zero3_enabled

        if is_deepspeed_zero3_enabled() or os.environ.get("ACCELERATE_USE_FSDP") == "true":
            raise RecipeError(
                "answers of the start model cannot be drawn from sharded weights",
                where="grpo.pass_rate",
                remedy="run once with plain data parallelism, and name its "
                f"{FILE} as grpo.pass_rate.file",
            )

    def _bar(self, chunks: Sequence[Any], state: Any) -> Iterator[Any]:
        """The chunks of this process, with a progress bar in rows."""
        from tqdm.auto import tqdm

        hidden = self.args.disable_tqdm or not state.is_main_process
        with tqdm(desc="pass rates", total=sum(map(len, chunks)), disable=hidden) as bar:
            for chunk in chunks:
                yield chunk
                bar.update(len(chunk))

    def _ask(self, rows: Sequence[Row]) -> list[Rated]:
        """Answer some rows ``samples`` times and judge the answers."""
        spec = self.stage.spec
        assert spec.grpo.pass_rate is not None
        tokenizer = self.stage.loaded.tokenizer
        ids = [list(tokenizer(text=row["prompt"])["input_ids"]) for row in rows]
        draws = [
            self._generator(draw).generate_ids(ids) for draw in range(spec.grpo.pass_rate.samples)
        ]
        return [self._rated(row, [d[i] for d in draws]) for i, row in enumerate(rows)]

    def _generator(self, draw: int) -> LocalGenerator:
        from rank_rl.generation.local import LocalGenerator

        return LocalGenerator(
            self.stage.loaded,
            max_new_tokens=self.args.max_completion_length,
            temperature=self.args.temperature,
            top_p=self.args.top_p,
            seed=seeds.derive(self.stage.spec.run.seed, "pass rate", draw),
        )

    def _rated(self, row: Mapping[str, Any], said: Sequence[Completion]) -> Rated:
        view, grades = view_of(row)
        fmt, prefill = self.stage.fmt, row["prefill"]
        kind = answer_kind(fmt, view, grades)
        best = best_answer(self.composite, fmt, view, grades, kind)
        lines = baselines(self.composite, view, grades, kind, best)
        totals = [
            self.composite(fmt.parse(c.text, view, prefill=prefill), view, grades, c).total
            for c in said
        ]
        return Rated(
            key=view_key(view),
            qid=view.query.qid,
            totals=tuple(totals),
            copy=lines.copy,
            ceiling=lines.ceiling,
        )
