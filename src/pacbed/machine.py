"""What the machine has and what the process uses of it."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path


def memory_limit_bytes() -> int:
    """Return how much memory a process may use: that of the machine, or of its control group."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    # SLURM and containers limit a job by its control group (version 2, version 1).
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(file)
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            limits.append(int(text))
    return min(limits)


def peak_memory_MB() -> float:
    """Return the largest resident size of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
