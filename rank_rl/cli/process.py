"""Small facts about processes that ``rank-rl run`` and the stages it starts need."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import sys
from typing import NoReturn

PARENT = "RANK_RL_PARENT"
HELD = 1 << 30  # bytes that are free and not given back


class Terminated(KeyboardInterrupt):
    """This process was asked to end (SIGTERM); unlike Ctrl-C, its children were not."""


def die_with_parent() -> None:
    """End this process when the one that started it ends, even if that one was killed (Linux).

    Counts only below ``rank-rl run``, which sets ``RANK_RL_PARENT``: a stage that went on alone
    after a kill would write into the folder of the next attempt.
    """
    if PARENT not in os.environ or not sys.platform.startswith("linux"):
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def keep_memory() -> bool:
    """Let this process keep memory that it frees, for its next pass over a model (glibc).

    A pass on a CPU asks for the same large pieces again and again; that the system hands each out
    anew, zeroed page by page, takes up to a fifth of the time of a small model. All threads take
    theirs from one place: an area of a thread's own is given back whenever nothing is left in it.
    Whoever chose an allocator, or how this one works, is left alone.

    Returns:
        Whether it was told so.
    """
    chosen = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
    if not sys.platform.startswith("linux") or any(n.startswith(chosen) for n in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    wanted = ((trim_threshold, HELD), (mmap_threshold, HELD), (arena_max, 1))
    return mallopt is not None and all(mallopt(name, value) for name, value in wanted)


def exit_at_once(code: str | int | None) -> NoReturn:
    """End this process without unloading libraries, after Python's own exit functions.

    For one of several processes that has done its work: threads that gloo or DeepSpeed left behind
    aborted about one of ten such processes while it was unloaded, and with it the launch.
    """
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def end_tree(pid: int) -> None:
    """Ask a process and everything it started to end."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.terminate()


def physical_cores() -> int:
    """Physical cores this process may use, at least 1 (hyper-threads slow training down)."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return max(1, min(cores, allowed or cores))


def peak_memory_mb() -> int:
    """Largest resident memory of any finished child process so far, in MiB (0 where unknown)."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return int(peak / (1024 * 1024 if sys.platform == "darwin" else 1024))
