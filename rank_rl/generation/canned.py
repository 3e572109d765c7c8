"""Replay of completions that are already known: recorded exchanges, hand-written answers.

For finding out why an answer was parsed the way it was, and for running strategies and benches
without a model. Nothing is generated here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rank_rl.generation import Progress
from rank_rl.records import Completion, Prompt


class CannedGenerator:
    """Answers each prompt with the text recorded for it.

    Args:
        answers: text of a prompt's last message → answer; or answers given in turn, the first
            for the first prompt ever asked, starting again when they are used up.
    """

    batch_size = 8

    def __init__(self, answers: Mapping[str, str] | Sequence[str]) -> None:
        self.answers = answers
        self.asked: list[Prompt] = []

    def generate(
        self, prompts: Sequence[Prompt], *, progress: Progress | None = None
    ) -> list[Completion]:
        """Return the recorded answers; a prompt without one gets ``finish="error"``."""
        completions = []
        for prompt in prompts:
            text = self._answer(prompt)
            self.asked.append(prompt)
            finish = "error" if text is None else "stop"
            completions.append(Completion(text=text or "", finish=finish))  # type: ignore[arg-type]
            if progress is not None:
                progress(1)
        return completions

    def _answer(self, prompt: Prompt) -> str | None:
        if isinstance(self.answers, Mapping):
            return self.answers.get(prompt.messages[-1]["content"])
        return self.answers[len(self.asked) % len(self.answers)] if self.answers else None
