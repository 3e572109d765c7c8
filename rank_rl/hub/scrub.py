"""Nothing private leaves the machine: paths made portable, keys found and refused.

Contract: files that this toolkit and its libraries write about a run (JSON, YAML, logs) get their
absolute paths shortened; texts of models and collections are never changed. A key is never
shortened away: it is named by file, line and kind, never by value, because whoever wrote it down
has to revoke it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rank_rl.errors import DataError

# Keys whose values stay: prompts, and what is keyed by query ids, which may look like paths.
VERBATIM = frozenset({"per_query", "slices", "chat_template"})

_POSIX = re.compile(r"(?<![\w/:.~<>@%{}\\-])/(?:[\w.@+~=,:-]+/)+[\w.@+~=,:-]*")
_WINDOWS = re.compile(r"(?<![\w])[A-Za-z]:\\(?:[^\\\s\"'<>|:*?]+\\)*[^\\\s\"'<>|:*?]+")
_SNAPSHOT = re.compile(r"(?:^|/)models--([^/]+?)--([^/]+)/snapshots/[^/]+(?:/(.*))?$")

# What keys look like, wherever they stand.
KEYS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("a Hugging Face token", re.compile(r"(?<![\w-])(?:hf|api_org)_[A-Za-z0-9]{20,}")),
    ("an OpenAI-style key", re.compile(r"(?<![\w-])sk-(?=[\w-]*\d)[\w-]{20,}")),
    ("an AWS key id", re.compile(r"(?<!\w)(?:AKIA|ASIA)[0-9A-Z]{16}(?!\w)")),
    ("a GitHub token", re.compile(r"(?<!\w)(?:gh[pousr]_\w{36,}|github_pat_\w{22,})")),
    ("a GitLab token", re.compile(r"(?<!\w)glpat-[\w-]{20,}")),
    ("a Google key", re.compile(r"(?<!\w)AIza[\w-]{35}")),
    ("a Slack token", re.compile(r"(?<!\w)xox[abeprs]-[\w-]{10,}")),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
    ("a bearer token", re.compile(r"(?i)(?<!\w)bearer\s+(?=[\w.~+/-]*\d)[\w.~+/-]{20,}")),
)
# What would be a key in a recipe or a log, but may be a sentence in a document.
ASSIGNED: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "a key",
        re.compile(
            r"(?i)(?<![a-z])(?:api[_-]?key|access[_-]?token|auth[_-]?token|secret(?:[_-]?key)?"
            r"|password|passwd)[\"']?\s*[:=]\s*[\"']?(?![\"']?\$)[A-Za-z0-9+/_.~-]{8,}"
        ),
    ),
    ("a password in an address", re.compile(r"\w+://[^/\s:@\"']+:[^/\s:@\"']+@")),
)
_NAMES = re.compile(r"(?i)(?:token|api_?key|secret|password|passwd|credential)")
_SHORTEST = 12  # of a variable's value that is looked for in files


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where a key stands: a file's name, its line (from 1), and what it looks like."""

    file: str
    line: int
    kind: str


def portable(value: Any) -> Any:
    """A JSON value whose strings name no place of this machine.

    A path below the current folder becomes relative to it, a model in the Hub's cache becomes its
    name, any other absolute path its last two parts. What lies under a key of ``VERBATIM`` stays.
    """
    if isinstance(value, Mapping):
        return {portable(k): v if k in VERBATIM else portable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [portable(v) for v in value]
    return portable_text(value) if isinstance(value, str) else value


def portable_text(text: str) -> str:
    """Text in which every absolute path is shortened as ``portable`` does."""
    whole = len(text) < 4096 and not re.search(r"\s-|\n", text)
    if whole and text.startswith("/") and Path(text).exists():
        return _short(text)  # blanks in a path that is there
    text = text.replace("file://", "") if "file:///" in text else text
    text = _POSIX.sub(lambda m: _short(m[0]), text)
    return _WINDOWS.sub(lambda m: "/".join(re.split(r"\\+", m[0])[1:][-2:]), text)


def portable_page(text: str) -> str:
    """A page that quotes texts: only folders of this machine itself are taken out of it."""
    for place in (Path.cwd(), Path.home()):
        if len(place.parts) > 1:
            text = text.replace(f"{place}/", "")
    return text


def keys_in(text: str, file: str, *, written_here: bool = False) -> Iterator[Found]:
    """Every line that holds what looks like a key, or the value of a variable that names one.

    Args:
        text: what a file holds.
        file: its name, for the message.
        written_here: whether this toolkit wrote it: then ``api_key: …`` is looked for too.
    """
    patterns = (*KEYS, *ASSIGNED) if written_here else KEYS
    held = _held()
    for pattern_kind, pattern in patterns:
        for match in pattern.finditer(text):
            yield Found(file=file, line=text.count("\n", 0, match.start()) + 1, kind=pattern_kind)
    for name, value in held.items():
        if (at := text.find(value)) >= 0:
            kind = f"the value of {name}"
            yield Found(file=file, line=text.count("\n", 0, at) + 1, kind=kind)


def refuse_keys(found: Iterable[Found]) -> None:
    """Refuse to publish files that hold keys.

    Raises:
        DataError: there is one; the first is named, the others are counted.
    """
    listed = sorted(found, key=lambda f: (f.file, f.line))
    if not listed:
        return
    first = listed[0]
    others = len({(f.file, f.line) for f in listed}) - 1
    more = f" (and {others} more lines)" if others else ""
    raise DataError(
        f"line {first.line} holds {first.kind}{more}",
        where=first.file,
        expected="files without keys",
        remedy="revoke it, take it out of the file and publish again; --no-completions leaves "
        "questions and answers out",
    )


def _held() -> dict[str, str]:
    """Secret values of this process by the name of their variable; the stored Hub token too."""
    found = {
        name: value
        for name, value in os.environ.items()
        if _NAMES.search(name) and len(value) >= _SHORTEST and not _harmless(value)
    }
    from huggingface_hub import get_token

    token = get_token()
    return found | ({"the Hub token": token} if token and len(token) >= _SHORTEST else {})


def _harmless(value: str) -> bool:
    """A path or plain words: variables such as TOKEN_FILE hold those."""
    if value.startswith(("/", "~", ".")):
        return True
    return value.replace("-", "").replace("_", "").replace(" ", "").isalpha()


def _short(path: str) -> str:
    if match := _SNAPSHOT.search(path):
        return "/".join(part for part in match.groups() if part)
    found, here = PurePosixPath(path), PurePosixPath(Path.cwd().as_posix())
    if len(here.parts) > 1 and found.is_relative_to(here):
        return found.relative_to(here).as_posix()
    parts = found.parts[1:]
    if len(parts) > 1 and parts[0] in ("home", "Users"):
        parts = parts[2:]  # not the name of a person
    return "/".join(parts[-2:]) or "~"
