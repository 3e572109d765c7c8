"""Checkpoints of strangers: no pickle is read, no code is run, and refusals are one line."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest

from rank_rl import Reranker, formats
from rank_rl.errors import ModelError, RankRLError, RecipeError
from rank_rl.formats.wording import MOST_BYTES as MOST_WORDING
from rank_rl.hub.contract import MOST_BYTES, TRUST, PromptContract
from rank_rl.models import loading
from rank_rl.models.scorers.loading import load_scorer
from rank_rl.models.sources import locate
from rank_rl.specs import FormatSpec, ModelSpec, StrategySpec

CODE = "from pathlib import Path\nPath({!r}).write_text('ran')\n"


class Payload:
    """What writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "payload ran"


@pytest.fixture
def copy(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def poison(file: Path, mark: Path) -> None:
    """A checkpoint as torch saves it, with a payload among its weights."""
    import torch

    torch.save({"model.embed_tokens.weight": Payload(mark)}, file)


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refused(name: Path | str, match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        loading.load(ModelSpec(name=str(name)), device="cpu")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 2000


def test_the_payload_of_these_tests_is_live(mark):
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "x.ckpt"])
def test_pickled_weights_are_refused_with_a_remedy_and_never_read(copy, mark, name):
    (copy / "model.safetensors").unlink()
    poison(copy / name, mark)
    refused(copy, r"weights are pickled .*expected safetensors.*save_pretrained")
    with pytest.raises(ModelError, match="pickled"):
        load_scorer(ModelSpec(name=str(copy)), formats.make(FormatSpec(name="cross_encoder")))
    assert not mark.exists()


def test_a_pickle_beside_safetensors_is_not_read(copy, mark):
    poison(copy / "pytorch_model.bin", mark)
    assert loading.load(ModelSpec(name=str(copy)), device="cpu").model is not None
    assert not mark.exists()


@pytest.mark.parametrize("shard", ["pytorch_model.bin", "../elsewhere.safetensors", "/x", 7, "a/b"])
def test_an_index_that_names_other_files_is_refused(copy, mark, shard):
    (copy / "model.safetensors").unlink()
    poison(copy / "pytorch_model.bin", mark)
    index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": shard}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(copy, r"index\.json (names|cannot be read)")
    assert not mark.exists()


def adapter(folder: Path, base: object) -> Path:
    folder.mkdir()
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "target_modules": ["q_proj"]}
    config["base_model_name_or_path"] = base
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_a_pickled_adapter_is_refused(tmp_path, tiny_model_dir, mark):
    folder = adapter(tmp_path / "lora", str(tiny_model_dir))
    poison(folder / "adapter_model.bin", mark)
    refused(folder, r"weights are pickled \(adapter_model\.bin\).*adapter_model\.safetensors")
    assert not mark.exists()


@pytest.mark.parametrize("base", ["itself", 5, ["x"], "", None, "\x00", "../../etc", "a/b/c"])
def test_an_adapter_with_a_strange_base_is_one_line(tmp_path, base):
    folder = adapter(tmp_path / "lora", str(tmp_path / "lora") if base == "itself" else base)
    (folder / "adapter_model.safetensors").write_bytes(b"")
    refused(folder, r"adapter too|no base model|no such folder|cannot be|neither a folder|missing")


@pytest.mark.parametrize("known", [False, True])
def test_code_in_a_model_folder_is_not_run(copy, mark, known):
    (copy / "modeling_evil.py").write_text(CODE.format(str(mark)))
    names = ("AutoConfig", "AutoModelForCausalLM", "AutoModel", "AutoTokenizer")
    auto_map = dict.fromkeys(names, "modeling_evil.Evil")
    kind = {} if known else {"model_type": "evil", "architectures": ["Evil"]}
    edit(copy / "config.json", auto_map=auto_map, **kind)
    tokenizer = {"AutoTokenizer": ["modeling_evil.Evil", None]}
    edit(copy / "tokenizer_config.json", auto_map=tokenizer)
    if known:  # a class of transformers stands in its place
        assert type(loading.load(ModelSpec(name=str(copy)), device="cpu").model).__name__ == (
            "LlamaForCausalLM"
        )
    else:
        refused(copy, "cannot be loaded")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "[]"),
        ("config.json", '{"model_type": 5}'),
        ("config.json", '{"model_type": "llama", "hidden_size": "x"}'),
        ("config.json", "[" * 100_000),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"model": {"type": "Evil"}}'),
        ("model.safetensors", "not safetensors"),
    ],
)
def test_damaged_files_are_one_line(copy, file, content):
    (copy / file).write_text(content)
    refused(copy, "cannot be loaded")


def test_a_published_cross_encoder_is_read_from_safetensors_without_its_code(tmp_path, mark):
    pytest.importorskip("sentence_transformers")
    from rank_rl.models.cross_encoders import load_cross_encoder

    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "bert", "architectures": ["BertForSequenceClassification"]})
    )
    poison(tmp_path / "pytorch_model.bin", mark)
    with pytest.raises(ModelError, match="weights are pickled"):
        load_cross_encoder(str(tmp_path))
    assert not mark.exists()


