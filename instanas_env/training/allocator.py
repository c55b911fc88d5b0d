"""Memory that stays with the process between training steps, instead of going back to the kernel.

The maps of one layer take tens of megabytes. glibc asks the kernel for each block of that size and gives it
back as soon as it is free, and every time the kernel clears all its pages, which can cost as much as the
computation (``instanas bench --parts kept_memory``).
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt(3)
_NEVER = -1


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed, and serve large blocks from it, for the rest of this process.

    Results are the same. The process then holds the most memory that it ever needed at once.

    Returns:
        Whether it will: False where the C library is another.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _NEVER))
