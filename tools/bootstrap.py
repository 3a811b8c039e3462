"""Makes the virtual environment that a lock file describes, and does nothing when it is there already.

    python tools/bootstrap.py requirements/dev.lock [--venv .venv]

Standard library only, and no syntax newer than Python 3.8's, so that an old interpreter reaches the message that says
it is too old. Packages are installed by uv, itself pinned by hash in requirements/bootstrap.lock; where uv cannot be
had or fails, pip installs the same lock, more slowly.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parent.parent
STAMP = "agent-registry-lab.json"


class SetupFailed(Exception):
    """The environment could not be made; the message names the remedy."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the virtual environment that a lock file describes.")
    parser.add_argument("lock", type=Path, help="a file of requirements/")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="the folder to make (default: .venv)")
    parser.add_argument("--no-uv", action="store_true", help="install with pip, as where uv is missing")
    options = parser.parse_args(arguments)
    try:
        set_up(options.lock.resolve(), options.venv.absolute(), use_uv=not options.no_uv)
    except SetupFailed as failure:
        print(f"bootstrap: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bootstrap: interrupted; the next call goes on from here", file=sys.stderr)
        return 130
    return 0


def set_up(lock: Path, venv: Path, *, use_uv: bool) -> None:
    """Return with `venv` holding every pin of `lock` and the project, editable.

    At once if its stamp says so. The stamp goes before the first change and comes back after the last, so that a
    set-up cut short is never taken for a finished one.
    """
    if sys.version_info < OLDEST:
        raise SetupFailed(
            "Python {}.{} or newer is needed and this is {}; name one that is: make PYTHON=python3.12 ...".format(
                *OLDEST, sys.version.split()[0]
            )
        )
    if not lock.is_file():
        known = ", ".join(sorted(path.name for path in lock.parent.glob("*.lock")))
        raise SetupFailed(f"no lock file {lock}; there is {known or 'none there at all, see `make lock`'}")
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = venv / STAMP
    wanted = state(lock)
    if satisfies(stamp, wanted, python):
        return

    began = time.monotonic()
    stamp.unlink(missing_ok=True)
    make_venv(venv, python)
    if not (use_uv and install_with_uv(lock, python)):
        install_with_pip(lock, python)
    say("installing the project itself, editable")
    # The lock pins the build backend, so nothing unpinned is fetched for the build.
    pip(python, ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)])

    unfinished = stamp.with_suffix(".part")
    unfinished.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
    unfinished.replace(stamp)
    say(f"ready in {time.monotonic() - began:.0f} s: {shown(venv)}")


# ---------------------------------------------------------------------------------------------------------- the stamp


