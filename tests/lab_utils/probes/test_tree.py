"""The memory of a tree of processes is what its own processes wrote, whoever else runs the same programs."""

from __future__ import annotations

import mmap
import os
import pydoc_data.topics
import subprocess
import sys
from pathlib import Path

import pytest

from lab_utils.probes.tree import tree_now

LARGE = Path(pydoc_data.topics.__file__)
"""Some hundred kilobytes that nobody maps."""
LITTLE, KEPT = 100_000, 8_000_000
MAPS = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    program = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
touched = program[::4_096]
print("mapped", flush=True)
input()
kept = b"x" * int(sys.argv[2])
print("kept", flush=True)
input()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it is USS")
def test_it_is_the_same_while_another_process_maps_the_same_file_and_grows_with_what_is_written() -> None:
    with LARGE.open("rb") as file:
        # Pages that have yet to be written to the disk would count as written by the process.
        os.fsync(file.fileno())
    # What is measured is below the shell.
    command = ["sh", "-c", '"$@"; true', "sh", sys.executable, "-c", MAPS, str(LARGE), str(KEPT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        assert shell.stdout.readline() == "mapped\n"
        alone = tree_now(shell.pid)
        with LARGE.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as beside:
            assert 4_096 * len(beside[::4_096]) > 5 * LITTLE
            shared = tree_now(shell.pid)
        again = tree_now(shell.pid)
        print(file=shell.stdin, flush=True)
        assert shell.stdout.readline() == "kept\n"
        grown = tree_now(shell.pid)
        print(file=shell.stdin, flush=True)
    assert alone.processes == grown.processes == 1
    assert abs(shared.own - alone.own) < LITTLE
    assert abs(again.own - alone.own) < LITTLE
    assert abs(grown.own - again.own - KEPT) < LITTLE
