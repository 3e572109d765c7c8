"""Teachers that are no model: an oracle that knows the grades, and a replay of recorded answers.

The oracle writes the ideal answer of the question's format, with reasoning from the collection's
annotations; it shows what a recipe produces before money is spent, and is the ceiling that a
teacher is compared with. A replay answers from the exchanges of an earlier run or of the benchmark.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rank_rl.data import annotations as annotated
from rank_rl.data.files import json_lines
from rank_rl.errors import DataError
from rank_rl.formats.base import picks_worst
from rank_rl.generation.calls import CallError, Reply, Sampling
from rank_rl.records import Completion, Prompt, RankingTask, View

if TYPE_CHECKING:
    from rank_rl.formats.base import Format


class Oracle:
    """Answers by grade.

    Args:
        model: ignored; an oracle has no model.
        reasoning: ``explicit`` a judgement of each document, ``annotations`` the annotated steps,
            ``none`` nothing.
    """

    concurrency = 8
    retries = 0
    samples_per_request = 64

    def __init__(self, *, model: str = "", reasoning: str = "explicit") -> None:
        if reasoning not in ("explicit", "annotations", "none"):
            raise ValueError(f"reasoning is {reasoning!r}: explicit, annotations or none")
        self.model, self.reasoning = model, reasoning
        self._answers: dict[str, str] = {}

    def prepare(self, prompt: Prompt, view: View, fmt: Format, task: RankingTask) -> str:
        """Remember the ideal answer to a prompt; returns it, as it decides the key.

        Raises:
            DataError: the task has no grades.
        """
        if task.grades is None:
            raise DataError(
                "an oracle needs grades",
                where=f"query {task.query.qid!r}",
                remedy="choose another teacher for an unlabelled collection",
            )
        text = ""
        if fmt.mode == "reason":
            if len(view.docids) == 1:
                text = annotated.reasoning(task).note(view.docids[0])
            else:
                worst = picks_worst(fmt)
                text = annotated.told(task, view, self.reasoning, worst=worst)
        answer = fmt.ideal(view, task.grades, text).removeprefix(prompt.prefill)
        self._answers[_name(prompt)] = answer
        return answer

    async def once(self, prompt: Prompt, sampling: Sampling, *, samples: int = 1) -> Reply:
        """The ideal answer, once a sample."""
        return _reply(self._answers[_name(prompt)], samples, "oracle")


class Replay:
    """Answers from recorded exchanges.

    Args:
        model: ignored.
        path: JSONL with the keys ``messages`` (or ``prompt``) and ``text`` (or ``completion``), as
            ``exchanges.jsonl`` of ``rank-rl teach``.

    Raises:
        DataError: no such file, or a line without these keys.
    """

    concurrency = 8
    retries = 0
    samples_per_request = 64

    def __init__(self, *, path: str, model: str = "") -> None:
        self.model = model
        self._answers: dict[str, list[str]] = {}
        for where, record in json_lines(Path(path)):
            messages = record.get("messages", record.get("prompt"))
            text = record.get("text", record.get("completion"))
            if not isinstance(messages, list) or not isinstance(text, str):
                raise DataError(
                    "no exchange", where=where, expected="messages (a list) and text (a string)"
                )
            self._answers.setdefault(_hash(messages), []).append(text)

    def prepare(self, prompt: Prompt, view: View, fmt: Format, task: RankingTask) -> str:
        """The recorded answers to a prompt decide its key; none is a failure later."""
        return json.dumps(self._answers.get(_name(prompt), []), ensure_ascii=False)

    async def once(self, prompt: Prompt, sampling: Sampling, *, samples: int = 1) -> Reply:
        """The recorded answers in their order, the last one again where there are too few.

        Raises:
            CallError: this prompt was never recorded.
        """
        texts = self._answers.get(_name(prompt))
        if not texts:
            raise CallError("not_recorded", "no exchange has this prompt", retry=False)
        chosen = [texts[min(i, len(texts) - 1)] for i in range(samples)]
        return Reply(completions=tuple(Completion(text=t) for t in chosen), model="replay")


def _reply(text: str, samples: int, model: str) -> Reply:
    return Reply(completions=(Completion(text=text),) * samples, model=model)


def _name(prompt: Prompt) -> str:
    return _hash([dict(m) for m in prompt.messages])


def _hash(messages: list[Mapping[str, Any]]) -> str:
    kept = [{"role": m.get("role"), "content": m.get("content")} for m in messages]
    return json.dumps(kept, sort_keys=True, ensure_ascii=False)
