"""Paths of this machine are shortened, keys are found and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from rank_rl.errors import DataError
from rank_rl.hub.scrub import keys_in, portable, portable_page, portable_text, refuse_keys

HF = "hf_" + "Ab1" * 12
CACHE = "/root/.cache/huggingface/hub/models--Qwen--Qwen3-0.6B/snapshots/" + "a" * 40


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv/me/x/rank_rl/__main__.py grpo a/b.yaml", "rank_rl/__main__.py grpo a/b.yaml"),
        ("saved to /data/big/runs/7/final.", "saved to 7/final."),
        ("/home/alice/models/x and /Users/bob/y", "models/x and y"),
        (CACHE, "Qwen/Qwen3-0.6B"),
        (f"{CACHE}/config.json", "Qwen/Qwen3-0.6B/config.json"),
        ("file:///srv/data/run.trec", "data/run.trec"),
        (r"C:\Users\alice\models\x\final", "x/final"),
        ('--set data.path="/srv/a/b/c.jsonl"', '--set data.path="b/c.jsonl"'),
    ],
)  # fmt: skip
def test_absolute_paths_become_short(text: str, expected: str):
    assert portable_text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "outputs/quickstart/sft/final",
        "https://huggingface.co/datasets/a/b and http://127.0.0.1:8000/v1/models",
        "rewards/ndcg/mean and 12/24/2024, 3 km/h",
        "<think>yes</think><answer>[1]</answer> /no_think",
        "see ../shared/design.md or ~/models",
        "Qwen/Qwen3-0.6B",
    ],
)
def test_other_text_stays(text: str):
    assert portable_text(text) == text


def test_what_lies_below_the_current_folder_becomes_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "with blank").mkdir()
    assert portable_text(f"{tmp_path}/outputs/x/final") == "outputs/x/final"
    assert portable_text(f"{tmp_path}/with blank") == "with blank"
    assert portable_page(f"<a href='{tmp_path}/x'>/etc/y</a>") == "<a href='x'>/etc/y</a>"


def test_values_are_shortened_everywhere_but_where_they_are_data():
    record = {
        "path": "/srv/data/run/a.trec",
        "listed": ["/srv/data/run/b.trec", 3, None, 0.5],
        "per_query": {"/m/river/1": {"note": "/m/river/2"}},
        "chat_template": "{{ '/a/b/c' }}",
    }
    assert portable(record) == record | {
        "path": "run/a.trec",
        "listed": ["run/b.trec", 3, None, 0.5],
    }


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"token {HF}", "a Hugging Face token"),
        ("sk-proj-abcd1234efgh5678ijkl", "an OpenAI-style key"),
        ("id AKIAIOSFODNN7EXAMPLE", "an AWS key id"),
        ("ghp_" + "a1" * 18, "a GitHub token"),
        ("AIza" + "Sy1" * 11 + "ab", "a Google key"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("Authorization: Bearer abcdef0123456789abcdef", "a bearer token"),
    ],
)
def test_keys_are_found_by_line_and_kind(text: str, kind: str):
    (found,) = keys_in(f"first line\n{text}\n", "log.jsonl")
    assert (found.file, found.line, found.kind) == ("log.jsonl", 2, kind)


@pytest.mark.parametrize(
    "text",
    [
        "hf_hub_download and api_key_env: OPENAI_API_KEY",
        "a risk-adjusted-measure-of-returns, sk-learn",
        "bearer of the news, whoever that may be",
        '"eos_token": "<|im_end|>", "pad_token": "[PAD]", "max_new_tokens": 256',
        "password: null",
    ],
)
def test_words_are_no_keys(text: str):
    assert not list(keys_in(text, "x", written_here=True))


def test_assignments_count_only_in_what_this_toolkit_writes():
    text = "password: correcthorse99 at https://me:secret1@host/v1"
    kinds = [f.kind for f in keys_in(text, "recipe.yaml", written_here=True)]
    assert kinds == ["a key", "a password in an address"]
    assert not list(keys_in(text, "document.jsonl"))


def test_values_of_secret_variables_are_found_whatever_they_look_like(monkeypatch):
    monkeypatch.setenv("MY_SERVER_PASSWORD", "zebra-42-stripes")
    monkeypatch.setenv("MY_TOKEN_FILE", "/run/secrets/of/zebras")
    (found,) = keys_in("it is zebra-42-stripes, in /run/secrets/of/zebras", "log")
    assert found.kind == "the value of MY_SERVER_PASSWORD"


def test_the_refusal_names_the_place_and_not_the_key(tmp_path: Path):
    text = f"fine\n{HF}\n{HF}x1\n"
    with pytest.raises(DataError) as refused:
        refuse_keys(keys_in(text, "training_log.jsonl"))
    said = refused.value.line()
    assert said.startswith(
        "training_log.jsonl: line 2 holds a Hugging Face token (and 1 more lines)"
    )
    assert "revoke it" in said and HF not in said
    refuse_keys([])
