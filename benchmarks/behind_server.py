"""Serve a model over HTTP on this machine and run a command against it; both end together.

    python benchmarks/behind_server.py MODEL -- rank-rl bench recipes/quickstart/bench_teacher.yaml

``transformers serve`` answers as an OpenAI-compatible server does. The command finds its address in
OPENAI_BASE_URL and the model's name in TEACHER_MODEL. MODEL is a folder, a Hub id or
``pip:<package>``; needs ``pip install 'transformers[serving]'``.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

PATIENCE_S = 600


def main() -> int:
    """Exit status of the command; 2 where the server does not start."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command")
    given = parser.parse_args()
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not command:
        parser.error("no command behind --")
    model = folder(given.model)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        log = Path(home) / "serve.log"
        (Path(home) / "hub").mkdir()
        # Threads of two processes that wait by spinning slow each other down twentyfold.
        calm = {**os.environ, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
        with log.open("w") as out:
            server = subprocess.Popen(
                [
                    *(str(Path(sys.executable).with_name("transformers")), "serve", model),
                    *("--host", "127.0.0.1", "--port", str(port)),
                ],
                env=calm | {"HF_HOME": home},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            if not ready(f"http://127.0.0.1:{port}/health", server):
                print(f"the server did not start:\n{log.read_text()[-2000:]}", file=sys.stderr)
                return 2
            url = f"http://127.0.0.1:{port}/v1"
            print(f"{model} answers at {url}", flush=True)
            known = {"OPENAI_BASE_URL": url, "TEACHER_MODEL": model}
            return subprocess.run(command, env=calm | known).returncode
        finally:
            server.terminate()
            server.wait(60)


def folder(model: str) -> str:
    """What the server loads: the folder behind ``pip:``, or the name as it is."""
    if not model.startswith("pip:"):
        return model
    from rank_rl.models.sources import locate

    return str(locate(model).path)


def ready(url: str, server: subprocess.Popen[bytes]) -> bool:
    """Wait until the server answers; whether it does."""
    end = time.monotonic() + PATIENCE_S
    while server.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return True
        except OSError:
            time.sleep(1)
    return False


if __name__ == "__main__":
    sys.exit(main())
