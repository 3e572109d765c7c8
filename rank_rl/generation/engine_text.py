"""Text from vLLM: many prompts at once, stopped where each is done.

Contract: as ``LocalGenerator``: one completion a prompt, in order, with the same ends and counts; a
drawn answer depends on the seed and the prompt alone; a prompt that leaves no room to answer gets
``finish="error"``.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rank_rl.generation import Progress
from rank_rl.generation.endings import finished
from rank_rl.generation.engine import Engine
from rank_rl.generation.local import STOP
from rank_rl.generation.ruled import Request, in_two
from rank_rl.records import Completion, Prompt
from rank_rl.seeds import derive


class EngineGenerator:
    """Greedy or sampled answers of an engine; implements ``Generator``.

    Args:
        engine: what writes.
        max_new_tokens: most tokens of an answer.
        temperature: 0 is greedy.
        top_p: nucleus, in (0, 1]; 1 keeps every token.
        seed: what sampling is derived from, together with the prompt.

    ``stop`` holds the texts that end an answer; they stay in it.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.engine = engine
        self.tokens = engine.tokens
        self.max_new_tokens = max_new_tokens
        self.temperature, self.top_p, self.seed = temperature, top_p, seed
        self.batch_size = engine.settings.batch_size
        self.stop: tuple[str, ...] = STOP

    @property
    def deterministic(self) -> bool:
        """Whether a prompt always gets the same answer."""
        return self.temperature == 0

    def shortened(self, max_new_tokens: int) -> EngineGenerator:
        """The same generator with shorter answers."""
        return self.drawing(max_new_tokens=min(max_new_tokens, self.max_new_tokens))

    def drawing(
        self, *, max_new_tokens: int | None = None, stop: tuple[str, ...] | None = None
    ) -> EngineGenerator:
        """The same generator with another length or other ends of an answer."""
        other = copy.copy(self)
        other.max_new_tokens = max_new_tokens or self.max_new_tokens
        other.stop = self.stop if stop is None else stop
        return other

    def generate(
        self, prompts: Sequence[Prompt], *, progress: Progress | None = None
    ) -> list[Completion]:
        """Answer prompts; ``seconds`` of a completion is its share of the whole."""
        return self.generate_ids(self.tokens.encode_prompts(prompts), progress=progress)

    def answer(
        self, requests: Sequence[Request], *, progress: Progress | None = None
    ) -> list[Completion]:
        """Answer prompts, each by its rule; see ``ruled.Request``.

        Raises:
            ModelError: vLLM failed, or the model's tokens do not allow a rule.
        """
        from rank_rl.generation.engine_grammar import answered

        return in_two(requests, self.generate, lambda asked: answered(self, asked), progress)

    def generate_ids(
        self, rows: Sequence[Sequence[int]], *, progress: Progress | None = None
    ) -> list[Completion]:
        """Go on from token ids, one row a prompt.

        Raises:
            ModelError: vLLM failed.
        """
        started = time.perf_counter()
        fitting = [i for i, row in enumerate(rows) if len(row) < self.engine.window]
        params = [self._params(rows[i]) for i in fitting]
        outputs = self.engine.run([rows[i] for i in fitting], params) if fitting else []
        share = (time.perf_counter() - started) / max(1, len(fitting))
        done = {
            i: replace(self._completion(output.outputs[0]), seconds=share)
            for i, output in zip(fitting, outputs, strict=True)
        }
        if progress is not None:
            progress(len(rows))
        none = Completion(text="", finish="error")
        return [replace(done.get(i, none), prompt_tokens=len(row)) for i, row in enumerate(rows)]

    def write(self, rows: Sequence[Sequence[int]]) -> list[list[int]]:
        """The ids written behind each row, with the one that ended it; none where there is no room.

        Raises:
            ModelError: vLLM failed.
        """
        fitting = [i for i, row in enumerate(rows) if len(row) < self.engine.window]
        params = [self._params(rows[i]) for i in fitting]
        outputs = self.engine.run([rows[i] for i in fitting], params) if fitting else []
        written = {i: list(o.outputs[0].token_ids) for i, o in zip(fitting, outputs, strict=True)}
        return [written.get(i, []) for i in range(len(rows))]

    def _params(self, row: Sequence[int]) -> dict[str, Any]:
        """Every setting is given, so that none leaks in from the model's own configuration."""
        drawn = self.temperature > 0
        return {
            "max_tokens": min(self.max_new_tokens, self.engine.window - len(row)),
            "temperature": self.temperature,
            "top_p": self.top_p if drawn else 1.0,
            "seed": derive(self.seed, *row) if drawn else None,
            "stop": list(self.stop) or None,
            "stop_token_ids": list(self.engine.ends),
            "include_stop_str_in_output": True,
            "skip_special_tokens": True,
        }

    def _completion(self, output: Any) -> Completion:
        read = finished(self.tokens, list(output.token_ids), self.engine.ends, self.stop)
        return read if output.finish_reason != "stop" else replace(read, finish="stop")
