#!/usr/bin/env python3
"""Builds all tests of the workspace and runs them, three programs at a time: most of them wait most
of the time, and cargo would run one after the other. What each said is printed when it ended."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

AT_ONCE = 3
# These take longest and begin first, so that none is left over at the end.
FIRST = [
    "authentik",
    "store_conformance",
    "store_faults",
    "store_index",
    "replay",
    "chaos",
    "kill_matrix",
    "recorder",
    "stream",
    "outage",
    "rotation",
    "daybook",
    "process_kill",
    "documentation",
]
# Seconds after which a program hangs.
LONGEST = 1800
# Seconds for the watchdogs of its MongoDB servers, which see it end, kill them and remove their folders.
CLEARING_UP = 5
# Lines of each failed program that stand at the very end once more: a long log may be cut before.
TOLD_AGAIN = 60
# Programs, and single modules of others, that say how soon something has to happen; beside the other, but nothing
# else, they can tell.
TIMED = ["operated", "kill_matrix recovery", "isolation slow_readers"]
BESIDE_THEM = "page_browser"

CARGO_TEST = ["cargo", "test", "--locked", "--workspace"]
RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.MULTILINE)


def build():
    """(name, command, directory) of every test program."""
    command = [*CARGO_TEST, "--no-run", "--message-format=json-render-diagnostics"]
    built = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode != 0:
        sys.exit(built.returncode)
    artifacts = [json.loads(line) for line in built.stdout.splitlines()]
    return [
        (
            artifact["target"]["name"],
            [artifact["executable"]],
            os.path.dirname(artifact["manifest_path"]),
        )
        for artifact in artifacts
        if artifact.get("executable") and artifact["profile"]["test"]
    ]


def apart(tests):
    """The same; a program's timed modules by themselves."""
    for name, command, directory in tests:
        parts = [timed.split()[1] for timed in TIMED if timed.startswith(f"{name} ")]
        for part in parts:
            yield f"{name} {part}", [*command, f"{part}::"], directory
        others = [f"--skip={part}::" for part in parts]
        yield name, [*command, *others], directory


def end(programs):
    """Ends programs, and then what they have started."""
    for program in programs:
        program.kill()
    time.sleep(CLEARING_UP)
    for program in programs:
        try:
            os.killpg(program.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Runs:
    """What was run and how it ended."""

    def __init__(self):
        self.passed = self.failed = self.ended = 0
        self.trouble = []
        self.ends = []
        self.talking = threading.Lock()
        self.running = set()
        self.starting = threading.Lock()

    def start(self, command, directory, said):
        with self.starting:
            program = subprocess.Popen(
                command,
                cwd=directory,
                stdout=said,
                stderr=subprocess.STDOUT,
                # What it starts can be told by it.
                start_new_session=True,
            )
            self.running.add(program)
        return program

    def end_all(self):
        """Afterwards nothing runs, nor is anything started."""
        self.starting.acquire()
        running = list(self.running)
        if running:
            end(running)

    def run(self, name, command, directory):
        began = time.monotonic()
        with tempfile.TemporaryFile() as said:
            program = self.start(command, directory, said)
            try:
                status = program.wait(LONGEST)
            except subprocess.TimeoutExpired:
                end([program])
                program.wait()
                status = f"none within {LONGEST} s"
            self.running.discard(program)
            said.seek(0)
            output = said.read().decode(errors="replace")
        with self.talking:
            self.ended += 1
            troubles = len(self.trouble)
            results = [tuple(map(int, found)) for found in RESULT.findall(output)]
            self.passed += sum(passed for passed, _, _ in results)
            self.failed += sum(failed for _, failed, _ in results)
            if status != 0:
                self.trouble.append(f"{name} failed (exit status: {status})")
            elif not results:
                self.trouble.append(f"{name} told no result")
            elif name in TIMED and not any(passed for passed, _, _ in results):
                self.trouble.append(f"{name} has no test")
            if any(ignored for _, _, ignored in results):
                self.trouble.append(f"{name} skipped a test")
            if len(self.trouble) > troubles:
                self.ends.append((name, output.splitlines()[-TOLD_AGAIN:]))
            # Last: what cannot be told has failed all the same.
            print(f"\n== {name} ({time.monotonic() - began:.0f} s)\n{output}", flush=True)

    def begin(self, tests, at_once):
        """Threads that run all of them, so many at once."""
        waiting = queue.SimpleQueue()
        for test in tests:
            waiting.put(test)

        def work():
            while True:
                try:
                    test = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    self.run(*test)
                except Exception as error:
                    self.trouble.append(f"the run of {test[0]} broke off: {error!r}")

        # Daemons, so that an interruption ends them too.
        workers = [threading.Thread(target=work, daemon=True) for _ in range(at_once)]
        for worker in workers:
            worker.start()
        return workers


def join(workers):
    for worker in workers:
        worker.join()


def run_all(tests, runs):
    timed = runs.begin([test for test in tests if test[0] in TIMED], 1)
    beside = runs.begin([test for test in tests if test[0] == BESIDE_THEM], 1)
    join(timed)
    others = [test for test in tests if test[0] not in (*TIMED, BESIDE_THEM)]
    others.sort(key=lambda test: FIRST.index(test[0]) if test[0] in FIRST else len(FIRST))
    join(runs.begin(others, AT_ONCE) + beside)


def main():
    # Sessions of their own hear neither this nor an interruption.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    # What a program says must not end what runs it.
    sys.stdout.reconfigure(errors="replace")
    tests = [*apart(build()), ("documentation", [*CARGO_TEST, "--doc"], os.getcwd())]
    runs = Runs()
    try:
        run_all(tests, runs)
    finally:
        runs.end_all()
    if runs.ended != len(tests):
        runs.trouble.append(f"{runs.ended} of {len(tests)} programs ended")
    for name, lines in runs.ends:
        print(f"\n== {name}, its end once more", *lines, sep="\n")
    print()
    for trouble in runs.trouble:
        print(f"error: {trouble}")
    print(f"{runs.passed} passed, {runs.failed} failed")
    sys.exit(1 if runs.trouble else 0)


if __name__ == "__main__":
    main()
