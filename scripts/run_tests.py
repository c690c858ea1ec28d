#!/usr/bin/env python3
"""Builds all tests of the workspace and runs them, three programs at a time: most of them wait most
of the time, and cargo would run one after the other. What each said is printed when it ended."""

import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time

AT_ONCE = 3
# These take longest and begin first, so that none is left over at the end.
FIRST = [
    "store_conformance",
    "authentik",
    "store_faults",
    "store_index",
    "daybook",
    "kill_matrix",
    "process_kill",
    "chaos",
    "outage",
]
# Seconds after which a program hangs.
LONGEST = 900
# These say how soon something has to happen; beside each other, but nothing else, they can tell.
TIMED = {"operated", "page_browser"}

CARGO_TEST = ["cargo", "test", "--locked", "--workspace"]
RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.MULTILINE)


def build():
    """(name, program, directory) of every test program."""
    command = [*CARGO_TEST, "--no-run", "--message-format=json-render-diagnostics"]
    built = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode != 0:
        sys.exit(built.returncode)
    artifacts = [json.loads(line) for line in built.stdout.splitlines()]
    return [
        (
            artifact["target"]["name"],
            artifact["executable"],
            os.path.dirname(artifact["manifest_path"]),
        )
        for artifact in artifacts
        if artifact.get("executable") and artifact["profile"]["test"]
    ]


class Runs:
    """What was run and how it ended."""

    def __init__(self):
        self.passed = self.failed = 0
        self.trouble = []
        self.talking = threading.Lock()

    def run(self, name, command, directory):
        began = time.monotonic()
        with tempfile.TemporaryFile() as said:
            try:
                ended = subprocess.run(
                    command,
                    cwd=directory,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    timeout=LONGEST,
                    check=False,
                )
                status = ended.returncode
            except subprocess.TimeoutExpired:
                status = f"none within {LONGEST} s"
            said.seek(0)
            output = said.read().decode(errors="replace")
        with self.talking:
            print(f"\n== {name} ({time.monotonic() - began:.0f} s)\n{output}", flush=True)
            results = [tuple(map(int, found)) for found in RESULT.findall(output)]
            self.passed += sum(passed for passed, _, _ in results)
            self.failed += sum(failed for _, failed, _ in results)
            if status != 0:
                self.trouble.append(f"{name} failed (exit status: {status})")
            elif not results:
                self.trouble.append(f"{name} told no result")
            if any(ignored for _, _, ignored in results):
                self.trouble.append(f"{name} skipped a test")

    def run_all(self, tests, at_once):
        waiting = queue.SimpleQueue()
        for test in tests:
            waiting.put(test)

        def work():
            while True:
                try:
                    name, program, directory = waiting.get_nowait()
                except queue.Empty:
                    return
                self.run(name, [program], directory)

        # Daemons, so that an interruption ends them too.
        workers = [threading.Thread(target=work, daemon=True) for _ in range(at_once)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


def main():
    tests = build()
    runs = Runs()
    runs.run_all([test for test in tests if test[0] in TIMED], len(TIMED))
    others = [test for test in tests if test[0] not in TIMED]
    others.sort(key=lambda test: FIRST.index(test[0]) if test[0] in FIRST else len(FIRST))
    runs.run_all(others, AT_ONCE)
    runs.run("documentation", [*CARGO_TEST, "--doc"], os.getcwd())
    print()
    for trouble in runs.trouble:
        print(f"error: {trouble}")
    print(f"{runs.passed} passed, {runs.failed} failed")
    sys.exit(1 if runs.trouble else 0)


if __name__ == "__main__":
    main()
