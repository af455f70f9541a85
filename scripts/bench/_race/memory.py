"""The most memory that a process has held. Imports next to nothing, for the sake of those that it looks at."""

import resource
import sys


def peak_memory():
    """Return the most memory this process has held, in MB.

    On Linux that of the program itself; elsewhere at least its parent's, which a new process begins with.
    """
    try:
        with open("/proc/self/status") as lines:
            (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(peak) * 1024 / 1e6
    except (OSError, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
