"""tools/bootstrap.py: when it may do nothing, and which of pip's settings reach uv. Installs nothing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tools import bootstrap

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the files that a set-up reads."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


class Commands:
    """Stands in for pip and uv: records each command, makes the folder of `uv venv`, can be interrupted at one."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []
        self.interrupted_at: int | None = None

    def __call__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self.ran.append(command)
        if len(self.ran) - 1 == self.interrupted_at:
            raise KeyboardInterrupt
        if command[1] == "venv":
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    fake = Commands()
    monkeypatch.setattr(bootstrap, "run", fake)
    monkeypatch.setattr(bootstrap, "pip_settings", dict)
    return fake


def test_everything_is_installed_by_hash_and_a_second_call_runs_nothing(project: Path, commands: Commands) -> None:
    bootstrap.set_up(project)
    by_pip, making, by_uv, editable = commands.ran
    assert by_pip[1:4] == ["-m", "pip", "install"]
    assert by_pip[-3:] == ["--require-hashes", "--requirement", str(project / "requirements" / "bootstrap.lock")]
    assert making[1:] == ["venv", "--quiet", "--clear", "--python", sys.executable, str(project / ".venv")]
    assert by_uv[-2:] == ["--require-hashes", str(project / "requirements" / "environment.lock")]
    # Neither may fetch anything: the project's dependencies and its build backend are in the lock.
    assert {"--no-deps", "--no-build-isolation"} <= set(editable)

    bootstrap.set_up(project)
    assert len(commands.ran) == 4


@pytest.mark.parametrize("step", range(4))
def test_an_interrupted_set_up_never_counts_as_finished(project: Path, commands: Commands, step: int) -> None:
    # The second set-up, of a changed lock: the stamp of the first must not vouch for it, even if the lock changes back.
    lock = project / "requirements" / "environment.lock"
    text = lock.read_text()
    bootstrap.set_up(project)
    lock.write_text(f"{text}\n")
    commands.ran.clear()
    commands.interrupted_at = step
    with pytest.raises(KeyboardInterrupt):
        bootstrap.set_up(project)
    lock.write_text(text)
    # Until .venv is touched, its stamp is right.
    assert bootstrap.is_ready(project / ".venv", bootstrap.fingerprint(project)) == (step == 0)
    assert (project / ".venv" / bootstrap.STAMP).exists() == (step == 0)


def test_what_makes_the_environment_anew(project: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    def made_anew() -> bool:
        before = len(commands.ran)
        bootstrap.set_up(project)
        return len(commands.ran) > before

    assert made_anew()
    (project / ".venv" / "bin" / "python").unlink()
    assert made_anew()
    (project / ".venv" / bootstrap.STAMP).write_text("")
    assert made_anew()
    with (project / "requirements" / "environment.lock").open("a") as lock:
        lock.write("x==1\n")
    assert made_anew()
    with (project / "pyproject.toml").open("a") as pyproject:
        pyproject.write("[project.entry-points.x]\ny = 'z'\n")
    assert made_anew()
    with (project / "pyproject.toml").open("a") as pyproject:
        pyproject.write("[tool.x]\ny = 'z'\n")
    assert not made_anew()
    project = project.rename(project.with_name("elsewhere"))
    assert made_anew()
    monkeypatch.setattr(sys, "version_info", (3, 99))
    assert made_anew()


def test_an_environment_that_is_elsewhere_is_not_emptied_through_a_link(
    project: Path, commands: Commands, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (project / ".venv").symlink_to(elsewhere)
    with pytest.raises(bootstrap.SetupFailed, match=f"{elsewhere} holds would be deleted: rm {project}"):
        bootstrap.set_up(project)
    assert not commands.ran


def test_pips_settings_reach_uv() -> None:
    settings = {
        "index-url": "https://mirror.invalid/simple",
        "extra-index-url": "\nfile:///one/simple\n  file:///two/simple",
        "find-links": "/one /two",
        "trusted-host": "mirror.invalid other.invalid",
        "cert": "ours.pem",
        "proxy": "proxy.invalid:3128",
        "default-timeout": "180",
    }
    environment = {"UV_DEFAULT_INDEX": "kept", "SSL_CERT_FILE": "theirs.pem", "HOME": "home"}
    assert bootstrap.uv_environment(settings, environment) == {
        "HOME": "home",
        "UV_DEFAULT_INDEX": "kept",
        "UV_EXTRA_INDEX_URL": "file:///one/simple file:///two/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/one,/two",
        "UV_INSECURE_HOST": "mirror.invalid other.invalid",
        "UV_HTTP_TIMEOUT": "180",
        "SSL_CERT_FILE": "ours.pem",
        "HTTP_PROXY": "proxy.invalid:3128",
        "HTTPS_PROXY": "proxy.invalid:3128",
    }
    assert bootstrap.uv_options({"no-index": "true"}) == ["--no-index"]
    assert bootstrap.uv_options({"no-index": "false"}) == bootstrap.uv_options({}) == []


def test_pips_settings_are_read_in_pips_own_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = tmp_path / "pip.conf"
    configuration.write_text("[global]\ntimeout = 1\nindex_url = a\nproxy = p\n[install]\ntimeout = 2\nindex-url = b\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    monkeypatch.setenv("PIP_INDEX_URL", "it's c")
    settings = bootstrap.pip_settings()
    assert (settings["timeout"], settings["index-url"], settings["proxy"]) == ("2", "it's c", "p")


def test_errors_name_the_remedy(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(bootstrap.SetupFailed, match="PIP_INDEX_URL"):
        bootstrap.run([sys.executable, "-c", "raise SystemExit(3)"], os.environ)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert bootstrap.main([]) == 1
    assert "apt install python3-pip" in capfd.readouterr().err

    monkeypatch.setattr(bootstrap, "OLDEST", (99, 0))
    assert bootstrap.main([]) == 1
    assert "make PYTHON=" in capfd.readouterr().err


def test_it_needs_the_standard_library_alone() -> None:
    # -I -S: no site-packages, no variables, nothing beside the script.
    ran = subprocess.run(
        [sys.executable, "-I", "-S", str(bootstrap.__file__), "--help"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
