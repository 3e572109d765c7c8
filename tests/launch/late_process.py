"""``python -m late_process STAGE RECIPE``: rank_rl, whose process 1 writes checkpoints late.

When a checkpoint's ``trainer_state.json`` is written, this says whose parts were there.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerState

from rank_rl.cli.app import main

save_rng, save_state = Trainer._save_rng_state, TrainerState.save_to_json


def late(self: Any, output_dir: str) -> None:
    if os.environ.get("RANK") == "1":
        time.sleep(3)
    save_rng(self, output_dir)


def saying(self: Any, json_path: str) -> None:
    there = Path(json_path).parent.glob("rng_state_*.pth")
    parts = sorted(int(path.stem.rpartition("_")[2]) for path in there)
    sys.stdout.write(f"state of step {self.global_step} after the parts of {parts}\n")
    save_state(self, json_path)


if __name__ == "__main__":
    Trainer._save_rng_state, TrainerState.save_to_json = late, saying
    main()
