"""A target whose every word is odd ends a run as any other does, and its text is escaped and cut at every border."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from lab_utils.output.frames import load

ROOT = Path(__file__).resolve().parents[3]
CHECK = "agent_retrieval_by_user_and_thread_isolation"
MAIN = "import sys; from lab_utils.cli import main; sys.exit(main())"
TARGET = """
import sys
from lab_utils.targets.reference import ReferenceTarget

ODD = "\\udc80 \\x1b]0;title\\x07 \\x00 <script>alert(1)</script> \\u202e" + "x" * 100_000
Odd = type("E" + ODD.replace("\\0", "").replace("\\udc80", ""), (Exception,), {})


class T(ReferenceTarget):
    async def get(self, *args, **more):
        print("\\x1b[31m" + ODD.replace("\\udc80", ""), flush=True)
        raise Odd(ODD)
"""


def test_everything_that_is_made_of_it_is_text_and_small(tmp_path: Path) -> None:
    folder = tmp_path / "customers" / "acme"
    folder.mkdir(parents=True)
    (folder / "odd.py").write_text(TARGET)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
        "PYTHONIOENCODING": "ascii",
        "COLUMNS": "20",
    }
    command = [sys.executable, "-c", MAIN, "run", "--check", CHECK, "--target", "odd:T", "--out", "runs"]
    done = subprocess.run(
        [*command, "--calibrate", "never"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=3_600,
        check=False,
    )
    printed = (done.stdout + done.stderr).decode("ascii")
    assert done.returncode == 1, printed
    assert printed.replace("\n", "").isprintable()
    assert len(printed) < 4_000
    [run] = [path for path in (tmp_path / "runs").iterdir() if path.name[0].isdigit()]
    assert str(run.relative_to(tmp_path)) in printed
    files = {path.relative_to(run).as_posix(): path for path in run.rglob("*") if path.is_file()}
    for name, path in files.items():
        if not name.startswith(("logs/", "frames/")):
            text = path.read_bytes().decode("utf-8")
            # One notebook shows the record of public frameworks, and nothing of the target.
            assert len(text) < 400_000 or name == "notebooks/10_frameworks.ipynb", name
            assert not any(one in text for one in "\x00\x1b\x07\u202e\x9b"), name
            assert "<script>alert" not in text or not name.endswith(".html"), name
            assert str(tmp_path) not in text, name
            assert "customers/acme" not in text, name
    ET.fromstring(files["junit.xml"].read_text(encoding="utf-8"))
    json.loads(files["run.json"].read_text(encoding="utf-8"))
    for frame in load(run / "frames").values():
        texts = [text for name in frame if frame[name].dtype == "str" for text in frame[name]]
        assert all(text.replace("\n", "").isprintable() and len(text) <= 100_000 for text in texts)
