"""Run the command line many times over, each time with a fault at another file operation.

A program of its own: everything is imported once, and each run is forked from there. It reads
jobs as a JSON list from stdin and prints their results as JSON. A fault is
``[kind, function, number, when]``:

* "kill": the process dies before or after the ``number``-th call of the function.
* "full": this call and all later ones fail as they do on a full disk.
* "disk": the folder is on a disk of ``number`` KiB.

After the fault, the same command runs again without one, and every file has to be the same as
after an unbroken run.
"""

import errno
import importlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from matplotlib.backends.backend_svg import FigureCanvasSVG

KILLED = 137
KILLS = {
    "write_bytes": Path,
    "replace": os,
    "fsync": os,
    "unlink": os,
    "mkdir": os,
}
"""Where each function lives that a process can be killed at."""
LATE = [
    *("jinja2", "sklearn.datasets", "sklearn.model_selection", "torch.utils.tensorboard"),
    *("vicinal.cli", "vicinal.reports.study_report", "vicinal.reports.study_figures"),
    *("vicinal.reports.terminal", "vicinal.studies.examples", "vicinal.studies.summary"),
    *("vicinal.studies.study", "vicinal.studies.trial_probes", "vicinal.training.arm_checks"),
    "vicinal.training.single_trial",
]
FULL = {"write_bytes": Path, "open": os, "fsync": os, "mkdir": os}
"""Functions that fail on a full disk."""


def patched(fault, counts):
    """Count the calls of each function, and let one of them fail."""
    kind, wanted, number, when = fault
    table = {"full": FULL, "kill": KILLS, "disk": {}}[kind]
    full = [False]

    def around(name, original):
        def call(*args, **options):
            counts[name] += 1
            here = name == wanted and counts[name] == number
            if kind == "full":
                full[0] = full[0] or here
                if full[0]:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            elif here and when == "before":
                os._exit(KILLED)
            try:
                return original(*args, **options)
            finally:
                if here and when == "after":
                    os._exit(KILLED)

        return call

    for name, module in table.items():
        counts[name] = 0
        setattr(module, name, around(name, getattr(module, name)))


def run(words, fault, log):
    """Run the command line in a child; return its exit code, its messages and its calls."""
    sys.stdout.flush()
    number = os.fork()
    if not number:
        code, counts = 99, {}
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            patched(fault, counts)
            import vicinal.training.trial
            import vicinal.training.trial_checkpoint
            from vicinal import cli

            # Without time and memory, two runs write the same bytes.
            vicinal.training.trial.time = type("NoTime", (), {"perf_counter": lambda: 0.0})
            vicinal.training.trial_checkpoint.peak_memory = lambda _device: 1
            # Figures are written all the same; drawing them takes longer than training.
            FigureCanvasSVG.print_svg = lambda _, file, **_settings: file.write("<svg></svg>")
            cli.app(words)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.stderr.flush()
            Path(f"{log}.counts").write_text(json.dumps(counts))
            os._exit(code)
    _, status = os.waitpid(number, 0)
    code = os.waitstatus_to_exitcode(status)
    calls = Path(f"{log}.counts")
    return code, log.read_text(), json.loads(calls.read_text()) if calls.exists() else {}


def files(folder):
    """Return the content of every file in a folder but the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock" and path.parent.name != "tensorboard"
    }


def faults_of(kind, counts, size):
    """Return every fault of a kind that a run with these calls and files can meet."""
    if kind == "disk":
        return [[kind, "KiB", size * k // 26 // 1024, "from"] for k in range(1, 26)]
    whens = ["before", "after"] if kind == "kill" else ["from"]
    return [
        [kind, name, number, when]
        for name in (KILLS if kind == "kill" else FULL)
        for number in range(1, counts[name] + 1)
        for when in whens
    ]


@contextmanager
def small_disk(out, kind, size):
    """Give a folder a disk of its own, which has room again when the block ends."""
    if kind != "disk":
        yield
        return
    out.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={max(size, 4)}k", "tmpfs", str(out)]
    subprocess.run(["mount", *options], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,size=100m", str(out)], check=True)


def failed_as_expected(kind, code, text):
    if kind == "kill":
        return code == KILLED
    return code == 2 and "No space left" in text and "Traceback" not in text


def tried(fault, out, job, log):
    """Return what is wrong after a fault and the same command again, or None."""
    words, nothing = [*job["words"], "--out", str(out)], [fault[0], "", 0, ""]
    with small_disk(out, fault[0], fault[2]):
        code, text, _ = run(words, fault, log)
    if not failed_as_expected(fault[0], code, text):
        return f"ended with {code}: {text[-300:]}"
    code, text, _ = run([*words, *job["again"]], nothing, log)
    found, expected = files(out) if out.exists() else {}, job["expected"]
    if code or found != expected:
        names = expected.keys() | found.keys()
        other = sorted(name for name in names if expected.get(name) != found.get(name))
        return f"run again, it ended with {code} and other {other}: {text[-300:]}"
    return None


def main():
    for name in LATE:  # what a run would import, each time anew
        importlib.import_module(name)
    print(json.dumps([story_of(job) for job in json.load(sys.stdin)]))


def story_of(job):
    """Return what came of the faults of a job."""
    base, kind = Path(job["folder"]), job["kind"]
    log, whole = base / "log", base / "whole"
    code, text, counts = run([*job["words"], "--out", str(whole)], [kind, "", 0, ""], log)
    assert code == 0, text
    job["expected"] = files(whole)
    size = sum(path.stat().st_size for path in whole.rglob("*"))
    faults = faults_of(kind, counts, size)
    story = {"faults": len(faults), "tried": 0, "wrong": []}
    for number, fault in enumerate(faults[job["every"] // 2 :: job["every"]]):
        out = base / str(number)
        wrong = tried(fault, out, job, log)
        story["tried"] += 1
        story["wrong"] += [[fault, wrong]] if wrong else []
        if kind == "disk":
            subprocess.run(["umount", str(out)], check=True)
        else:
            shutil.rmtree(out)
    return story


if __name__ == "__main__":
    main()
