"""How the C library keeps memory that was freed: tightly, so that a run's peak is what it needs at once.

By default glibc keeps a heap for nearly every thread, and large buffers in them once it has seen a few; with the many
threads that decode chunks a run then held a quarter more than it used, and more the longer it ran; so did a service
under hostile requests.
"""

from __future__ import annotations

import ctypes

# From malloc.h; see mallopt(3).
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
_ARENAS = 2
# Tiles and blocks go back to the system when they are freed; the images of single sections are soon used again.
_LARGE_BYTES = 1 << 23


def keep_tight() -> None:
    """Bound what the heap keeps, for the whole process; without glibc nothing happens.  Best before threads start."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, _ARENAS)
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
