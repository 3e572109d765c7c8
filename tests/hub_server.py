"""A small Hub that speaks huggingface_hub's protocol over HTTP, with faults on demand: tests only.

In a test: ``with Hub(folder) as hub: hub.url``. As a process: ``python tests/hub_server.py
--folder F`` writes its address as the first line. Files are kept on disk under the ids that git
gives them, large ones under their SHA-256 (one PUT, or several parts); trees and commits are JSON
under its SHA-1. Tokens: ``hf_write…`` belongs to ``me`` (and organisation ``team``), ``hf_read…``
cannot write. A request meets the first fault that fits; ``hub.log`` holds every request.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

WRITE, READ = "hf_writeTokenOfTheTests0123456789", "hf_readTokenOfTheTests01234567890"
USERS = {WRITE: ("me", ("team",)), READ: ("reader", ())}
LARGE = (".safetensors", ".parquet", ".bin", ".pt")
SMALL = 200_000  # bytes from which any file is large
PART = 100_000  # bytes of a part, for files that are sent in several
PAGE = 5  # entries of a listing's page
LICENCES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "gemma", "other", "unknown"}
RELATIONS = {"adapter", "finetune", "merge", "quantized"}
MODEL_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass
class Fault:
    """What a request whose path matches meets: a status, or a connection that ends.

    ``after`` is how many bytes of the body are read before the connection is cut; ``times`` how
    often it happens; ``hold`` makes the request wait there until ``released`` is set; ``first`` is
    called before the request is answered as ever.
    """

    path: str
    method: str = ""
    status: int = 0
    after: int | None = None
    times: int = 1
    hold: bool = False
    first: Callable[[], object] | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


@dataclass
class Seen:
    """A request: its method, path and the bytes of its body that were read."""

    method: str
    path: str
    size: int = 0


@dataclass
class Repo:
    """A repository: its branches by name, and whether strangers may see it."""

    kind: str
    name: str
    private: bool
    branches: dict[str, str] = field(default_factory=dict)


class Answer(Exception):
    """An answer given from anywhere below a handler."""

    def __init__(self, status: int, body: Any = None, headers: dict[str, str] | None = None):
        self.status, self.body, self.headers = status, body, headers or {}


def refused(status: int, code: str, message: str) -> Answer:
    headers = {"X-Error-Code": code, "X-Error-Message": message}
    return Answer(status, {"error": message}, {k: v for k, v in headers.items() if v})


class Hub(ThreadingHTTPServer):
    """The server and everything it keeps."""

    daemon_threads = True

    def __init__(self, folder: Path, *, port: int = 0, part: int = PART) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.part = part
        self.folder = Path(folder)
        self.repos: dict[tuple[str, str], Repo] = {}
        self.faults: list[Fault] = []
        self.log: list[Seen] = []
        self.lock = threading.RLock()
        for part in ("objects", "large", "parts"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # the client has gone
            super().handle_error(request, client_address)

    # What a test asks

    def sent(self, method: str, pattern: str) -> list[Seen]:
        """Requests of a method whose path matches."""
        return [s for s in self.log if s.method == method and re.search(pattern, s.path)]

    def commits(self, name: str, kind: str = "model", branch: str = "main") -> list[dict[str, Any]]:
        """Commits of a branch, the newest first."""
        found, sha = [], self.repos[kind, name].branches[branch]
        while sha:
            record = json.loads(self.read_object(sha))
            found.append({"sha": sha, **record})
            sha = record["parent"]
        return found

    def files(self, name: str, kind: str = "model", branch: str = "main") -> dict[str, bytes]:
        """Content of a branch by path, large files included."""
        tree = self.tree(self.repos[kind, name].branches[branch])
        return {path: self.content(entry) for path, entry in tree.items()}

    # Objects

    def write_object(self, kind: str, data: bytes) -> str:
        sha = hashlib.sha1(b"%s %d\0" % (kind.encode(), len(data)) + data).hexdigest()
        (self.folder / "objects" / sha).write_bytes(data)
        return sha

    def read_object(self, sha: str) -> bytes:
        return (self.folder / "objects" / sha).read_bytes()

    def tree(self, commit: str) -> dict[str, dict[str, Any]]:
        """Entries of a commit by path."""
        record = json.loads(self.read_object(commit))
        found: dict[str, dict[str, Any]] = json.loads(self.read_object(record["tree"]))
        return found

    def content(self, entry: dict[str, Any]) -> bytes:
        if "lfs" in entry:
            return (self.folder / "large" / entry["lfs"]["oid"]).read_bytes()
        return self.read_object(entry["oid"])

    def commit(self, repo: Repo, branch: str, tree: dict[str, Any], message: str) -> str:
        parent = repo.branches.get(branch, "")
        listed = json.dumps(dict(sorted(tree.items()))).encode()
        record = {"tree": self.write_object("tree", listed), "parent": parent, "message": message}
        record["number"] = str(len(self.log))
        repo.branches[branch] = self.write_object("commit", json.dumps(record).encode())
        return repo.branches[branch]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        self.seen = Seen(self.command, unquote(urlsplit(self.path).path))
        self.server.log.append(self.seen)
        try:
            fault = self._fault()
            body = self._body(fault)
            if fault is not None and fault.status:
                raise refused(fault.status, "", f"fault {fault.status}")
            with self.server.lock:
                if fault is not None and fault.first is not None:
                    fault.first()
                answer = self._route(body)
        except Answer as error:
            answer = error
        except ConnectionAbortedError:
            self._cut()
            return
        self._reply(answer)

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _fault(self) -> Fault | None:
        with self.server.lock:
            for fault in self.server.faults:
                fits = re.search(fault.path, self.seen.path)
                if fault.times and fits and fault.method in ("", self.command):
                    fault.times -= 1
                    return fault
        return None

    def _body(self, fault: Fault | None) -> bytes:
        """The whole body; a fault may end the connection on the way."""
        found, limit = bytearray(), None if fault is None else fault.after
        for piece in self._pieces():
            found += piece
            self.seen.size = len(found)
            if fault is not None and limit is not None and len(found) >= limit:
                fault.reached.set()
                if fault.hold:
                    fault.released.wait(60)
                raise ConnectionAbortedError
        return bytes(found)

    def _pieces(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            piece = self.rfile.read(min(left, 16_384))
            if not piece:
                raise ConnectionAbortedError
            left -= len(piece)
            yield piece

    def _cut(self) -> None:
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

    def _reply(self, answer: Answer) -> None:
        data = answer.body
        if not isinstance(data, bytes):
            data = b"" if data is None else json.dumps(data).encode()
            answer.headers.setdefault("Content-Type", "application/json")
        with contextlib.suppress(OSError):
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    # Who asks

    def _user(self, *, needed: bool = False) -> tuple[str, tuple[str, ...]] | None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given not in USERS:
            raise refused(401, "", "Invalid credentials in Authorization header")
        if not given and needed:
            raise refused(401, "", "Invalid username or password.")
        return USERS.get(given)

    def _may_write(self, owner: str) -> None:
        user = self._user(needed=True)
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if user is None or given == READ or owner not in (user[0], *user[1]):
            raise refused(403, "", "You don't have the rights to write to this namespace.")

    def _repo(self, kind: str, name: str) -> Repo:
        repo = self.server.repos.get((kind, name))
        user = self._user()
        if repo is None or (repo.private and user is None):
            raise refused(404 if user else 401, "RepoNotFound", "Repository not found")
        return repo

    def _commit_of(self, repo: Repo, revision: str) -> str:
        sha = repo.branches.get(revision, revision)
        if not (self.server.folder / "objects" / sha).is_file():
            raise refused(404, "RevisionNotFound", "Invalid rev id")
        return sha

    # Where it goes

    def _route(self, body: bytes) -> Answer:
        path = unquote(urlsplit(self.path).path)
        for pattern, methods, handle in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in methods.split():
                return handle(self, match.groupdict(), body)
        raise refused(404, "", f"no {self.command} {path}")

    def whoami(self, _: dict[str, str], body: bytes) -> Answer:
        user = self._user(needed=True)
        assert user is not None
        orgs = [{"name": name} for name in user[1]]
        return Answer(200, {"type": "user", "name": user[0], "orgs": orgs, "auth": {}})

    def create(self, _: dict[str, str], body: bytes) -> Answer:
        record = json.loads(body)
        user = self._user(needed=True)
        assert user is not None
        owner, kind = record.get("organization") or user[0], record.get("type") or "model"
        self._may_write(owner)
        name = f"{owner}/{record['name']}"
        url = f"{self.server.url}/{'' if kind == 'model' else kind + 's/'}{name}"
        if (kind, name) in self.server.repos:
            raise Answer(409, {"error": "You already created this repo", "url": url})
        private = record.get("visibility") == "private" or bool(record.get("private"))
        repo = Repo(kind, name, private)
        self.server.repos[kind, name] = repo
        text = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
        oid = self.server.write_object("blob", text)
        first = {".gitattributes": {"oid": oid, "size": len(text)}}
        self.server.commit(repo, "main", first, "initial commit")
        return Answer(200, {"url": url, "name": name, "id": name})

    def info(self, at: dict[str, str], body: bytes) -> Answer:
        repo = self._repo(at["kind"], at["name"])
        sha = self._commit_of(repo, at.get("revision") or "main")
        siblings = [{"rfilename": path} for path in self.server.tree(sha)]
        found = {"id": repo.name, "_id": "0", "sha": sha, "private": repo.private}
        return Answer(200, {**found, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0})

    def listing(self, at: dict[str, str], body: bytes) -> Answer:
        """A page of the tree; the next one is named in ``Link``."""
        repo = self._repo(at["kind"], at["name"])
        sha = self._commit_of(repo, at["revision"])
        asked = parse_qs(urlsplit(self.path).query)
        start = int(asked.get("cursor", ["0"])[0])
        rows = [{"type": "file", "path": p, **shown(e)} for p, e in self.server.tree(sha).items()]
        folders = sorted({str(Path(r["path"]).parent) for r in rows} - {"."})
        rows += [{"type": "directory", "path": f, "oid": "0" * 40, "size": 0} for f in folders]
        headers = {}
        if len(rows) > start + PAGE:
            place = urlsplit(self.path).path
            query = f"recursive=True&cursor={start + PAGE}"
            headers["Link"] = f'<{self.server.url}{place}?{query}>; rel="next"'
        return Answer(200, rows[start : start + PAGE], headers)

    def paths_info(self, at: dict[str, str], body: bytes) -> Answer:
        repo = self._repo(at["kind"], at["name"])
        tree = self.server.tree(self._commit_of(repo, at["revision"]))
        wanted = parse_qs(body.decode()).get("paths", [])
        rows = [{"type": "file", "path": p, **shown(tree[p])} for p in wanted if p in tree]
        return Answer(200, rows)

    def branch(self, at: dict[str, str], body: bytes) -> Answer:
        repo = self._repo(at["kind"], at["name"])
        self._may_write(repo.name.split("/")[0])
        if at["branch"] in repo.branches:
            raise Answer(409, {"error": "Reference already exists"})
        repo.branches[at["branch"]] = repo.branches["main"]
        return Answer(201, {})

    def preupload(self, at: dict[str, str], body: bytes) -> Answer:
        """How each file is to be sent, and what it is called where it is there already."""
        repo = self._repo(at["kind"], at["name"])
        self._may_write(repo.name.split("/")[0])
        tree = self.server.tree(self._commit_of(repo, at["revision"]))
        rows = []
        for file in json.loads(body)["files"]:
            large = file["path"].endswith(LARGE) or file["size"] >= SMALL
            row = {"path": file["path"], "uploadMode": "lfs" if large else "regular"}
            row |= {"shouldIgnore": False}
            if (entry := tree.get(file["path"])) is not None:
                row["oid"] = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
            rows.append(row)
        return Answer(200, {"files": rows})

    def batch(self, at: dict[str, str], body: bytes) -> Answer:
        """Where large files go; those that are kept already go nowhere."""
        kind = {"": "model", "datasets/": "dataset"}[at["prefix"] or ""]
        repo = self._repo(kind, at["name"])
        self._may_write(repo.name.split("/")[0])
        rows = []
        for asked in json.loads(body)["objects"]:
            oid, size = asked["oid"], asked["size"]
            row = {"oid": oid, "size": size}
            if not (self.server.folder / "large" / oid).is_file():
                upload: dict[str, Any] = {"href": f"{self.server.url}/storage/{oid}"}
                if size > self.server.part:
                    count = -(-size // self.server.part)
                    parts = {f"{i:05d}": f"{self.server.url}/part/{oid}/{i}"
                             for i in range(1, count + 1)}  # fmt: skip
                    upload["header"] = {"chunk_size": str(self.server.part), **parts}
                verify = {"href": f"{self.server.url}/verify/{oid}"}
                row["actions"] = {"upload": upload, "verify": verify}
            rows.append(row)
        return Answer(200, {"transfer": "basic", "objects": rows})

    def store(self, at: dict[str, str], body: bytes) -> Answer:
        if hashlib.sha256(body).hexdigest() != at["oid"]:
            raise refused(400, "", "content does not match its hash")
        (self.server.folder / "large" / at["oid"]).write_bytes(body)
        return Answer(200, b"", {"ETag": f'"{at["oid"]}"'})

    def store_part(self, at: dict[str, str], body: bytes) -> Answer:
        (self.server.folder / "parts" / f"{at['oid']}-{at['number']}").write_bytes(body)
        return Answer(200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    def complete(self, at: dict[str, str], body: bytes) -> Answer:
        record = json.loads(body)
        files = [self.server.folder / "parts" / f"{at['oid']}-{p['partNumber']}"
                 for p in record["parts"]]  # fmt: skip
        if any(hashlib.md5(file.read_bytes()).hexdigest() != part["etag"].strip('"')
               for file, part in zip(files, record["parts"], strict=True)):  # fmt: skip
            raise refused(400, "", "a part does not match")
        whole = b"".join(file.read_bytes() for file in files)
        for file in files:
            file.unlink()
        return self.store(at, whole)

    def verify(self, at: dict[str, str], body: bytes) -> Answer:
        file = self.server.folder / "large" / at["oid"]
        if not file.is_file() or file.stat().st_size != json.loads(body)["size"]:
            raise refused(400, "", "not there, or of another size")
        return Answer(200, {})

    def commit(self, at: dict[str, str], body: bytes) -> Answer:
        """A commit out of lines; refused when the branch has moved on."""
        repo = self._repo(at["kind"], at["name"])
        self._may_write(repo.name.split("/")[0])
        branch = at["revision"]
        if branch not in repo.branches:
            raise refused(404, "RevisionNotFound", "Invalid rev id")
        lines = [json.loads(line) for line in body.splitlines() if line]
        header = next(x["value"] for x in lines if x["key"] == "header")
        if header.get("parentCommit") not in (None, repo.branches[branch]):
            raise refused(412, "", "A commit has happened since. Please refresh and try again.")
        tree = dict(self.server.tree(repo.branches[branch]))
        for line in lines:
            self._change(tree, line["key"], line["value"])
        sha = self.server.commit(repo, branch, tree, header["summary"])
        prefix = "" if repo.kind == "model" else f"{repo.kind}s/"
        url = f"{self.server.url}/{prefix}{repo.name}/commit/{sha}"
        return Answer(200, {"success": True, "commitOid": sha, "commitUrl": url})

    def _change(self, tree: dict[str, Any], key: str, value: dict[str, Any]) -> None:
        if key == "file":
            data = base64.b64decode(value["content"])
            oid = self.server.write_object("blob", data)
            tree[value["path"]] = {"oid": oid, "size": len(data)}
        elif key == "lfsFile":
            file = self.server.folder / "large" / value["oid"]
            if not file.is_file():
                raise refused(400, "", f"{value['path']}: its content was never sent")
            size = file.stat().st_size
            pointer = (
                "version https://git-lfs.github.com/spec/v1\n"
                f"oid sha256:{value['oid']}\nsize {size}\n"
            ).encode()
            large = {"oid": value["oid"], "size": size, "pointerSize": len(pointer)}
            oid = self.server.write_object("blob", pointer)
            tree[value["path"]] = {"oid": oid, "size": size, "lfs": large}
        elif key == "deletedFile" and tree.pop(value["path"], None) is None:
            raise refused(404, "EntryNotFound", "A file with this name doesn't exist")

    def card(self, _: dict[str, str], body: bytes) -> Answer:
        """The checks that the Hub makes of a card's metadata, as far as they are documented."""
        record = json.loads(body)
        errors = card_errors(record["content"], record["repoType"])
        if errors:
            raise Answer(400, {"errors": [{"message": text} for text in errors]})
        return Answer(200, {"errors": [], "warnings": []})

    def resolve(self, at: dict[str, str], body: bytes) -> Answer:
        """A file, or where a large one is."""
        kind = {"": "model", "datasets/": "dataset"}[at["prefix"] or ""]
        repo = self._repo(kind, at["name"])
        sha = self._commit_of(repo, at["revision"])
        entry = self.server.tree(sha).get(at["path"])
        if entry is None:
            raise refused(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if "lfs" in entry:
            large = entry["lfs"]
            headers |= {"X-Linked-Size": str(large["size"]), "X-Linked-Etag": f'"{large["oid"]}"'}
            # By another name, as the Hub's large files are on another host: clients follow
            # redirects within a host when they ask for a file's head.
            storage = self.server.url.replace("127.0.0.1", "localhost")
            headers["Location"] = f"{storage}/large/{large['oid']}"
            return Answer(302, b"", headers)
        return self._bytes(self.server.content(entry), {**headers, "ETag": f'"{entry["oid"]}"'})

    def large(self, at: dict[str, str], body: bytes) -> Answer:
        data = (self.server.folder / "large" / at["oid"]).read_bytes()
        return self._bytes(data, {"ETag": f'"{at["oid"]}"', "Accept-Ranges": "bytes"})

    def _bytes(self, data: bytes, headers: dict[str, str]) -> Answer:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None:
            return Answer(200, data, {**headers, "Content-Length": str(len(data))})
        start, end = int(match[1]), int(match[2] or len(data) - 1)
        if start >= len(data):
            raise Answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        headers |= {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
        return Answer(206, data[start : end + 1], headers)


def shown(entry: dict[str, Any]) -> dict[str, Any]:
    return {k: entry[k] for k in ("oid", "size", "lfs") if k in entry}


def card_errors(content: str, kind: str) -> list[str]:
    """What is wrong with the metadata of a card."""
    match = re.match(r"\A---\r?\n(.*?)\r?\n---\s*\n", content, re.DOTALL)
    if match is None:
        return ["empty or missing yaml metadata in repo card"]
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"not YAML: {error}"]
    if not isinstance(data, dict):
        return ["metadata is no object"]
    errors = []
    if (said := data.get("license")) is not None and said not in LICENCES:
        errors.append(f'"license" must be one of [{", ".join(sorted(LICENCES))}]')
    if said == "other" and not data.get("license_name"):
        errors.append('"license_name" is needed with license: other')
    for key in ("datasets", "base_model"):
        named = data.get(key) or []
        for name in [named] if isinstance(named, str) else named:
            if not MODEL_ID.fullmatch(str(name)):
                errors.append(f'"{key}" {name!r} is not a valid id')
    for key in ("tags", "language", "task_categories"):
        if not isinstance(data.get(key, []), list | str):
            errors.append(f'"{key}" must be a list')
    if data.get("base_model_relation", "finetune") not in RELATIONS:
        errors.append('"base_model_relation" is not known')
    return errors + (index_errors(data.get("model-index")) if kind == "model" else [])


def index_errors(index: Any) -> list[str]:
    """What is wrong with a model index, which has to name tasks, data sets and metrics."""
    if index is None:
        return []
    try:
        for model in index:
            assert isinstance(model["name"], str)
            for result in model["results"]:
                assert isinstance(result["task"]["type"], str)
                assert isinstance(result["dataset"]["type"], str)
                assert isinstance(result["dataset"]["name"], str)
                for metric in result["metrics"]:
                    assert isinstance(metric["type"], str)
                    assert isinstance(metric["value"], int | float | str)
    except (KeyError, TypeError, AssertionError) as error:
        return [f'"model-index" is malformed: {error!r}']
    return []


Handle = Callable[[Handler, dict[str, str], bytes], Answer]
_API = r"/api/(?P<kind>model|dataset)s/(?P<name>[^/]+/[^/]+)"
_GIT = r"/(?P<prefix>datasets/)?(?P<name>[^/]+/[^/]+?)"
ROUTES: list[tuple[str, str, Handle]] = [
    (r"/api/whoami-v2", "GET", Handler.whoami),
    (r"/api/repos/create", "POST", Handler.create),
    (r"/api/validate-yaml", "POST", Handler.card),
    (_API, "GET", Handler.info),
    (_API + r"/revision/(?P<revision>.+)", "GET", Handler.info),
    (_API + r"/tree/(?P<revision>[^/]+)/?", "GET", Handler.listing),
    (_API + r"/paths-info/(?P<revision>.+)", "POST", Handler.paths_info),
    (_API + r"/branch/(?P<branch>.+)", "POST", Handler.branch),
    (_API + r"/preupload/(?P<revision>.+)", "POST", Handler.preupload),
    (_API + r"/commit/(?P<revision>.+)", "POST", Handler.commit),
    (_GIT + r"\.git/info/lfs/objects/batch", "POST", Handler.batch),
    (r"/storage/(?P<oid>\w+)", "PUT", Handler.store),
    (r"/storage/(?P<oid>\w+)", "POST", Handler.complete),
    (r"/part/(?P<oid>\w+)/(?P<number>\d+)", "PUT", Handler.store_part),
    (r"/verify/(?P<oid>\w+)", "POST", Handler.verify),
    (r"/large/(?P<oid>\w+)", "GET HEAD", Handler.large),
    (_GIT + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "GET HEAD", Handler.resolve),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--part", type=int, default=PART, help="bytes of a large file's part")
    options = vars(parser.parse_args())
    with contextlib.suppress(KeyboardInterrupt), Hub(**options) as hub:
        sys.stdout.write(f"{hub.url}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
