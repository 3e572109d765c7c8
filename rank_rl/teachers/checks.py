"""What is wrong with a ``teach`` section, found before anything is sent or written."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rank_rl.errors import DataError, RecipeError
from rank_rl.specs import RecipeSpec, TeachSpec
from rank_rl.teachers import filters, labels, push
from rank_rl.teachers.asking import deciding

_LEAST_SECRET = 8


def check(spec: RecipeSpec) -> TeachSpec:
    """Return the ``teach`` section of a recipe if it can be run.

    Raises:
        RecipeError: nothing to ask; an unknown name, a wrong parameter, or a question that is not
            asked; two teachers that could not be told apart; a key in the recipe.
        DataError: a file to import is not there.
    """
    teach = spec.teach
    if teach is None or not (teach.questions or teach.imports):
        raise RecipeError(
            "nothing to ask",
            where="teach",
            expected="teach.questions with teach.teachers, or teach.imports",
        )
    check_secrets(spec)
    labels.make(teach.labels)
    for one in teach.filters:
        filters.make(one)
    _names(teach)
    _teachers(teach)
    for source in teach.imports:
        if not Path(source.path).expanduser().exists():
            raise DataError("no such file", where=f"teach.imports {source.path}")
    if teach.hub:
        push.check(teach.hub)
    return teach


def check_secrets(spec: RecipeSpec) -> None:
    """Refuse a recipe that holds the value of a key, however it came there.

    Raises:
        RecipeError: naming the variable, never its value.
    """
    teachers = spec.teach.teachers.values() if spec.teach else ()
    names = {str(t.params.get("api_key_env", "OPENAI_API_KEY")) for t in teachers}
    content = json.dumps(spec.model_dump(mode="json"), ensure_ascii=False, default=str)
    for name in sorted(names | {"OPENAI_API_KEY", "HF_TOKEN"}):
        value = os.environ.get(name, "")
        if len(value) >= _LEAST_SECRET and value in content:
            raise RecipeError(
                f"the recipe holds the value of {name}",
                where="recipe",
                remedy="keys come from the environment only: recipes are written to disk",
            )


def _names(teach: TeachSpec) -> None:
    """Labels and filters speak of questions that are asked."""
    named = [("labels", teach.labels.name, teach.labels.params)]
    named += [("filter", f.name, f.params) for f in teach.filters]
    asked = [q.name for q in teach.questions]
    for kind, name, params in named:
        given = [params.get(key) for key in ("question", "of", "listed", "judged")]
        for question in (*given, *params.get("questions", ())):
            if ":" not in name and question is not None and question not in asked:
                raise RecipeError(
                    f"question {question!r} is not asked",
                    where=f"teach: {kind} {name!r}",
                    expected=f"one of {', '.join(asked)}",
                )


def _teachers(teach: TeachSpec) -> None:
    """Two servers with models of one name would answer for one another from the store."""
    seen: dict[str, tuple[str, object]] = {}
    for name, teacher in teach.teachers.items():
        if teacher.name != "endpoint":
            continue
        key, server = deciding(teacher), teacher.params.get("base_url")
        other, its_server = seen.setdefault(key, (name, server))
        if server != its_server:
            raise RecipeError(
                f"teachers {other!r} and {name!r} have the same model on different servers",
                where="teach.teachers",
                expected="names that tell them apart: answers are stored under the model's name",
                remedy="give one a model name of its own, or another run.output_dir",
            )
