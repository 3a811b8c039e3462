"""Makes .venv as requirements/environment.lock describes it, or returns at once when it is there already.

    python tools/bootstrap.py [--only-uv]

pip installs uv by the hashes of requirements/bootstrap.lock, and uv installs everything else by the hashes of the other
lock. Standard library only, and no syntax newer than Python 3.8's, so that an old interpreter reaches the message that
says it is too old.
"""

from __future__ import annotations

import argparse
import ast
import fcntl
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
STAMP = "agent-registry-lab.stamp"


class SetupFailed(Exception):
    """The environment could not be made; the message names the remedy."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make .venv as requirements/environment.lock describes it.")
    parser.add_argument("--only-uv", action="store_true", help="install uv alone, in build/uv (for `make lock`)")
    options = parser.parse_args(arguments)
    try:
        check_python()
        if options.only_uv:
            install_uv(ROOT)
        else:
            set_up(ROOT)
    except SetupFailed as failure:
        print(f"bootstrap: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bootstrap: interrupted; the next call starts again", file=sys.stderr)
        return 130
    return 0


def set_up(root: Path) -> None:
    """Return with `root/.venv` holding every pin of the lock, the project (editable), and nothing else.

    Return at once if the stamp matches. The stamp is removed before the first change and written after the last, so an
    interrupted set-up never counts as finished. Of two calls at once, one waits for the other.
    """
    with (root / "requirements" / "environment.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = fingerprint(root)
        if not is_ready(root / ".venv", wanted):
            make(root, wanted)


def make(root: Path, wanted: str) -> None:
    venv = root / ".venv"
    stamp = venv / STAMP
    if venv.is_symlink():
        raise SetupFailed(f"{venv} is a link, and all that {os.path.realpath(venv)} holds would be deleted: rm {venv}")
    began = time.monotonic()
    uv = install_uv(root)
    settings = pip_settings()
    environment = uv_environment(settings, os.environ)
    options = ["--quiet", "--python", str(venv), *uv_options(settings)]
    say("installing requirements/environment.lock in .venv, by hash, with uv")
    stamp.unlink(missing_ok=True)
    run([str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)], environment)
    lock = str(root / "requirements" / "environment.lock")
    run([str(uv), "pip", "sync", *options, "--require-hashes", lock], environment)
    # The lock pins the build backend, so nothing without a hash is fetched for the build.
    run(
        [str(uv), "pip", "install", *options, "--no-deps", "--no-build-isolation", "--editable", str(root)], environment
    )

    unfinished = stamp.with_suffix(".part")
    unfinished.write_text(wanted, encoding="utf-8")
    unfinished.replace(stamp)
    say(f"ready in {time.monotonic() - began:.0f} s")


def check_python() -> None:
    """Raise SetupFailed unless this Python is new enough and has pip."""
    if sys.version_info < OLDEST:
        raise SetupFailed(
            "Python {}.{} or newer is needed and this is {}; name one that is: make PYTHON=python3.12 ...".format(
                *OLDEST, sys.version.split()[0]
            )
        )
    if importlib.util.find_spec("pip") is None:
        raise SetupFailed(f"{sys.executable} lacks pip; on Debian and Ubuntu: apt install python3-pip")


def fingerprint(root: Path) -> str:
    """A hash of the inputs of a finished environment: Python, place, lock, and how the project is built."""
    import tomllib  # Not before check_python: an old interpreter lacks it.

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    # The tools' settings are left out: changing one must not make the environment again.
    built = [project["build-system"], project["project"], project["tool"].get("hatch")]
    lock = (root / "requirements" / "environment.lock").read_text(encoding="utf-8")
    # A venv's commands begin with the path of their Python, so a moved one would run the old one.
    return hashlib.sha256(json.dumps([sys.version_info[:2], str(root), lock, built]).encode()).hexdigest()


def is_ready(venv: Path, wanted: str) -> bool:
    stamp = venv / STAMP
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted and (venv / "bin" / "python").exists()


# ---------------------------------------------------------------------------------------------------------- installing


def install_uv(root: Path) -> Path:
    """Return the path of uv, installed by its hash. It has a folder of its own, because uv itself makes .venv."""
    say("installing uv in build/uv, by hash, with pip")
    folder, lock = root / "build" / "uv", root / "requirements" / "bootstrap.lock"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(folder)]
    # These settings and this warning of pip's are not about a folder of our own.
    ours = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_ROOT_USER_ACTION": "ignore"}
    run([*command, "--require-hashes", "--requirement", str(lock)], {**os.environ, **ours})
    return folder / "bin" / "uv"


def run(command: list[str], environment: Mapping[str, str]) -> None:
    """Run a command, its errors shown; raise SetupFailed if it fails."""
    if subprocess.run(command, check=False, env=environment).returncode != 0:
        raise SetupFailed(
            f"`{' '.join(command)}` failed; see its message above. Without a network, or behind a proxy or a mirror, "
            "set pip's own settings (pip config, or PIP_INDEX_URL, PIP_PROXY, PIP_CERT) and call again"
        )


def pip_settings() -> dict[str, str]:
    """pip's settings, from its files and its environment, by option name."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
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


def uv_options(settings: Mapping[str, str]) -> list[str]:
    """The options of uv for those of pip's settings that it takes from no variable."""
    return ["--no-index"] if settings.get("no-index", "").lower() in ("1", "true", "yes", "on") else []


def uv_environment(settings: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with pip's settings as uv's variables; variables of uv's that are set stay as they are.

    It lives for one call and is never written down: an address may hold a password.
    """
    own = {
        "UV_DEFAULT_INDEX": settings.get("index-url", ""),
        "UV_EXTRA_INDEX_URL": " ".join(settings.get("extra-index-url", "").split()),
        # pip takes the best file of all indexes, uv by itself only those of the first index that knows the name.
        # The index that a file comes from does not matter here: every file must have one of the lock's hashes.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": ",".join(settings.get("find-links", "").split()),
        "UV_INSECURE_HOST": " ".join(settings.get("trusted-host", "").split()),
        "UV_HTTP_TIMEOUT": settings.get("timeout", settings.get("default-timeout", "")),
        "UV_KEYRING_PROVIDER": "subprocess" if settings.get("keyring-provider") == "subprocess" else "",
    }
    # These are every program's; a setting of pip's is more particular.
    shared = {
        "SSL_CERT_FILE": settings.get("cert", ""),
        "SSL_CLIENT_CERT": settings.get("client-cert", ""),
        "HTTP_PROXY": settings.get("proxy", ""),
        "HTTPS_PROXY": settings.get("proxy", ""),
    }
    given = {name: value for name, value in own.items() if value and name not in environment}
    return {**environment, **given, **{name: value for name, value in shared.items() if value}}


def say(line: str) -> None:
    print(f"bootstrap: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
