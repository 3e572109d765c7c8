"""Parameters of labels and filters, checked for their types before anything is sent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rank_rl import registry
from rank_rl.errors import RecipeError


def checked(kind: str, name: str, params: Mapping[str, Any], table: Mapping[str, str]) -> Any:
    """``registry.build`` that also refuses values of a wrong type, where the part is a dataclass.

    Raises:
        RecipeError: an unknown name or parameter, a wrong type, or a value that is refused.
    """
    made_by = registry.resolve(kind, name, table)
    if dataclasses.is_dataclass(made_by):
        known = {f.name for f in dataclasses.fields(made_by) if f.init}
        try:
            TypeAdapter(made_by).validate_python({k: v for k, v in params.items() if k in known})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            message = first["msg"].removeprefix("Value error, ")
            where = f"{kind} {name!r}: {key}" if key else f"{kind} {name!r}"
            raise RecipeError(message, where=where) from error
    return registry.build(kind, name, params, table)
