"""The commands about services: refusals before anything runs, written files, and printed text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lab_utils.service
from lab_utils.cli import check_service, main
from lab_utils.cli.check_service import _alike
from lab_utils.cli.plan import of_target
from lab_utils.service.credentials import Credentials
from lab_utils.service.file import WORDS, read_service
from lab_utils.targets import RIGHT
from lab_utils.values.profiles import CATEGORIES

PLANTED = Path(lab_utils.service.__file__).parent / "planted" / "service.toml"
ROOT = Path(lab_utils.service.__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The service file of the right server."""
    place = tmp_path / "service.toml"
    text = PLANTED.read_text().replace('"DEFECT"', '"right"')
    place.write_text(text.replace("[identity]", f'[environment]\nPYTHONPATH = "{ROOT}"\n\n[identity]', 1))
    return place


def test_each_request_is_tried_once_and_shown(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-service", str(file)]) == 0
    out = capsys.readouterr().out
    for words in (
        "identity: acme",
        "a second login",
        "claims that differ: sub",
        "open: POST",
        "session = lab-check-1",
        "authorization: ***",
        "event 2 note",
        "each request was done",
    ):
        assert words in out


def test_logins_that_are_shown_alike_are_shown_once() -> None:
    login: dict[str, Any] = {"word": "login", "request": "POST /login", "body": "***", "answer": "200 ***"}
    other = {**login, "answer": "401 no"}
    opened: dict[str, Any] = {"word": "open", "request": "POST /rooms", "headers": {"a": "1"}, "answer": "201"}
    rows = [{**login, "n": 1}, {**login, "n": 2}, other, opened]
    assert [(row["answer"], more) for row, more in _alike(rows)] == [("200 ***", 1), ("401 no", 0), ("201", 0)]


START = '"-m", "lab_utils.service.planted"'
ENDS = (
    "import socket, sys; server = socket.create_server(('127.0.0.1', int(sys.argv[1]))); "
    "server.accept(); server.accept(); sys.exit('no disk')"
)


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ("GET /sessions/{session}/notes", "GET /none", 1, ["NOT DONE: status 404", "not done: read; mend"]),
        ('answer = "notes"', 'answer = "nots"', 1, ["NOT DONE: answer = 'nots' finds nothing", "not done: read; mend"]),
        (
            'answer = "sessions"',
            'answer = "sesions"',
            1,
            ["NOT DONE: answer = 'sesions' finds nothing", "not done: list"],
        ),
        ("stream = {", 'stream = { events = "lines",', 1, ["NOT DONE", 'set events = "sse"', "not done: stream; mend"]),
        (
            "signing_key =",
            'token = "the-same-for-all"\n#',
            1,
            [
                "ACME has the same token; does it name {user}?",
                "NOT DONE: status 401: the server did not accept who asks; see [identity]",
                "not done: identity",
            ],
        ),
        (f'{START}, "right"', f'"-c", "{ENDS}"', 1, ["NOT DONE", "no disk"]),
        (START, '"-c", "print(1); print(2); exit(5)"', 3, ["exit code 5", "    1\n    2\n"]),
    ],
    ids=[
        "a request is not done",
        "an answer without the part",
        "a page without the part",
        "events as lines",
        "one token for two",
        "the server ends",
        "it does not start",
    ],
)
def test_what_is_not_done_is_named(
    old: str, new: str, code: int, said: list[str], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = file.read_text().replace("ready_within_s = 60", "").replace(old, new)
    file.write_text(text.replace("resumes = true", "resumes = false") if "lines" in new else text)
    assert main(["check-service", str(file)]) == code
    out = capsys.readouterr().out
    assert all(words in out for words in said), out
    assert code == 1 or out.endswith(said[-1])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "command =",
            'address = "http://127.0.0.1:1"\nready_within_s = 0.5\n#',
            "start the server, or give the command",
        ),
        ("signing_key =", 'token_command = ["false"]\n#', "gave no token; it ended with 1; try it by hand: false"),
        ("signing_key =", 'token_command = ["no-such-program"]\n#', "no-such-program: No such file"),
        ("signing_key =", 'token_command = ["sh", "-c", "echo CAUSE >&2; seq 900 >&2; exit 1"]\n#', "1: CAUSE"),
        ("signing_key =", 'token_command = ["true"]\n#', "printed nothing"),
    ],
)
def test_trouble_before_the_first_request_is_one_sentence_with_the_remedy(
    old: str, new: str, said: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(file.read_text().replace("ready_within_s = 60", "").replace(old, new))
    assert main(["check-service", str(file)]) == 3
    assert said in capsys.readouterr().out.splitlines()[-1]


def test_the_checks_that_run_on_a_service_are_listed_with_what_the_others_lack(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line for line in file.read_text().splitlines() if not line.startswith(("stream", "list", "run"))]
    file.write_text("\n".join(lines))
    assert main(["list", "checks", "--service", str(file)]) == 0
    out = capsys.readouterr().out
    assert "NOT APPLICABLE: the service file maps no operation stream" in out
    assert "left out, for the file does not map it: run, list, stream" in out
    assert "8 of 9 checks run on notes" in out
    assert main(["list", "targets", "--service", str(file)]) == 2
    assert main(["list", "--service", "none.toml"]) == 2


@pytest.mark.parametrize(
    ("check", "defect"),
    [
        ("service_answers_isolation", "RunsCachedByLength"),
        ("service_access_denial", "SignatureUnchecked"),
        ("service_access_denial", "right"),
        ("service_non_interference", "RunsLeftOfAll"),
    ],
)
def test_a_service_that_keeps_nothing_is_judged_by_its_runs(
    check: str, defect: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = file.read_text().replace('"right"', f'"{defect}"').splitlines()
    file.write_text(
        "\n".join(line for line in kept if line.split(" ")[0] not in WORDS or line.startswith(("open", "run")))
    )
    assert main(["check", check, "--service", str(file)]) == (0 if defect == "right" else 1)
    assert ("PASS" if defect == "right" else "FAIL") in capsys.readouterr().out


def test_tokens_that_cannot_expire_are_named_as_a_part_that_is_left_out(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = "left out: expired tokens (the lab can make none with identity.accounts, but with a signing_key, or with "
    part += "{expires_in} in a token_command)"
    lines = file.read_text().splitlines()
    kept = "\n".join(line for line in lines if line.split(" ")[0] not in WORDS or line.startswith(("open", "run")))
    file.write_text(kept)
    assert main(["check", "service_access_denial", "--service", str(file)]) == 0
    assert main(["list", "checks", "--service", str(file)]) == 0
    assert "expired tokens" not in capsys.readouterr().out
    signing = next(line for line in lines if line.startswith("signing_key"))
    tokens = Credentials(read_service(file).identity, "")
    accounts = ", ".join(f'{user} = "{tokens.token(user)}"' for user in ("ada", "bob"))
    file.write_text(kept.replace(signing, f"accounts = {{ {accounts} }}"))
    for command in (["check", "service_access_denial"], ["list", "checks"]):
        assert main([*command, "--service", str(file)]) == 0
        assert part in " ".join(capsys.readouterr().out.split())


def test_a_new_file_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "new.toml"
    assert main(["new-service", str(place)]) == 0
    assert f"registry-lab check-service {place}" in place.read_text()
    assert main(["new-service", str(place)]) == 2
    assert "there is one already" in capsys.readouterr().err
    assert main(["new-service", str(tmp_path / "none" / "new.toml")]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--service", "none.toml"], "new-service"),
        (["--service", "none.toml", "--target", "reference"], "leave one of them out"),
        (["--allow-host", "example.com"], "add --service"),
        (["--target", "service:none.toml"], "none.toml"),
    ],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_wrong_words_are_refused_before_anything_runs(
    command: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["service_access_denial"] if command == "check" else []
    assert main([command, *named, *words]) == 2
    assert said in capsys.readouterr().err


def test_a_service_is_judged_by_the_checks_of_services_and_a_registry_by_the_others() -> None:
    assert of_target("service:a.toml") == of_target(RIGHT) == ("service",)
    assert set(of_target("reference")) == set(CATEGORIES) - {"service"}


STREAMS = """
import json, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

texts, changed = [], threading.Condition()

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        with changed:
            texts.append(json.loads(self.rfile.read(int(self.headers["content-length"])))["text"])
            changed.notify_all()
        self.send_response(204)
        self.end_headers()

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        for number in range(99):
            with changed:
                changed.wait_for(lambda: len(texts) > number)
            self.wfile.write(f"IDdata: {texts[number]}\\n\\n".replace("ID", sys.argv[2]).encode())
            self.wfile.flush()

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
STREAMS_FILE = """
name = "streams"
command = ["{python}", "{folder}/server.py", "{port}", "ID"]
[promises]
identity = "none"
session_ids = "client"
resumes = true
[operations]
write = { request = "POST /notes", body = { text = "{value}" } }
stream = { request = "GET /events", query = { after = "{last_id}" } }
"""


@pytest.mark.parametrize(("ids", "code"), [("", 1), ("id: 7\\n", 0)], ids=["without ids", "with ids"])
def test_a_stream_without_ids_cannot_promise_to_resume(
    ids: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "server.py").write_text(STREAMS)
    file = tmp_path / "streams.toml"
    file.write_text(STREAMS_FILE.replace("ID", ids))
    assert main(["check-service", str(file)]) == code
    assert ("its events have no id" in capsys.readouterr().out) == bool(code)


def test_a_stream_that_ends_without_its_event_is_said_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "server.py").write_text(STREAMS.replace("range(99)", "range(0)"))
    file = tmp_path / "streams.toml"
    file.write_text(STREAMS_FILE.replace("ID", ""))
    assert main(["check-service", str(file)]) == 1
    assert "before the stream ended; it brought 0" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["check", "service_acces"], ["run", "--check", "service_acces"]])
def test_a_check_that_is_not_known_is_sought_among_those_of_services(
    command: list[str], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--service", str(file)]) == 2
    said = capsys.readouterr().err
    assert "did you mean 'service_access_denial'" in said
    assert "service_memory" in said
    assert "user_isolation" not in said
    assert "identity" not in said


def test_a_stream_s_events_stand_below_its_request(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-service", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    request = next(number for number, line in enumerate(lines) if line.startswith("stream: GET"))
    assert request < next(number for number, line in enumerate(lines) if line.startswith("  event "))


def test_a_server_that_drops_its_connection_may_take_longer_than_a_moment_to_end(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As long as a machine that others load takes: no moment is long enough there.
    monkeypatch.setattr(check_service, "_MOMENT_S", 0.0)
    file.write_text(file.read_text().replace("ready_within_s = 60", "").replace(f'{START}, "right"', f'"-c", "{ENDS}"'))
    assert main(["check-service", str(file)]) == 1
    out = capsys.readouterr().out
    assert "the server has ended; the last lines that it wrote" in out
    assert "no disk" in out


def test_a_check_judges_a_service_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "service_session_end", "--service", str(file)]) == 0
    out = capsys.readouterr().out
    assert "PASS service_session_end" in out
    assert f"--service {file}" in out
    assert "requests and answers are not kept" in out
    assert "registry-lab run --check service_session_end" in out


def test_a_service_that_does_not_start_is_unknown_and_no_finding(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(file.read_text().replace('"-m", "lab_utils.service.planted"', '"-c", "raise SystemExit(5)"'))
    assert main(["check", "service_session_end", "--service", str(file)]) == 1
    out = capsys.readouterr().out
    assert "UNKNOWN service_session_end" in out
    assert "exit code 5" in out


def test_a_registry_check_does_not_apply_to_a_service(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "shared_state_contamination_detection", "--service", str(file)]) == 0
    assert "NOT APPLICABLE" in capsys.readouterr().out
