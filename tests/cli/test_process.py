"""Small facts about processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PASSES = """
import ctypes, resource, sys, threading
from rank_rl.cli.process import keep_memory

kept = keep_memory() if sys.argv[1] == "keep" else False
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def passes():
    for _ in range(20):
        pieces = [libc.malloc(30 << 20) for _ in range(4)]
        for piece in pieces:
            ctypes.memset(piece, 1, 30 << 20)
        for piece in pieces:
            libc.free(piece)

if "thread" in sys.argv:
    worker = threading.Thread(target=passes)
    worker.start()
    worker.join()
else:
    passes()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def faults(*how: str, **environment: str) -> tuple[bool, int]:
    """Whether memory is kept, and how many pages the system handed out."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    done = subprocess.run(
        [sys.executable, "-c", PASSES, *how],
        env={**plain, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, count = done.stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
@pytest.mark.parametrize("where", ["main", "thread"])
def test_memory_that_is_kept_is_not_handed_out_again(where):
    without, with_it = faults("leave", where), faults("keep", where)
    assert not without[0]
    if not with_it[0]:
        pytest.skip("another C library")
    pages = 4 * (30 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert without[1] - with_it[1] > 10 * pages  # of twenty passes


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_who_set_the_allocator_is_left_alone(name):
    value = "glibc.malloc.arena_max=2" if name == "GLIBC_TUNABLES" else "2"
    assert not faults("keep", **{name: value})[0]
