"""The child's end of a child process: it goes when its engine goes, and not before."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1


def leave_with_engine() -> None:
    """Die with the engine, and leave the signals for the whole group to it.

    The engine may still have to hear of what this process does.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
