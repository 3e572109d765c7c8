"""Published, and loaded again by name: the same rankings, logits and code that works."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from encoders import save_bert
from hub_client import Client, environment
from hub_server import Hub
from runs import BASE, COMMIT, stage

from rank_rl.hub.contract import PromptContract
from rank_rl.hub.example import DOCUMENTS, QUERY
from rank_rl.rerank import Reranker
from rank_rl.specs import FormatSpec, StrategySpec

TEXTS = [f"{title}. {text}" for title, text, _ in DOCUMENTS] + [
    "The film was made in the town near the river.",
    "The father of the director was born in a small town.",
]
LOAD = """
import json, sys
from rank_rl import Reranker
ranker = Reranker.from_pretrained(sys.argv[1], dtype="float32")
found = ranker.rank(QUERY, TEXTS, first_stage="given")
print(json.dumps([[r.docid, r.score] for r in found]))
""".replace("QUERY", json.dumps(QUERY)).replace("TEXTS", json.dumps(TEXTS))


def ranked(folder: Path) -> list[list[Any]]:
    ranker = Reranker.from_pretrained(folder, dtype="float32")
    found = ranker.rank(QUERY, TEXTS, first_stage="given")
    return [[r.docid, r.score] for r in found]


def code_of(card: str) -> list[str]:
    """Blocks of Python on a card."""
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def test_a_fresh_process_ranks_as_the_checkpoint_did(hub: Hub, client: Client, finished, tmp_path):
    client.publish(finished.checkpoint, "--repo", "me/tiny")
    env = environment(hub.url, tmp_path / "home")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, "me/tiny"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    expected = ranked(finished.checkpoint)
    assert json.loads(done.stdout) == expected
    assert [docid for docid, _ in expected] != ["1", "2", "3", "4", "5"]  # it does rank
    assert hub.sent("GET", "^/large/")


def test_the_code_on_the_card_gives_the_scores_of_rank_rl(hub: Hub, client: Client, finished):
    client.publish(finished.checkpoint, "--repo", "me/tiny")
    with_rank_rl, prompts, plain, vllm = code_of(hub.files("me/tiny")["README.md"].decode())
    given = 'from_pretrained("me/tiny"'
    assert given in with_rank_rl  # plain transformers compute in single precision
    first = client.python(with_rank_rl.replace(given, given + ', dtype="float32"'))
    assert first.status == 0, first.err
    by_rank = {row.split(maxsplit=2)[2]: float(row.split()[1]) for row in first.out.splitlines()}
    second = client.python(prompts + plain)
    assert second.status == 0, second.err
    by_code = [float(row.split()[1]) for row in second.out.splitlines()]
    assert by_code == pytest.approx([by_rank[text] for text in TEXTS[:3]], abs=2e-3)
    compile(prompts + vllm, "card", "exec")
    assert 'LLM(model="me/tiny")' in vllm


@pytest.fixture(scope="module")
def adapted(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on a local base, as PEFT saves it, with a contract."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("lora") / "final"
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    peft = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter += torch.randn(parameter.shape, generator=generator)
    peft.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(folder)
    from rank_rl import formats

    fmt = formats.make(FormatSpec(name="slots", mode="answer"))
    contract = PromptContract.of(
        fmt, StrategySpec(name="by_score"), stage="sft", base_model=str(tiny_model_dir), data="x"
    )
    contract.write(folder)
    return folder


def test_a_merged_adapter_loads_with_plain_transformers_and_has_its_logits(
    hub: Hub, client: Client, adapted: Path, tiny_model_dir: Path
):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    client.publish(adapted, "--repo", "me/merged", "--merge")
    files = hub.files("me/merged")
    assert "model.safetensors" in files and "adapter_config.json" not in files
    assert str(tiny_model_dir) not in files["rank_rl.json"].decode() + files["README.md"].decode()
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    model = PeftModel.from_pretrained(base, str(adapted)).eval()
    ids = torch.arange(40)[None]
    with torch.no_grad():
        expected = model(ids).logits[0, -1, :5].tolist()
    code = (
        "import torch\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model = AutoModelForCausalLM.from_pretrained('me/merged').eval()\n"
        "AutoTokenizer.from_pretrained('me/merged').chat_template[0]\n"
        "print(model(torch.arange(40)[None]).logits[0, -1, :5].tolist())\n"
    )
    done = client.python(code)
    assert done.status == 0, done.err
    assert json.loads(done.out) == pytest.approx(expected, abs=1e-5)
    assert ranked_there(client, "me/merged") == pytest.approx(scores(adapted), abs=1e-4)


def ranked_there(client: Client, name: str) -> dict[str, float]:
    done = client.python(f"import sys\nsys.argv = ['', {name!r}]\n{LOAD}")
    assert done.status == 0, done.err
    return dict(json.loads(done.out))


def scores(folder: Path) -> dict[str, float]:
    return dict(ranked(folder))


def test_an_adapter_goes_alone_when_its_base_is_on_the_hub(
    hub: Hub, client: Client, adapted: Path, tiny_model_dir: Path, tmp_path: Path
):
    refused = client.publish(adapted, "--repo", "me/adapter", status=2)
    assert "is not known to be on the Hub" in refused.err and "--merge" in refused.err
    base = client.python(
        "from huggingface_hub import HfApi\n"
        "HfApi().create_repo('me/base', private=False)\n"
        f"HfApi().upload_folder(repo_id='me/base', folder_path={str(tiny_model_dir)!r})\n"
    )
    assert base.status == 0, base.err
    client.publish(adapted, "--repo", "me/adapter", "--base-model", "me/base")
    files = hub.files("me/adapter")
    assert "model.safetensors" not in files and "adapter_model.safetensors" in files
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "me/base"
    card = files["README.md"].decode()
    assert "base_model: me/base" in card and "base_model_relation: adapter" in card
    _, prompts, plain, vllm = code_of(card)
    assert 'LoRARequest("adapter", 1, snapshot_download("me/adapter"))' in vllm
    done = client.python(prompts + plain)
    assert done.status == 0, done.err
    by_code = [float(row.split()[1]) for row in done.out.splitlines()]
    expected = scores(adapted)
    assert by_code == pytest.approx([expected[d] for d in ("1", "2", "3")], abs=1e-3)


def test_an_adapter_on_the_hub_ranks_as_it_does_here(
    hub: Hub, client: Client, adapted: Path, tiny_model_dir: Path
):
    base = client.python(
        "from huggingface_hub import HfApi\n"
        "HfApi().create_repo('me/base', private=False)\n"
        f"HfApi().upload_folder(repo_id='me/base', folder_path={str(tiny_model_dir)!r})\n"
    )
    assert base.status == 0, base.err
    client.publish(adapted, "--repo", "me/adapter", "--base-model", "me/base")
    assert ranked_there(client, "me/adapter") == pytest.approx(scores(adapted), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("cross_encoder", {"pooling": "mean"}),
        ("cross_encoder", {"pooling": "cls"}),
        ("embedding", {"pooling": "mean", "query_prefix": "query: ", "document_prefix": "text: "}),
    ],
)
def test_a_scorer_is_scored_by_the_code_on_its_card(
    hub: Hub, client: Client, tmp_path: Path, name: str, params: dict[str, Any]
):
    from rank_rl import formats
    from rank_rl.models.saving import save
    from rank_rl.models.scorers.loading import load_scorer
    from rank_rl.specs import ModelSpec

    spec = FormatSpec(name=name, doc_tokens=60, params=params)
    fmt = formats.make(spec)
    base = save_bert(tmp_path / "bert")
    loaded = load_scorer(ModelSpec(name=str(base)), fmt)
    contract = PromptContract.of(
        fmt, StrategySpec(name="by_score"), stage="score", base_model=BASE, base_revision=COMMIT
    )
    folder = save(loaded.model, loaded.tokenizer, tmp_path / "final", contract)
    client.publish(folder, "--repo", "me/scorer")
    card = hub.files("me/scorer")["README.md"].decode()
    assert "vLLM does not load the weights" in card and "AutoModelForCausalLM" not in card
    _, plain = code_of(card)
    done = client.python(plain)
    assert done.status == 0, done.err
    expected = dict(ranked(folder))
    found = [float(row) for row in done.out.split()]
    assert found == pytest.approx([expected[d] for d in ("1", "2", "3")], abs=1e-4)


@pytest.mark.parametrize(
    ("spec", "readout"),
    [
        ({"name": "permutation", "mode": "reason"}, "decoded"),
        ({"name": "choice", "mode": "answer"}, "score"),
        ({"name": "pointwise", "mode": "answer"}, "score"),
    ],
)
def test_written_answers_and_label_probabilities_are_those_of_rank_rl(
    hub: Hub, client: Client, tiny_model_dir: Path, tmp_path: Path, spec, readout
):
    folder = stage(tmp_path, "sft", (BASE, COMMIT), tiny_model_dir, format=spec, readout=readout)
    client.publish(folder, "--repo", "me/text")
    blocks = code_of(hub.files("me/text")["README.md"].decode())
    done = client.python(blocks[1] + blocks[2])
    assert done.status == 0, done.err
    reranker = Reranker.from_pretrained(folder, dtype="float32")
    from rank_rl.hub.example import example

    shown = example(PromptContract.read(folder), reranker.loaded.tokenizer)
    asked = reranker.asker.ask(shown.views)
    if readout == "decoded":
        expected = asked[0].exchange.prompt.prefill + asked[0].exchange.completion.text
        assert done.out.strip() == expected.strip()
        return
    found = [eval(row) for row in done.out.splitlines()]
    for said, one in zip(found, asked, strict=True):
        (expected_logprobs,) = one.exchange.completion.slots.values()
        assert said == pytest.approx(dict(expected_logprobs), abs=2e-3)
