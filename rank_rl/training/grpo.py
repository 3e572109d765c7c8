"""Stage ``grpo``: dispatches to the policy that a recipe names.

``text`` refines generated answers through TRL, ``slots`` refines the label slots on packed groups.
Both use the rewards of ``rank_rl.rewards``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rank_rl.specs import RecipeSpec


def run(spec: RecipeSpec, info: Mapping[str, Any]) -> dict[str, Any]:
    """Run GRPO as the recipe's ``grpo.policy`` says; see the two modules for what each returns."""
    if spec.grpo.policy == "slots":
        from rank_rl.training import grpo_slots

        return grpo_slots.run(spec, info)
    from rank_rl.training import grpo_text

    return grpo_text.run(spec, info)
