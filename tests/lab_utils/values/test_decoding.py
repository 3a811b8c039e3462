"""Types that several threads decode at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lab_utils.values.result import encode
from tests.lab_utils.made import op, result

FIRST_IN_THREADS = """
import os, sys, threading
from lab_utils.values.result import decode

text = sys.stdin.buffer.read()
sys.setswitchinterval(1e-6)

def first():
    together = threading.Barrier(3)
    def read():
        together.wait()
        for _ in range(20):
            decode(text)
    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()

for _ in range(20):
    if not (pid := os.fork()):
        first()
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert ended == 0, ended
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_several_threads_may_be_the_first_to_decode_a_result() -> None:
    command = [sys.executable, "-c", FIRST_IN_THREADS]
    ended = subprocess.run(command, input=encode(result(operations=(op(0),))), capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
