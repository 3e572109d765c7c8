"""Whether the trackers that ``training.report_to`` names are there, before anything is loaded.

The trainers find out after data and model, and answer with a traceback.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from rank_rl.errors import RecipeError
from rank_rl.registry import nearest

# Trackers that an extra of this package installs; all others are transformers' business.
EXTRAS = {"tensorboard": "trackers", "trackio": "trackers", "wandb": "wandb"}
_NONE = ("none", "all")
# By the same functions the callbacks of transformers decide whether to raise; where the name of the
# package or of the function is not that of the tracker.
CHECKS = {
    "azure_ml": "is_azureml_available",
    "comet_ml": "is_comet_available",
    "flyte": "is_flytekit_available",
}
_REMEDIES = {
    "azure_ml": "pip install azureml-sdk",
    "comet_ml": "pip install comet-ml, and set COMET_API_KEY",
    "dagshub": "pip install dagshub mlflow",
    "flyte": "pip install flytekit",
    "kubeflow": "it needs KUBEFLOW_TRAINER_SERVER_URL, which a Kubeflow TrainJob sets",
    "mlflow": "pip install mlflow, and leave DISABLE_MLFLOW_INTEGRATION unset",
}


def check_trackers(report_to: Any, *, where: str = "training.report_to") -> None:
    """Refuse trackers that transformers does not know or that are not installed.

    Args:
        report_to: a name or a list of names, as TrainingArguments takes it.
        where: for the message.

    Raises:
        RecipeError: naming the tracker and what to install.
    """
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    if not [n for n in names if n not in _NONE]:
        return
    from transformers.integrations import integration_utils

    known = {*EXTRAS, *integration_utils.INTEGRATION_TO_CALLBACK}
    for name in names:
        if name not in known and name not in _NONE:
            raise RecipeError(
                f"unknown tracker {name!r}",
                where=where,
                remedy=nearest(str(name), known) or f"known: {', '.join(sorted(EXTRAS))}",
            )
        if name in known and not installed(name):
            extra = f'pip install "rank-rl[{EXTRAS[name]}]"' if name in EXTRAS else None
            remedy = extra or _REMEDIES.get(name, f"pip install {name}")
            raise RecipeError(f"tracker {name!r} is not installed", where=where, remedy=remedy)


def installed(name: str) -> bool:
    """Whether a tracker can be used; for tensorboard, either of the two packages there are."""
    from transformers.integrations import integration_utils

    if name not in EXTRAS:
        check = getattr(integration_utils, CHECKS.get(name, f"is_{name}_available"), None)
        return bool(check()) if check else importlib.util.find_spec(name) is not None
    packages = (name, "tensorboardX") if name == "tensorboard" else (name,)
    return any(importlib.util.find_spec(package) is not None for package in packages)
