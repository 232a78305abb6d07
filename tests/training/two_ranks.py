"""Run command lines with two ranks each, as torchrun starts them.

A program of its own: everything is imported once, and the ranks are forked from there. It reads a
list of command lines as JSON from stdin, and prints a list of exit codes and messages, one pair for
each rank of each command line.
"""

import importlib
import json
import os
import signal
import socket
import sys
import tempfile
import traceback
from pathlib import Path

LATE = [
    *("sklearn.datasets", "sklearn.model_selection", "vicinal.reports.progress"),
    *("vicinal.reports.terminal", "vicinal.training.arm_checks", "vicinal.training.single_trial"),
]
"""What a run would import, each time anew."""


def start(words, rank, port, log):
    """Start a rank; return the number of its process."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
        # What torchrun sets.
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        variables |= {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        variables |= {"TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": 1}
        os.environ.update({name: str(value) for name, value in variables.items()})
        from vicinal import cli

        cli.app(words)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ran(words, folder):
    """Run a command line; return the exit code and the messages of each rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = [folder / f"{port}-{rank}" for rank in range(2)]
    numbers = [start(words, rank, port, log) for rank, log in enumerate(logs)]
    codes = {}
    for _ in numbers:
        number, status = os.wait()
        codes[number] = os.waitstatus_to_exitcode(status)
        if codes[number]:  # the other one would wait for it
            for other in set(numbers) - codes.keys():
                os.kill(other, signal.SIGTERM)
    return [(codes[number], log.read_text()) for number, log in zip(numbers, logs, strict=True)]


def main():
    for name in LATE:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps([ran(words, Path(folder)) for words in json.load(sys.stdin)]))


if __name__ == "__main__":
    main()
