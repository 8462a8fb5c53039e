"""What every check needs: claims that are counted, patience, and a free port."""

import socket
import sys
import time

PATIENCE_SECONDS = 300
failures = []


def claim(text, held, seen=""):
    """One line of output; the check as a whole holds only if all of them do."""
    print(f"{'ok    ' if held else 'FAILED'} {text} {seen}", flush=True)
    if not held:
        failures.append(text)


def until(condition):
    """Whether it became true before patience ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def finish():
    """Ends the program with what the claims came to."""
    sys.exit(f"{len(failures)} claims failed" if failures else 0)
