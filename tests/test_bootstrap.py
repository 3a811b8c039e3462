"""tools/bootstrap.py: when it may do nothing, and what it tells uv of pip's settings. Installs nothing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "tools" / "bootstrap.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bootstrap = load()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with two small locks and what looks like a finished environment made from the larger one."""
    (tmp_path / "lab.lock").write_text("# made\npsutil==7.2.2 \\\n    --hash=sha256:00\n    # via x==1\n")
    (tmp_path / "dev.lock").write_text("psutil==7.2.2 ; os_name != 'x' \\\n    --hash=sha256:00\npytest==9.2.0\n")
    (tmp_path / "python").touch()
    (tmp_path / "stamp").write_text(json.dumps(bootstrap.state(tmp_path / "dev.lock")))
    return tmp_path


def satisfied(place: Path, lock: str) -> bool:
    return bool(bootstrap.satisfies(place / "stamp", bootstrap.state(place / lock), place / "python"))


def test_a_larger_lock_serves_a_smaller_one_and_not_the_other_way(place: Path) -> None:
    assert satisfied(place, "dev.lock")
    assert satisfied(place, "lab.lock")
    (place / "stamp").write_text(json.dumps(bootstrap.state(place / "lab.lock")))
    assert satisfied(place, "lab.lock")
    assert not satisfied(place, "dev.lock")


def test_a_changed_pin_is_installed(place: Path) -> None:
    (place / "lab.lock").write_text("psutil==7.2.3\n")
    assert not satisfied(place, "lab.lock")


@pytest.mark.parametrize("key", ["python", "project", "root", "pins"])
def test_another_python_or_project_or_place_is_set_up_anew(place: Path, key: str) -> None:
    stamp = json.loads((place / "stamp").read_text())
    (place / "stamp").write_text(json.dumps({**stamp, key: ["another"]}))
    assert not satisfied(place, "dev.lock")


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"python": '])
def test_a_damaged_stamp_is_no_stamp(place: Path, text: str) -> None:
    (place / "stamp").write_text(text)
    assert not satisfied(place, "dev.lock")


def test_no_stamp_or_no_python_is_set_up_anew(place: Path) -> None:
    (place / "python").unlink()
    assert not satisfied(place, "dev.lock")
    (place / "python").touch()
    (place / "stamp").unlink()
    assert not satisfied(place, "dev.lock")


def test_a_set_up_that_is_cut_short_leaves_no_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "pyvenv.cfg").touch()
    (tmp_path / bootstrap.STAMP).write_text("{}")
    monkeypatch.setattr(bootstrap, "make_venv", lambda *_: None)
    monkeypatch.setattr(bootstrap, "install_with_uv", interrupted)
    assert bootstrap.main([str(ROOT / "requirements" / "lab.lock"), "--venv", str(tmp_path)]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["pyvenv.cfg"]


def test_an_environment_that_was_moved_is_made_anew(tmp_path: Path) -> None:
    here = tmp_path / "here"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(here)], check=True)
    # A pip that can be imported is what `usable` asks for; the real one takes seconds to install.
    for packages in here.rglob("site-packages"):
        (packages / "pip.py").touch()
    assert bootstrap.usable(here / "bin" / "python")
    assert not bootstrap.usable(here.rename(tmp_path / "there") / "bin" / "python")
    assert not bootstrap.usable(tmp_path / "nowhere" / "bin" / "python")


def test_pip_takes_over_where_uv_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def pip(_: Path, arguments: list[str]) -> None:
        done.append(arguments[-1])
        if arguments[-1].endswith("bootstrap.lock"):
            raise bootstrap.SetupFailed("no uv for this machine")

    monkeypatch.setattr(bootstrap, "make_venv", lambda *_: None)
    monkeypatch.setattr(bootstrap, "pip", pip)
    lock = ROOT / "requirements" / "lab.lock"
    assert bootstrap.main([str(lock), "--venv", str(tmp_path)]) == 0
    assert done == [str(ROOT / "requirements" / "bootstrap.lock"), str(lock), str(ROOT)]
    assert (tmp_path / bootstrap.STAMP).is_file()


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
    settings = bootstrap.pip_settings(Path(sys.executable))
    assert (settings["timeout"], settings["index-url"], settings["proxy"]) == ("2", "it's c", "p")


def test_errors_name_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lab = str(ROOT / "requirements" / "lab.lock")

    assert bootstrap.main(["requirements/lob.lock"]) == 1
    assert "lab.lock" in capfd.readouterr().err

    (tmp_path / "thesis.tex").touch()
    assert bootstrap.main([lab, "--venv", str(tmp_path)]) == 1
    assert "no virtual environment" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    monkeypatch.setattr(bootstrap.importlib.util, "find_spec", lambda name: None)
    assert bootstrap.main([lab, "--venv", str(tmp_path / "new")]) == 1
    assert "apt install python3-venv" in capfd.readouterr().err

    monkeypatch.setattr(bootstrap, "OLDEST", (99, 0))
    assert bootstrap.main([lab, "--venv", str(tmp_path / "new")]) == 1
    assert "make PYTHON=" in capfd.readouterr().err


def test_it_needs_the_standard_library_alone() -> None:
    # -I -S: no site-packages, no variables, nothing beside the script.
    ran = subprocess.run(
        [sys.executable, "-I", "-S", str(SOURCE), "--help"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
