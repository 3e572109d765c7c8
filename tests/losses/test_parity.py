"""Against sentence-transformers: the same cross-encoder, its losses and ours, values and gradients.

One query at a time: that package takes the mean over the pairs of a batch, this one over groups.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import losses as theirs
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from rank_rl import losses
from rank_rl.losses.group import ScoredGroup
from rank_rl.specs import LossSpec

QUERY = "blue whale"
TEXTS = ["whale song", "a blue sea", "red car", "whale", "song of the sea", "the blue car", "sea"]
GRADED = [0.0, 2.0, 1.0, 3.0, 0.0, 1.0, 0.0]
STRICT = [0.3, 0.9, -0.4, 2.0, 0.1, 0.5, -1.3]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CrossEncoder:
    """A cross-encoder of two small layers with random weights."""
    path: Path = tmp_path_factory.mktemp("cross_encoder")
    words = sorted({word for text in [QUERY, *TEXTS] for word in text.split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (path / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    torch.manual_seed(0)
    bert = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            num_labels=1,
            # At the usual 0.02 all texts score the same.
            initializer_range=0.5,
        )
    )
    bert.save_pretrained(path)
    BertTokenizer(str(path / "vocab.txt")).save_pretrained(path)
    made = CrossEncoder(str(path), device="cpu")
    made.eval()
    return made


def scored(model: CrossEncoder, targets: list[float], taught: bool) -> ScoredGroup:
    scores = model(model.preprocess([(QUERY, text) for text in TEXTS]))["scores"].view(-1)
    assert scores.std() > 0.5
    wanted = torch.tensor(targets)
    return ScoredGroup(
        scores=scores,
        grades=torch.zeros(len(targets)) if taught else wanted,
        teacher=wanted if taught else None,
    )


def gradients(loss: torch.Tensor, model: CrossEncoder) -> torch.Tensor:
    """Of every weight that the loss reaches, end to end."""
    found = torch.autograd.grad(loss, [*model.parameters()], allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


NATURAL = {"reduction_log": "natural"}
BY_LABEL = {"respect_input_order": False}


@pytest.mark.parametrize(
    ("name", "params", "other", "settings"),
    [
        ("adr_mse", {}, theirs.ADRMSELoss, {}),
        ("adr_mse", {"temperature": 0.5}, theirs.ADRMSELoss, {"alpha": 2.0}),
        ("list_mle", {}, theirs.ListMLELoss, BY_LABEL),
        ("list_mle", {"discount": "exponential"}, theirs.PListMLELoss, BY_LABEL),
        ("listnet", {}, theirs.ListNetLoss, {}),
        ("ranknet", {}, theirs.RankNetLoss, NATURAL),
        ("ranknet", {"temperature": 0.5}, theirs.RankNetLoss, NATURAL | {"sigma": 2.0}),
    ],
)
def test_losses_of_a_teachers_order(model, name, params, other, settings):
    compare(
        model, LossSpec(name=name, params=params), other(model, **settings), STRICT, taught=True
    )


PAPER = {"gains": "exponential"}
LOSS2, LAMBDARANK = theirs.NDCGLoss2Scheme, theirs.LambdaRankScheme


@pytest.mark.parametrize(
    ("name", "params", "other", "settings"),
    [
        ("adr_mse", {}, theirs.ADRMSELoss, {}),
        ("ranknet", {}, theirs.RankNetLoss, NATURAL),
        ("lambda_loss", {}, theirs.LambdaLoss, {}),
        ("lambda_loss", {"k": 2, "sigma": 0.5}, theirs.LambdaLoss, {"k": 2, "sigma": 0.5}),
        ("lambda_loss", {"weighing": "ndcg_loss2"}, theirs.LambdaLoss, {"weighting_scheme": LOSS2}),
        (
            "lambda_loss",
            {"weighing": "lambdarank", "k": 3},
            theirs.LambdaLoss,
            {"weighting_scheme": LAMBDARANK, "k": 3},
        ),
    ],
)
def test_losses_of_grades_with_ties(model, name, params, other, settings):
    if name == "lambda_loss":
        params = params | PAPER
    made = {key: v() if isinstance(v, type) else v for key, v in settings.items()}
    compare(model, LossSpec(name=name, params=params), other(model, **made), GRADED, taught=False)


def compare(
    model: CrossEncoder, spec: LossSpec, other: torch.nn.Module, targets: list[float], taught: bool
) -> None:
    ours = losses.one(spec)(scored(model, targets, taught))
    wanted = other([[QUERY], [TEXTS]], [torch.tensor(targets)])
    assert ours.item() > 0.01 and ours.item() == pytest.approx(wanted.item(), rel=1e-5)
    found, expected = gradients(ours, model), gradients(wanted, model)
    assert expected.norm() > 0.01
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
