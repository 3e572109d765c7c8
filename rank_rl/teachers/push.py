"""Push lessons, tasks, report and data card to a dataset repository of the Hugging Face Hub."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rank_rl.errors import BackendError, RecipeError

logger = logging.getLogger(__name__)

# Neither the store nor the exchanges: they hold every prompt, dropped answers included.
FILES = ("README.md", "lessons.jsonl", "lessons.parquet", "tasks.jsonl", "report.json")
KEYS = ("repo", "private")


def check(settings: Mapping[str, Any]) -> str:
    """The repository that settings name.

    Raises:
        RecipeError: another key, or no repository named.
    """
    for key in settings:
        if key not in KEYS:
            raise RecipeError(f"unknown key {key!r}", where="teach.hub", expected=", ".join(KEYS))
    repo = settings.get("repo")
    if not isinstance(repo, str) or repo.count("/") != 1:
        raise RecipeError(f"repo is {repo!r}", where="teach.hub.repo", expected="owner/name")
    return repo


def push(folder: Path, settings: Mapping[str, Any]) -> str:
    """Create the repository if it is not there and upload the files; returns its name.

    The token is the one that ``hf auth login`` or the variable HF_TOKEN gives.

    Args:
        folder: output of stage ``teach``.
        settings: ``repo`` (owner/name) and ``private`` (true unless said otherwise).

    Raises:
        RecipeError: another key, or no repository named.
        BackendError: the Hub refused.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    repo = check(settings)
    api = HfApi()
    try:
        api.create_repo(
            repo, repo_type="dataset", private=bool(settings.get("private", True)), exist_ok=True
        )
        found = [name for name in FILES if (folder / name).is_file()]
        api.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=str(folder),
            allow_patterns=found,
            commit_message="Lessons of rank-rl teach",
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise BackendError(
            f"the Hub refused: {first}",
            where=f"teach.hub.repo {repo}",
            remedy="the files are written; log in with `hf auth login` and start again",
        ) from error
    logger.info("pushed %s to %s", ", ".join(found), repo)
    return repo