def contract(folder: Path, **changes: object) -> Path:
    """A contract's file with the right hash, whatever it says."""
    one = PromptContract(
        format=FormatSpec(name="slots"),
        version="slots/default@1",
        strategy=StrategySpec(name="by_score"),
        readout="score",
    )
    path = one.write(folder)
    record = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(record))
    try:
        known = PromptContract(
            **{k: v for k, v in record.items() if k not in ("hash", "mode", "format", "strategy")},
            format=FormatSpec.model_validate(record["format"]),
            strategy=StrategySpec.model_validate(record["strategy"]),
        )
        path.write_text(json.dumps({**record, "hash": known.hash}))
    except (ValueError, TypeError, AttributeError):
        pass
    return path


DEEP: dict = {}
for _ in range(600):
    DEEP = {"strategy": DEEP}
SLOTS = {"name": "slots"}


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 5},
        {"version": "x" * 5000},
        {"readout": ["score"]},
        {"base_model": {"a": 1}},
        {"max_new_tokens": "many"},
        {"max_new_tokens": True},
        {"max_new_tokens": 10**12},
        {"max_new_tokens": -1},
        {"extra": "text"},
        {"format": "slots"},
        {"format": {**SLOTS, "doc_tokens": -5}},
        {"format": {**SLOTS, "unknown": 1}},
        {"strategy": {"name": "by_score", "params": [1]}},
        {"strategy": None},
    ],
)
def test_a_contract_of_wrong_types_is_one_line(tmp_path, changes):
    contract(tmp_path, **changes)
    with pytest.raises(ModelError, match="cannot be read") as caught:
        PromptContract.read(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text", ["[" * 200_000, " " * (MOST_BYTES + 1), "null", "[]", '"\\ud800"', "\x00", "{}"]
)
def test_a_contract_that_is_none_is_one_line(tmp_path, text):
    (tmp_path / "rank_rl.json").write_text(text)
    with pytest.raises(ModelError, match="cannot be read"):
        PromptContract.read(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": {"name": "evil_module:Evil"}},
        {"strategy": {"name": "evil_module:Evil"}},
        {"strategy": {"name": "subprocess:run", "params": {"args": "touch MARK", "shell": True}}},
        {"strategy": {"name": "repeated", "params": {"strategy": {"name": "evil_module:Evil"}}}},
        {"strategy": {"name": "refine", "params": {"a": [{"b": {"name": "evil_module:Evil"}}]}}},
    ],
)
def test_a_contract_cannot_name_code(tiny_model_dir, copy, mark, monkeypatch, tmp_path, changes):
    (tmp_path / "evil_module.py").write_text(CODE.format(str(mark)))
    monkeypatch.syspath_prepend(tmp_path)
    text = json.dumps(changes).replace("MARK", str(mark).replace(" ", "\\\\ "))
    contract(copy, **json.loads(text))
    with pytest.raises(ModelError, match=f"names code to run.*set {TRUST}="):
        Reranker.from_pretrained(copy, device="cpu")
    assert not mark.exists()


def test_code_of_a_trusted_package_is_named(tmp_path, monkeypatch):
    contract(tmp_path, strategy={"name": "my_package.parts:Mine"})
    monkeypatch.setenv(TRUST, "other, my_package")
    assert PromptContract.read(tmp_path).strategy.name == "my_package.parts:Mine"


@pytest.mark.parametrize(
    "fields",
    [
        {"wording": "../../../../etc/passwd"},
        {"wording": "/etc/passwd.yaml"},
        {"wording": "../../secret.yaml:name"},
        {"wording": "\x00.yaml"},
        {"wording": "x" * 5000 + ".yaml"},
        {"params": {"lead": "{query} {{ 7 * 7 }}\n{% for i in range(9) %}"}},
        {"params": {"labels": ["{0.__class__}", "{{ ''.__class__ }}"]}},
        {"params": {"labels": [" no", " yes"], "values": [1e400, 0]}},
        {"params": {"context": DEEP}},
        {"params": {"context": 10**30, "lead": 5}},
    ],
)
def test_a_hostile_format_in_a_contract_is_one_line(copy, fields):
    contract(copy, format={**SLOTS, **fields})
    with pytest.raises(RankRLError) as caught:
        Reranker.from_pretrained(copy, device="cpu")
    assert "\n" not in str(caught.value) and "root:" not in str(caught.value)


def test_templates_in_a_lead_stay_text(copy):
    contract(copy, format={**SLOTS, "params": {"lead": "{query} {{ 7 * 7 }} <|im_end|> {0}:"}})
    reranker = Reranker.from_pretrained(copy, device="cpu")
    assert reranker.fmt.lead == "{query} {{ 7 * 7 }} <|im_end|> {0}:"
    assert len(reranker.rank("who?", ["a river", "a town"])) == 2


def test_a_file_of_wordings_is_bounded(tmp_path):
    file = tmp_path / "words.yaml"
    file.write_text("#" * (MOST_WORDING + 1))
    with pytest.raises(RecipeError, match="cannot be read: more than"):
        formats.make(FormatSpec(name="slots", wording=f"{file}:x"))
    file.write_text("a: " + "[" * 3000)
    with pytest.raises(RecipeError, match="cannot be read"):
        formats.make(FormatSpec(name="slots", wording=f"{file}:x"))


def test_weights_of_a_name_are_safetensors_only(tiny_model_dir):
    assert locate(str(tiny_model_dir)).path == tiny_model_dir
    assert loading.SAFE == {"use_safetensors": True, "trust_remote_code": False}
