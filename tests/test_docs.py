"""The documentation is true: its examples run, its commands exist, and it explains each anomaly."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab_utils.cli.commands import main
from lab_utils.cli.exits import missing
from lab_utils.judges.speech import said_by
from lab_utils.runner import run_check
from lab_utils.target import Target
from lab_utils.values.verdict import Outcome
from tests.browser import browsing, chromium

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Raised by Python itself.
PYTHONS = ("No module named venv", "ensurepip", "asyncio.run() cannot be called from a running event loop")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> dict[str, str]:
    """The code blocks of a language by their titles, or by their first lines."""
    found = re.findall(rf'```{language}(?: title="(.*?)")?\n(.*?)```', text, re.DOTALL)
    return {title or code.partition("\n")[0]: code for title, code in found}


def test_messages_that_troubleshooting_quotes_are_in_the_code() -> None:
    rows = [line.split("|")[1] for line in page("troubleshooting.md").splitlines() if line.startswith("| ")]
    quoted = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    assert len(quoted) > 6
    code = [path for folder in ("registry", "lab_utils", "tools") for path in (ROOT / folder).rglob("*.py")]
    said = "\n".join([*(path.read_text(encoding="utf-8") for path in code), missing(["no_such_module"]), *PYTHONS])
    parts = [part.strip() for text in quoted for part in text.removeprefix("ResourceWarning:").split("...")]
    assert [part for part in parts if part not in said] == []


@pytest.mark.parametrize(
    ("name", "part", "output"),
    [("run.md", "open_registry", "ada"), ("registry.md", "class Greeter", "hello ada")],
)
def test_an_example_runs(name: str, part: str, output: str) -> None:
    example = next(code for code in blocks(page(name), "python").values() if part in code)
    # In a process of its own: the example for notebooks patches asyncio.
    command = [sys.executable, "-W", "error", "-c", f"{example}\nprint(globals().get('ada'))"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert output in done.stdout


def test_the_tutorial_finds_its_leak_and_then_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = blocks(page("tutorial.md"), "python")
    mended = code["chat.py"].partition("class ChatService")[0] + code["chat.py, mended: in place of ChatService"]
    verdicts = {}
    for name, backend in (("leaky", code["chat.py"]), ("mended", mended)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "chat.py").write_text(backend, encoding="utf-8")
        (folder / "chat_lab.py").write_text(code["chat_lab.py"], encoding="utf-8")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            for module in ("chat", "chat_lab"):
                patch.delitem(sys.modules, module, raising=False)
            verdicts[name] = run_check(
                "shared_state_contamination_detection", target="chat_lab:ChatTarget", parameters={"users": 3}
            ).verdict
            for module in ("chat", "chat_lab"):
                sys.modules.pop(module, None)
    assert "cross-user-data" in {finding.anomaly for finding in verdicts["leaky"].findings}
    assert verdicts["mended"].outcome is Outcome.PASS, verdicts["mended"]


def commands() -> set[tuple[str, str]]:
    """Each command of `registry-lab` that a page shows, with each of its options; "" stands for the command alone."""
    lines = [line for path in PAGES for line in re.findall(r"registry-lab ([a-z-]+[^`#\n]*)", path.read_text("utf-8"))]
    words = [re.sub(r"[\[\]]", " ", line).split() for line in lines]
    return {(first, option) for first, *rest in words for option in ["", *(word for word in rest if word[:2] == "--")]}


def test_every_command_and_option_exists(capsys: pytest.CaptureFixture[str]) -> None:
    shown = commands()
    assert {("run", "--target"), ("check", "--calibrate"), ("serve", "--port"), ("list", "")} <= shown
    helps: dict[str, str] = {}
    for command in sorted({command for command, _ in shown}):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0, f"registry-lab {command}"
        helps[command] = capsys.readouterr().out
    assert [(command, option) for command, option in sorted(shown) if option not in helps[command]] == []


def test_every_make_target_exists() -> None:
    there = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    shown = {
        name for path in PAGES for name in re.findall(r"`make ([a-z]+)|^\$ make ([a-z]+)", path.read_text("utf-8"))
    }
    assert {name for pair in shown for name in pair if name} - there == set()


def test_links_from_outside_of_the_site_lead_somewhere() -> None:
    # Links between the pages of docs/ are checked where the site is built.
    for path in (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")):
        links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8"))
        assert [link for link in links if not (ROOT / link).exists()] == [], path.name


def built(root: Path) -> subprocess.CompletedProcess[str]:
    """The site as `make docs` builds it, of a copy of docs/ in `root`; to `root/build/docs`."""
    shutil.copy(ROOT / "zensical.toml", root)
    for package in ("registry", "lab_utils"):
        (root / package).symlink_to(ROOT / package, target_is_directory=True)
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


# Search results are in a shadow tree, which no observer of the document sees: this asks at every frame.
SEARCHED = """new Promise((resolve, reject) => {
    document.querySelector('.md-search__button').click();
    const look = () => {
        const root = [...document.body.children].map(child => child.shadowRoot).find(found => found);
        const field = root?.querySelector('input');
        if (field && field.value !== 'expected_failures') {
            field.value = 'expected_failures';
            field.dispatchEvent(new Event('input', {bubbles: true}));
        }
        const found = [...(root?.querySelectorAll('a') ?? [])].map(link => link.getAttribute('href'));
        found.length ? resolve(found.join(' ')) : requestAnimationFrame(look);
    };
    setTimeout(() => reject(document.body.innerText), 30_000);
    look();
})"""


@pytest.mark.slow
def test_the_site_builds_and_is_searched_without_a_network(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    done = built(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "build" / "docs"
    assert re.findall(r'(?:src|rel="stylesheet" href)="https?:[^"]*', (site / "index.html").read_text("utf-8")) == []
    if chromium() is None:
        pytest.skip("no Chromium on this machine: the search was not tried")
    with browsing(tmp_path / "profile") as tab:
        tab.open((site / "index.html").as_uri())
        assert "own-registry.html" in tab.evaluate(SEARCHED)


def test_a_dead_link_and_a_dead_anchor_stop_the_build(tmp_path: Path) -> None:
    # Of the pages only as many as it needs, and none of those made of docstrings.
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("api", "sample", "*.md"))
    (tmp_path / "docs" / "index.md").write_text("# Start\n\n[one](nowhere.md) and [another](run.md#nowhere)\n")
    (tmp_path / "docs" / "run.md").write_text("# Run the lab\n")
    done = built(tmp_path)
    assert done.returncode != 0
    assert "page does not exist" in done.stderr
    assert "anchor does not exist" in done.stderr


def signature(name: str) -> str:
    """A method of a target as the contract writes it: without self and types."""
    method = getattr(Target, name)
    parameters = [one.replace(annotation=one.empty) for one in inspect.signature(method).parameters.values()][1:]
    begin = "async def" if inspect.iscoroutinefunction(method) else "def"
    return f"{begin} {name}{inspect.Signature(parameters)}".replace("'", '"')


def test_the_contract_shows_each_method_as_it_is() -> None:
    methods = [name for name, value in vars(Target).items() if inspect.isfunction(value) and not name.startswith("_")]
    shown = page("target.md").partition("## Methods")[2].partition("```text\n")[2].partition("\n```")[0]
    assert shown.splitlines() == [signature(name) for name in methods]


def test_the_contract_shows_each_event_of_a_run() -> None:
    table = page("target.md").partition("### Events")[2].partition("## Methods")[0]
    runs = (("think", {"thoughts": ["well"]}), ("tool", {"name": "rows"}), ("fail", {"message": "no"}))
    for said in (said for action, arguments in runs for said in said_by("helper", action, arguments)):
        (row,) = (line for line in table.splitlines() if line.startswith(f"| `{said.type}` |"))
        assert set(re.findall(r'"(\w+)":', row)) == json.loads(said.body).keys(), said
