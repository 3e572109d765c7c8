"""``python -m fsdp_on_cpu STAGE RECIPE``: rank_rl, with FSDP on a CPU.

accelerate 1.15 sets FSDP up for accelerators only: without one it finds no backend and runs single
processes. Naming gloo is all that is missing; sharding, training and saving are the real thing.
"""

from __future__ import annotations

from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType

from rank_rl.cli.app import main


def with_gloo(self: Any, *_: Any, **__: Any) -> tuple[str, DistributedType]:
    """What ``PartialState._prepare_backend`` would answer if CPUs were accelerators."""
    return "gloo", DistributedType.MULTI_GPU


if __name__ == "__main__":
    PartialState._prepare_backend = with_gloo
    main()
