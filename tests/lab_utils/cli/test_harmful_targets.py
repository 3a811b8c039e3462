"""A target that ends its process while it is imported or made is wrong usage, with the line at fault: never a pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab_utils.cli import main

CHECK = "per_user_agent_registry_isolation_validation"
BASE = "from lab_utils.targets.reference import ReferenceTarget\n"
KINDS = {
    "os._exit": ("import os\nos._exit(0)\n", "it exited with code 0 while the target was imported or made", 2),
    "prints first": (
        "import os\nprint('my last word', flush=True)\nos._exit(4)\n",
        "it exited with code 4 while the target was imported or made (at {module}.py:3); the last that it printed: my last",
        3,
    ),
    "KeyboardInterrupt": ("raise KeyboardInterrupt\n", "KeyboardInterrupt", 1),
    "hangs": ("import time\ntime.sleep(10**9)\n", "did not end within its limit of 3 s", 2),
    "spins": ("while True: pass\n", "did not end within its limit of 3 s", 1),
    "prints": ("for _ in range(20_000):\n    print('x' * 100)\nraise SystemExit\n", "sys.exit(None)", 3),
    "odd": ("raise ValueError('\\x1b]0;t\\x07\\udc80' + 'x' * 100_000)\n", "ValueError: \\x1b]0;t\\x07\\udc80xxx", 1),
    "mute": ("class E(Exception):\n    def __str__(self): raise E\nraise E\n", "E: <E whose str raises E>", 3),
    "crashes": ("import ctypes\nctypes.string_at(0)\n", "it was killed by SIGSEGV", 2),
    "made": (BASE + "class T(ReferenceTarget):\n    def __init__(self): raise SystemExit(7)\n", "sys.exit(7)", 3),
    "made and gone": (
        BASE + "import os\nclass T(ReferenceTarget):\n    def __init__(self):\n        os._exit(0)\n",
        "it exited with code 0",
        5,
    ),
}


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the module whose text a test is to write. Whatever is imported keeps its name to itself."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return f"harmful_{tmp_path.name}"


@pytest.mark.parametrize("kind", KINDS)
def test_it_ends_with_2_a_sentence_and_the_line(
    kind: str, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, words, line = KINDS[kind]
    (tmp_path / f"{target}.py").write_text(text)
    limit = ["--check-timeout", "3"] if "its limit" in words else []
    assert main(["check", CHECK, "--target", f"{target}:T", *limit]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"registry-lab: target '{target}:T' cannot be ")
    assert words.format(module=target) in err
    assert f"(at {target}.py:{line})" in err
    assert err.removesuffix("\n").isprintable()
    assert len(err) < 1_000


@pytest.mark.parametrize(
    "words", [["run", "user_isolation"], ["run", "--check", CHECK], ["list"], ["check", CHECK, "--in-process"]]
)
def test_every_command_that_takes_a_target_does(
    words: list[str], target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"{target}.py").write_text("import sys\nsys.exit(0)\n")
    assert main([*words, "--target", f"{target}:T"]) == 2
    out, err = capsys.readouterr()
    assert f"sys.exit(0) (at {target}.py:2)" in err
    assert not (tmp_path / "outputs").exists()
    assert "PASS" not in out


def test_a_target_may_live_where_names_are_not_text(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Paths and variables of bytes that are no UTF-8 reach the process of the check."""
    folder = tmp_path / "odd\udcff"
    folder.mkdir()
    (folder / f"{target}.py").write_text(BASE + "class T(ReferenceTarget): ...\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("ODD", "\udc80")
    monkeypatch.chdir(folder)
    assert main(["check", CHECK, "--target", f"{target}:T"]) == 0
    assert capsys.readouterr().out.startswith("PASS")
