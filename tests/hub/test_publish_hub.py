"""A checkpoint published to a real Hub on loopback, by the command, with the real client."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hub_client import Client, environment
from hub_server import READ, WRITE, Fault
from runs import Run


def paths(out: str) -> dict[str, str]:
    """Files and sizes that a dry run lists."""
    rows = re.findall(r"^ {2}(\S+) +([\d.]+ (?:B|kB|MB))\s*$", out, re.MULTILINE)
    return dict(rows)


def publish(client: Client, run: Run, *more: str | Path, status: int = 0) -> str:
    args = (run.checkpoint, "--repo", "me/tiny", "--bench", run.bench, *more)
    done = client.publish(*args, status=status)
    return done.out if status == 0 else done.err


def test_a_repository_is_made_and_holds_exactly_what_the_dry_run_said(hub, client, finished):
    promised = publish(client, finished, "--dry-run")
    assert hub.log == []  # nothing was asked of the Hub
    listed = paths(promised)
    assert "left out: notes.txt, optimizer.pt, rng_state.pth, training_args.bin" in promised
    out = publish(client, finished)
    assert f"{hub.url}/me/tiny at commit" in out and "(new repository)" in out
    files = hub.files("me/tiny")
    assert set(files) - {".gitattributes"} == set(listed)
    assert hub.repos["model", "me/tiny"].private
    assert len(hub.commits("me/tiny")) == 2  # the one of the new repository, and all files at once
    large = {p for p, e in hub.tree(hub.repos["model", "me/tiny"].branches["main"]).items()
             if "lfs" in e}  # fmt: skip
    assert large == {"model.safetensors", "bench/rivers/completions/trained.parquet"}
    assert files["model.safetensors"] == (finished.checkpoint / "model.safetensors").read_bytes()
    assert len(hub.sent("PUT", "^/part/")) > 1 and len(hub.sent("POST", "^/storage/")) == 1
    manifest = json.loads(files["published.json"])["files"]
    hashes = {p: hashlib.sha256(data).hexdigest() for p, data in files.items()}
    assert manifest == {p: hashes[p] for p in listed if p != "published.json"}


def test_publishing_again_sends_nothing_and_makes_no_commit(hub, client, finished):
    publish(client, finished)
    before = hub.commits("me/tiny")
    hub.log.clear()
    out = publish(client, finished)
    assert "nothing changed: all" in out
    assert hub.commits("me/tiny") == before
    assert not hub.sent("PUT", "") and not hub.sent("POST", "commit|preupload|batch|create")


def test_what_changed_is_sent_and_what_is_gone_is_deleted_but_not_what_others_put(hub, client, own):
    publish(client, own)
    repo = hub.repos["model", "me/tiny"]
    tree = hub.tree(repo.branches["main"])
    tree["figure.svg"] = {"oid": hub.write_object("blob", b"<svg/>"), "size": 6}
    hub.commit(repo, "main", tree, "somebody's figure")
    hub.log.clear()
    (own.bench / "runs" / "trained.trec").unlink()
    out = publish(client, own, "--license", "mit", "-m", "another licence")
    assert "2 files sent" in out and "1 deleted" in out  # card and manifest
    assert not hub.sent("PUT", "")
    files = hub.files("me/tiny")
    assert "figure.svg" in files and "bench/rivers/runs/trained.trec" not in files
    assert b"license: mit" in files["README.md"]
    assert hub.commits("me/tiny")[0]["message"] == "another licence"


def test_a_branch_is_made_and_the_default_one_stays(hub, client, finished):
    publish(client, finished, "--revision", "try-1", "--public")
    assert set(hub.files("me/tiny")) == {".gitattributes"}
    assert "rank_rl.json" in hub.files("me/tiny", branch="try-1")
    assert b'revision="try-1"' in hub.files("me/tiny", branch="try-1")["README.md"]
    assert not hub.repos["model", "me/tiny"].private
    done = client.run("publish", finished.checkpoint, "--repo", "me/tiny", "--private")
    assert done.status == 0 and "public already and stays so" in done.err


@pytest.mark.parametrize(
    ("token", "repo", "words"),
    [
        ("hf_wrongTokenOfNobody000000000000", "me/tiny", "does not know the token"),
        (READ, "me/tiny", "may not write there: You don't have the rights"),
        (WRITE, "others/tiny", "take a token with write access"),
        (None, "me/tiny", "no token (log in with `hf auth login`, or set HF_TOKEN)"),
    ],
)
def test_tokens_that_will_not_do_are_one_line(hub, client, finished, token, repo, words):
    done = client.run("publish", finished.checkpoint, "--repo", repo, token=token)
    assert done.status == 2 and done.err.strip().splitlines()[-1].startswith("error: ")
    assert words in done.err and "Traceback" not in done.err
    assert (token or "hf_") not in done.err + done.out
    assert not hub.repos


@pytest.mark.parametrize(
    ("repo", "words"),
    [
        ("tiny", "expected owner/name"),
        ("https://huggingface.co/me/tiny", "(e.g. me/tiny)"),
        ("datasets/me/tiny", "(e.g. me/tiny)"),
        ("me/ti ny", "expected owner/name"),
        ("me/-tiny-", "expected owner/name"),
    ],
)
def test_malformed_names_are_refused_before_anything_is_read(hub, client, repo, words):
    done = client.run("publish", "nowhere", "--repo", repo)
    assert done.status == 2 and "--repo" in done.err and words in done.err
    assert hub.log == []


def test_a_commit_in_between_is_a_conflict_and_the_next_call_goes_on(hub, client, finished):
    publish(client, finished, "--no-completions")
    repo = hub.repos["model", "me/tiny"]
    tree = dict(hub.tree(repo.branches["main"]))

    def another() -> None:
        hub.commit(repo, "main", tree, "in between")

    hub.faults = [Fault("/commit/", first=another)]
    said = publish(client, finished, status=2)
    assert "changed in the meantime: A commit has happened since" in said
    assert "nothing was committed" in said and "run the same command" in said
    assert hub.commits("me/tiny")[0]["message"] == "in between"
    hub.log.clear()
    publish(client, finished)
    assert "bench/rivers/report.html" in hub.files("me/tiny")
    assert not hub.sent("PUT", "")  # completions were kept


def test_servers_that_stumble_are_tried_again(hub, client, finished):
    hub.faults = [
        Fault("/preupload/", status=503),
        Fault("/objects/batch", status=500),
        Fault("^/part/", after=30_000),
    ]
    publish(client, finished)
    assert [f.times for f in hub.faults] == [0, 0, 0]
    name = "model.safetensors"
    assert hub.files("me/tiny")[name] == (finished.checkpoint / name).read_bytes()


def test_a_commit_that_fails_keeps_what_was_sent(hub, client, finished):
    hub.faults = [Fault("/commit/", status=500)]
    said = publish(client, finished, status=2)
    assert "the Hub answered 500" in said and "not sent again" in said and "Traceback" not in said
    assert set(hub.files("me/tiny")) == {".gitattributes"}
    hub.log.clear()
    publish(client, finished)
    assert not hub.sent("PUT", "")
    assert "model.safetensors" in hub.files("me/tiny")


def test_a_card_that_the_hub_refuses_sends_no_weights(hub, client, finished):
    said = publish(client, finished, "--license", "wtfpl", status=2)  # not on this Hub's list
    assert 'the Hub refuses the card: - "license" must be one of [' in said
    assert not hub.sent("PUT", "")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "http://127.0.0.1:9: the connection failed"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set (unset it to publish)"),
    ],
)
def test_without_a_network_it_is_one_line(tmp_path, more, words):
    # A process of its own: the client reads the address when it is imported.
    code = (
        "from rank_rl.errors import RankRLError\n"
        "from rank_rl.hub.publish import Target, send\n"
        "from rank_rl.hub.tree import Item, Tree\n"
        "tree = Tree(items=(Item(path='a', source=b'a'),))\n"
        "try: send(tree, Target(repo='me/tiny'))\n"
        "except RankRLError as error: print(error.line())\n"
    )
    env = {**environment("http://127.0.0.1:9", tmp_path), **more}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert words in done.stdout and not done.stderr, done.stderr
