"""Whether the trackers that ``training.report_to`` names are there, before anything is loaded.

The trainers find out after data and model, and answer with a traceback.
"""

from __future__ import annotations

import difflib
import importlib.util
from typing import Any

from rank_rl.errors import RecipeError

# Trackers that an extra of this package installs; all others are transformers' business.
EXTRAS = {"tensorboard": "trackers", "trackio": "trackers", "wandb": "wandb"}
_NONE = ("none", "all")


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
            near = difflib.get_close_matches(str(name), known, n=2) or sorted(EXTRAS)
            raise RecipeError(
                f"unknown tracker {name!r}", where=where, remedy=f"nearest: {', '.join(near)}"
            )
        if name in known and not installed(name):
            extra = f'"rank-rl[{EXTRAS[name]}]"' if name in EXTRAS else "its package"
            raise RecipeError(
                f"tracker {name!r} is not installed", where=where, remedy=f"pip install {extra}"
            )


def installed(name: str) -> bool:
    """Whether a tracker's package can be imported; for tensorboard, either of the two there are."""
    from transformers.integrations import integration_utils

    if name not in EXTRAS:  # flyte is in no list of what is there
        return name in {*integration_utils.get_available_reporting_integrations(), "flyte"}
    packages = (name, "tensorboardX") if name == "tensorboard" else (name,)
    return any(importlib.util.find_spec(package) is not None for package in packages)
