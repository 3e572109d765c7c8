"""A tree sent to the Hugging Face Hub as one commit, of which only what is new travels.

Contract: a repository is either as it was or holds the whole tree. Files that are there already
are not sent, nothing changed makes no commit, files of an earlier publication that the tree no
longer has are deleted, and files of others stay. Large files that an interrupted call sent are
kept by the Hub and not sent again.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rank_rl
from rank_rl.errors import BackendError, RankRLError, RecipeError
from rank_rl.hub.refused import readable
from rank_rl.hub.tree import MANIFEST, Item, Tree

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a tree goes.

    Attributes:
        repo: owner/name.
        kind: ``model`` or ``dataset``.
        private: of a new repository; None is private. One that exists stays as it is.
        revision: a branch, made where there is none; empty is the default one.
        message: of the commit.
    """

    repo: str
    kind: str = "model"
    private: bool | None = None
    revision: str = ""
    message: str = ""

    @property
    def shown(self) -> str:
        """The repository as messages name it."""
        return f"{self.kind} {self.repo}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of a tree.

    Attributes:
        url: of the repository.
        commit: that holds the tree.
        files, size: sent, in bytes.
        unchanged, deleted: files.
        created: whether the repository is new.
        said: what whoever publishes should know.
    """

    url: str
    commit: str
    files: int
    size: int
    unchanged: int
    deleted: int
    created: bool
    said: tuple[str, ...] = ()


def check_target(target: Target) -> None:
    """Refuse what no Hub would take, without asking one.

    Raises:
        RecipeError: a name that is none.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    name = target.repo
    where, expected = "--repo", "owner/name"
    if "://" in name or name.count("/") != 1:
        short = "/".join(name.rstrip("/").split("/")[-2:])
        remedy = f"e.g. {short}" if short.count("/") == 1 and short != name else ""
        raise RecipeError(f"value {name!r}", where=where, expected=expected, remedy=remedy)
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        said = str(error).splitlines()[0]
        raise RecipeError(f"value {name!r}: {said}", where=where, expected=expected) from error


def send(tree: Tree, target: Target) -> Sent:
    """Make a repository hold a tree.

    The token is the one that ``hf auth login`` stored or the variable HF_TOKEN holds.

    Raises:
        RecipeError: a name that is none.
        BackendError: no token, no network, or the Hub refused; what is kept is said.
    """
    from huggingface_hub import HfApi, constants, get_token

    check_target(target)
    where = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        raise BackendError("HF_HUB_OFFLINE is set", where=where, remedy="unset it to publish")
    if get_token() is None:
        raise BackendError(
            "no token", where=where, remedy="log in with `hf auth login`, or set HF_TOKEN"
        )
    api = HfApi(library_name="rank_rl", library_version=rank_rl.__version__)
    try:
        return _send(api, tree, target)
    except RankRLError:
        raise
    except Exception as error:  # of httpx, huggingface_hub or hf_xet, which share no base
        known = readable(error, target.shown, where)
        if known is None:
            raise
        raise known from error


def _send(api: HfApi, tree: Tree, target: Target) -> Sent:
    created, said = _repository(api, target)
    parent, there = _there(api, target)
    new = [item for item in tree.items if not _same(item, there.get(item.path))]
    stale = _stale(api, target, tree, parent, there)
    url = f"{api.endpoint}/{'datasets/' if target.kind == 'dataset' else ''}{target.repo}"
    size = sum(item.size for item in new)
    commit = parent
    if new or stale:
        log.info("%s: sending %d of %d files", target.shown, len(new), len(tree.items))
        commit = _commit(api, target, new, stale, parent)
    return Sent(
        url=url,
        commit=commit,
        files=len(new),
        size=size,
        unchanged=len(tree.items) - len(new),
        deleted=len(stale),
        created=created,
        said=said,
    )


def _repository(api: HfApi, target: Target) -> tuple[bool, tuple[str, ...]]:
    """Make the repository and the branch where there are none."""
    from huggingface_hub.errors import RepositoryNotFoundError

    said: tuple[str, ...] = ()
    try:
        info: Any = api.repo_info(target.repo, repo_type=target.kind)
        created = False
        if target.private is not None and bool(info.private) != target.private:
            now = "private" if info.private else "public"
            said = (f"the repository is {now} already and stays so: change it in its settings",)
    except RepositoryNotFoundError:
        private = target.private is not False
        api.create_repo(target.repo, repo_type=target.kind, private=private, exist_ok=True)
        created = True
    if target.revision:
        api.create_branch(target.repo, repo_type=target.kind, branch=target.revision, exist_ok=True)
    return created, said


def _there(api: HfApi, target: Target) -> tuple[str, dict[str, Any]]:
    """The newest commit of the branch, and its files by path."""
    revision = target.revision or None
    info: Any = api.repo_info(target.repo, repo_type=target.kind, revision=revision)
    listed = api.list_repo_tree(
        target.repo, repo_type=target.kind, revision=info.sha, recursive=True
    )
    return str(info.sha), {file.path: file for file in listed if hasattr(file, "blob_id")}


def _same(item: Item, file: Any) -> bool:
    """Whether a file of the repository holds these bytes."""
    if file is None:
        return False
    if file.lfs is not None:
        return bool(file.lfs.sha256 == item.sha256())
    return bool(file.size == item.size and file.blob_id == item.git_hash())


def _stale(
    api: HfApi, target: Target, tree: Tree, parent: str, there: Mapping[str, Any]
) -> list[str]:
    """Files that an earlier publication put there and the tree no longer has."""
    if MANIFEST not in there:
        return []
    with tempfile.TemporaryDirectory() as folder:
        file = api.hf_hub_download(
            target.repo, MANIFEST, repo_type=target.kind, revision=parent, local_dir=folder
        )
        try:
            listed = json.loads(Path(file).read_text(encoding="utf-8"))["files"]
        except (ValueError, KeyError, TypeError):
            log.warning("%s: %s cannot be read, so that nothing is deleted", target.shown, MANIFEST)
            return []
    wanted = {item.path for item in tree.items}
    return sorted(path for path in listed if path in there and path not in wanted)


def _commit(
    api: HfApi, target: Target, new: Sequence[Item], stale: Sequence[str], parent: str
) -> str:
    """One commit on top of ``parent``, which the Hub refuses if another one came between."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[Any] = [
        CommitOperationAdd(
            path_in_repo=item.path,
            path_or_fileobj=item.source if isinstance(item.source, bytes) else str(item.source),
        )
        for item in new
    ]
    operations += [CommitOperationDelete(path_in_repo=path, is_folder=False) for path in stale]
    default = f"Publish with rank_rl {rank_rl.__version__}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        done = api.create_commit(
            target.repo,
            operations,
            commit_message=target.message or default,
            repo_type=target.kind,
            revision=target.revision or None,
            parent_commit=parent,
        )
    for warning in caught:
        if "README.md" in (text := str(warning.message)):
            log.warning("%s", " ".join(text.split()))
    return str(done.oid)
