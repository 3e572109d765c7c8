"""``accelerate launch`` without its own traceback: ``python -m rank_rl.cli.launch <arguments>``.

When a launched stage fails, ``accelerate launch`` adds a traceback of itself to what the stage
said. This runs the same launcher with the same arguments and ends with the stage's exit status, so
that a user's mistake stays one line. Output of the stage streams through untouched.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Sequence

from rank_rl.cli.process import die_with_parent


def launch(arguments: Sequence[str]) -> int:
    """Run ``accelerate launch`` with ``arguments`` and return the exit status of what it ran."""
    # torch.distributed's agent reports a failed rank in its own log; the rank has spoken.
    logging.disable(logging.ERROR)
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        launch_command(launch_command_parser().parse_args(list(arguments)))
    except subprocess.CalledProcessError as error:
        return error.returncode
    except ChildFailedError as error:
        return error.get_first_failure()[1].exitcode
    return 0


def main() -> None:
    """Entry point; the stage itself answers an interrupt, this only waits for it."""
    die_with_parent()
    signal.signal(signal.SIGINT, lambda *_: None)
    status = launch(sys.argv[1:])
    # A stage ended by signal n gives -n; shells call that 128 + n.
    sys.exit(128 - status if status < 0 else status)


if __name__ == "__main__":
    main()