def state(lock: Path) -> dict[str, object]:
    """What a finished environment is known by."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    return {
        "python": list(sys.version_info[:2]),
        # An editable install must be made again when the entry points or the packages change.
        "project": hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest(),
        "root": str(ROOT),
        # Markers are left out: they may differ between a lock and a larger one, the pins never do.
        "pins": sorted({line.split()[0] for line in lines if "==" in line and not line.startswith((" ", "#"))}),
    }


def satisfies(stamp: Path, wanted: dict[str, object], python: Path) -> bool:
    """Whether the environment has all of `wanted`. One made from a larger lock has what a smaller one asks for."""
    try:
        found = json.loads(stamp.read_text(encoding="utf-8"))
        same = all(found[key] == wanted[key] for key in ("python", "project", "root"))
        return same and set(wanted["pins"]) <= set(found["pins"]) and python.exists()  # type: ignore[call-overload]
    except (OSError, ValueError, KeyError, TypeError):
        return False


# ----------------------------------------------------------------------------------------------------- the environment


def make_venv(venv: Path, python: Path) -> None:
    """Make the folder, keep what an interrupted call has left, or make it anew for another Python."""
    if usable(python):
        say(f"keeping {shown(venv)} (Python {sys.version.split()[0]})")
        return
    if venv.exists() and any(venv.iterdir()) and not (venv / "pyvenv.cfg").is_file():
        raise SetupFailed(f"{venv} is no virtual environment; move it away, or name another folder with --venv")
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise SetupFailed(
            f"{sys.executable} lacks the modules venv and ensurepip; on Debian and Ubuntu: apt install python3-venv"
        )
    say(f"making {shown(venv)} (Python {sys.version.split()[0]})")
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=False)
    if made.returncode != 0:
        raise SetupFailed(f"{sys.executable} -m venv failed; remove {venv} and see the message above")


def usable(python: Path) -> bool:
    """Whether an environment of this same Python stands there, with its pip, made in this place."""
    configuration = python.parent.parent / "pyvenv.cfg"
    code = "import sys, pip; print(*sys.version_info[:2])"
    try:
        lines = configuration.read_text(encoding="utf-8").splitlines()
        answer = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return False
    # Its commands begin with the path of their Python, so one that was moved or copied here would run the old one.
    moved = any(line.startswith("command =") and not line.endswith(f" {configuration.parent}") for line in lines)
    return answer.stdout.split() == [str(part) for part in sys.version_info[:2]] and not moved


# ------------------------------------------------------------------------------------------------------ the installers


def install_with_uv(lock: Path, python: Path) -> bool:
    """Install the lock by uv; False, with the reason said, where that cannot be done."""
    bootstrap_lock = ROOT / "requirements" / "bootstrap.lock"
    try:
        say("installing uv, by its hash")
        pip(python, ["--require-hashes", "--requirement", str(bootstrap_lock)])
        say(f"installing {shown(lock)}, by hash, with uv")
        settings = pip_settings(python)
        uv = [str(python), "-m", "uv", "pip", "install", "--quiet", "--python", str(python), *uv_options(settings)]
        command = [*uv, "--require-hashes", "--requirement", str(lock)]
        subprocess.run(command, check=True, env=uv_environment(settings, os.environ))
    except (SetupFailed, OSError, subprocess.CalledProcessError):
        say("uv could not do it, see above: pip will")
        return False
    return True


def install_with_pip(lock: Path, python: Path) -> None:
    say(f"installing {shown(lock)}, by hash, with pip: a minute or two")
    pip(python, ["--require-hashes", "--requirement", str(lock)])


def pip(python: Path, arguments: list[str]) -> None:
    """Run pip install, quietly, its errors shown; raise SetupFailed if it fails."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *arguments]
    # pip's warning about being root is about a system's Python; this one is ours.
    environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}
    if subprocess.run(command, check=False, env=environment).returncode != 0:
        raise SetupFailed(
            f"pip could not install {arguments[-1]}; see its message above. Without a network, or behind a proxy or a "
            "mirror, set pip's own settings (pip config, or PIP_INDEX_URL, PIP_PROXY, PIP_CERT) and call again"
        )


def pip_settings(python: Path) -> dict[str, str]:
    """What pip itself is set to, from its files and its environment, by option name."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    layers: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        layer, _, option = key.strip().rpartition(".")
        if layer in layers:
            # pip reads `trusted_host` and `trusted-host` alike, and prints a value as Python would.
            layers[layer][option.replace("_", "-")] = str(ast.literal_eval(value))
    # pip's own order: [install] over [global], the environment over both.
    return {**layers["global"], **layers["install"], **layers[":env:"]}


def uv_options(settings: dict[str, str]) -> list[str]:
    """The options of uv for those of pip's settings that it takes from no variable."""
    return ["--no-index"] if settings.get("no-index", "").lower() in ("1", "true", "yes", "on") else []


def uv_environment(settings: dict[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which uv does what pip's settings say; uv's own variables, where set, stay as they are.

    It lives for one call and is never written down: an address may hold a password.
    """
    own = {
        "UV_DEFAULT_INDEX": settings.get("index-url", ""),
        "UV_EXTRA_INDEX_URL": " ".join(settings.get("extra-index-url", "").split()),
        # pip takes the best file of all indexes, uv by itself only those of the first index that knows the name.
        # Which index a file comes from is no matter here, as every file must have one of the lock's hashes.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": ",".join(settings.get("find-links", "").split()),
        "UV_INSECURE_HOST": " ".join(settings.get("trusted-host", "").split()),
        "UV_HTTP_TIMEOUT": settings.get("timeout", settings.get("default-timeout", "")),
        "UV_KEYRING_PROVIDER": "subprocess" if settings.get("keyring-provider") == "subprocess" else "",
    }
    # These are every program's, and what is said to pip is the more particular word.
    shared = {
        "SSL_CERT_FILE": settings.get("cert", ""),
        "SSL_CLIENT_CERT": settings.get("client-cert", ""),
        "HTTP_PROXY": settings.get("proxy", ""),
        "HTTPS_PROXY": settings.get("proxy", ""),
    }
    given = {name: value for name, value in own.items() if value and name not in environment}
    return {**environment, **given, **{name: value for name, value in shared.items() if value}}


# ------------------------------------------------------------------------------------------------------------- talking


def shown(path: Path) -> str:
    """A path as one would type it at the top of the project."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def say(line: str) -> None:
    print(f"bootstrap: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
