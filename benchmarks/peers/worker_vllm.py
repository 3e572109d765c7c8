"""vLLM's offline ``LLM.generate`` with rank_rl's prompts, all prompts of a round in one call."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from prompts import Asker, Rows
from protocol import serve

CONTEXT = 4096
TOGETHER = 64
_KEPT: dict[str, Any] = {}


class Vllm:
    """Rows of token ids through one vLLM engine; prefixes are kept as vLLM does by default."""

    def __init__(self, folder: str, dtype: str) -> None:
        if folder not in _KEPT:
            from vllm import LLM

            # Labels are compared among themselves: log-probabilities of the tokens allowed.
            _KEPT[folder] = LLM(
                model=folder,
                dtype=dtype,
                max_model_len=CONTEXT,
                logprobs_mode="processed_logprobs",
            )
        self.llm, self.computed = _KEPT[folder], 0

    def labels(self, rows: Rows, choices: Sequence[Sequence[int]]) -> list[list[float]]:
        """One token a row, of those allowed."""
        from vllm import SamplingParams

        how = [
            SamplingParams(
                max_tokens=1, temperature=0.0, logprobs=len(ids), allowed_token_ids=list(ids)
            )
            for ids in choices
        ]
        found = []
        for out, ids in zip(self._run(rows, how), choices, strict=True):
            said = out.outputs[0].logprobs[0]
            found.append([said[i].logprob for i in ids])
        return found

    def texts(self, rows: Rows, most: int) -> Rows:
        """Greedy answers."""
        from vllm import SamplingParams

        how = SamplingParams(max_tokens=most, temperature=0.0)
        end = self.llm.get_tokenizer().eos_token_id
        answers = [list(out.outputs[0].token_ids) for out in self._run(rows, how)]
        return [ids[:-1] if ids and ids[-1] == end else ids for ids in answers]

    def _run(self, rows: Rows, how: Any) -> Any:
        return self.llm.generate([{"prompt_token_ids": row} for row in rows], how, use_tqdm=False)


def open_system(settings: Mapping[str, Any], workload: Mapping[str, Any]) -> Asker:
    """The engine of a folder, which starts once."""
    engine = Vllm(settings["folder"], settings["dtype"])
    return Asker(engine.llm.get_tokenizer(), workload, engine, TOGETHER)


if __name__ == "__main__":
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    serve(open_system, ("vllm", "torch", "transformers"))
