"""Lessons pushed with the real Hub client to a small Hub on loopback."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rank_rl.errors import RecipeError
from rank_rl.teachers.push import check

TOKEN = "hf_test0123456789"


class Hub(ThreadingHTTPServer):
    """Accepts a dataset repository and one commit; remembers what came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.created: dict[str, Any] = {}
        self.files: dict[str, str] = {}
        self.tokens: set[str] = set()
        self.refuse = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.reply({"id": "me/lessons", "sha": "0" * 40, "siblings": [], "private": True})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.tokens.add(self.headers.get("Authorization", ""))
        if self.server.refuse:
            self.reply({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self.reply({"url": f"{self.server.url}/datasets/me/lessons"})
        elif self.path.endswith("/preupload/main"):
            paths = [f["path"] for f in json.loads(body)["files"]]
            files = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]
            self.reply({"files": files})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                record = json.loads(line)
                if record["key"] == "file":
                    value = record["value"]
                    text = base64.b64decode(value["content"]).decode()
                    self.server.files[value["path"]] = text
            self.reply({"commitUrl": f"{self.server.url}/c/1", "commitOid": "1" * 40})
        else:
            self.reply({"errors": [], "warnings": []})

    def reply(self, content: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Any:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def pushed(hub: Hub, folder: Path) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from pathlib import Path; from rank_rl.errors import RankRLError\n"
        "from rank_rl.teachers.push import push\n"
        "try: print(push(Path(sys.argv[1]), {'repo': 'me/lessons'}))\n"
        "except RankRLError as error: sys.exit(error.line())\n"
    )
    # The client reads its address when it is imported, hence a process of its own.
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
    return subprocess.run(
        [sys.executable, "-c", code, str(folder)], env=env, capture_output=True, text=True
    )


def output(folder: Path) -> Path:
    (folder / "store").mkdir(parents=True)
    for name in ("README.md", "lessons.jsonl", "tasks.jsonl", "report.json"):
        (folder / name).write_text("---\nlicense: mit\n---\n" if name == "README.md" else "{}\n")
    for name in ("exchanges.jsonl", "ledger.json", "store/rank-0.sqlite"):
        (folder / name).write_text("private")
    return folder


def test_lessons_tasks_report_and_card_are_pushed_and_nothing_else(hub: Hub, tmp_path: Path):
    done = pushed(hub, output(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "me/lessons"
    assert hub.created["name"] == "lessons" and hub.created["type"] == "dataset"
    # Clients before huggingface_hub 2 say it in the other way.
    assert hub.created.get("visibility") == "private" or hub.created.get("private") is True
    assert set(hub.files) == {"README.md", "lessons.jsonl", "tasks.jsonl", "report.json"}
    assert hub.files["lessons.jsonl"] == "{}\n"
    assert hub.tokens == {f"Bearer {TOKEN}"}


def test_a_refusal_is_one_line_without_the_token(hub: Hub, tmp_path: Path):
    hub.refuse = True
    done = pushed(hub, output(tmp_path / "out"))
    assert done.returncode == 1
    assert "the Hub refused" in done.stderr and "start again" in done.stderr
    assert TOKEN not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("settings", [{"repo": "lessons"}, {"repo": 3}, {"name": "a/b"}, {}])
def test_wrong_settings_are_refused_before_anything_is_asked(settings: dict[str, Any]):
    with pytest.raises(RecipeError, match=r"teach\.hub"):
        check(settings)
