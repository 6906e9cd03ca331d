"""One child process from start to end, and what the operating system says of it: wall time and peak memory, the same for every side."""

import os
import subprocess
import time


class Failed(Exception):
    """The child ended with another status than 0."""


def measure(command, log):
    """Runs `command` with its output in the file `log`; gives {wall_s, peak_bytes}.

    The peak is wait4's: the largest resident set of the child alone. It begins with the parent's size at the fork, so the parent
    must be small: programs that call this import nothing large.
    """
    started = time.monotonic()
    with open(log, "wb") as file:
        process = subprocess.Popen([str(part) for part in command], stdout=file, stderr=subprocess.STDOUT)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
    wall_s = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Failed(f"{command[0]} ended with {process.returncode}; see {log}")
    return {"wall_s": wall_s, "peak_bytes": usage.ru_maxrss * 1024}
