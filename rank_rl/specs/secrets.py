"""Recipes hold no keys: what looks like one is refused; its name is told, never its value."""

from __future__ import annotations

import re
from typing import Any

_SECRETS = {"api_key", "apikey", "key", "token", "auth", "authorization", "password", "secret"}


def secret(content: Any) -> str:
    """The name of a parameter that would hold a secret, or nothing; never its value."""
    if isinstance(content, dict):
        for key, value in content.items():
            name = str(key).lower().replace("-", "_")
            if name in _SECRETS or name.removeprefix("x_") in _SECRETS:
                return f"{key!r}"
            if name == "base_url" and "@" in str(value):
                return "a base_url with a user or a password"
            if name == "api_key_env" and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", str(value)):
                return "an api_key_env that is not the NAME of a variable"
            if found := secret(value):
                return found
    if isinstance(content, list):
        return next(filter(None, map(secret, content)), "")
    return ""
