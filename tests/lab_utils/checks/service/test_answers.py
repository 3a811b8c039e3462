"""What is no finding of a service, though it looks like one."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("httpx2")

import lab_utils.service
from lab_utils.runner import run_check
from lab_utils.values.verdict import Outcome

PLANTED = Path(lab_utils.service.__file__).parent / "planted" / "service.toml"
BEGINS_ANEW = """
import asyncio, sys, uvicorn
from lab_utils.service.planted.notes import Notes, Request, Session

class BeginsAnew(Notes):
    async def open(self, request: Request) -> Session:
        id = str(request.body.get("id") or self.new_id())
        key = self.key(request.user, id)
        # Of several opens at once the first is done at once, and each other when that has been written to.
        for _ in range(500):
            if key not in self.sessions or self.sessions[key].notes:
                break
            await asyncio.sleep(0.01)
        session = self.sessions[key] = self.made(request.user, id)
        return session

uvicorn.run(BeginsAnew(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", lifespan="off", ws="none")
"""
ANSWERS_BACKWARDS = """
import sys, uvicorn
from lab_utils.service.planted.notes import Notes, Session

class AnswersBackwards(Notes):
    async def think(self, session: Session, text: str) -> list[str]:
        return [text[::-1]]

uvicorn.run(AnswersBackwards(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", lifespan="off", ws="none")
"""

KEEPS_ANSWERS_OF_EACH_USER = """
import sys, uvicorn
from lab_utils.service.planted.defects import AnswersKeptByKey
from lab_utils.service.planted.notes import Receive, Request, Send

class AnswersKeptByUserAndKey(AnswersKeptByKey):
    async def answer(self, request: Request, receive: Receive, send: Send) -> None:
        if key := request.headers.get("idempotency-key"):
            request.headers["idempotency-key"] = f"{request.user} {key}"
        await super().answer(request, receive, send)

uvicorn.run(
    AnswersKeptByUserAndKey(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", lifespan="off", ws="none"
)
"""

TWO_WORKERS = """
import sys, uvicorn
from lab_utils.service.planted.notes import Notes, Receive, Refused, Request, Send, Session

class TwoWorkers(Notes):
    def __init__(self) -> None:
        super().__init__()
        self.workers: dict[int, int] = {}
        self.shown_by: tuple[dict[str, list[str]], ...] = ({}, {})

    def read_by(self, request: Request) -> dict[str, list[str]]:
        # Connections come to one worker and the other in turn.
        return self.shown_by[self.workers.setdefault(request.port, len(self.workers) % 2)]

    async def answer(self, request: Request, receive: Receive, send: Send) -> None:
        if request.method == "POST" and request.parts[2:] == ["notes"]:
            self.read_by(request).pop(self.key(request.user, request.parts[1]), None)
        await super().answer(request, receive, send)

    async def write(self, session: Session, text: str) -> None:
        if not text:
            raise Refused(400, "no JSON")
        session.notes[:] = [text]

    def shown(self, request: Request, session: Session) -> dict[str, object]:
        own = {} if FORGETS else self.read_by(request)
        return {"notes": own.setdefault(self.key(session.user, session.id), list(session.notes))}

FORGETS = True
uvicorn.run(TwoWorkers(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", lifespan="off", ws="none")
"""
COUNTS_TWICE = """
import sys, uvicorn
from lab_utils.service.planted.notes import Notes, Session

class CountsTwice(Notes):
    async def add(self, session: Session, amount: int) -> int:
        return await super().add(session, 2 * amount)

uvicorn.run(CountsTwice(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", lifespan="off", ws="none")
"""


def service_of(server: str, folder: Path) -> str:
    """The service file of a server that is the planted ones' neighbour, as a target."""
    (folder / "server.py").write_text(server)
    file = folder / "service.toml"
    file.write_text(
        PLANTED.read_text()
        .replace('"-m", "lab_utils.service.planted", "DEFECT"', '"{folder}/server.py"')
        .replace("[identity]", f'[environment]\nPYTHONPATH = "{PLANTED.parents[3]}"\n\n[identity]', 1)
    )
    return f"service:{file}"


def test_an_answer_that_is_made_of_the_user_s_own_text_depends_on_no_other(tmp_path: Path) -> None:
    """Not in the words that were sent, but backwards, as a digest or in capitals."""
    result = run_check("service_non_interference", target=service_of(ANSWERS_BACKWARDS, tmp_path))
    assert result.outcome is Outcome.PASS, result.verdict
    assert not any("run" in note for note in result.notes)


def test_a_server_that_keeps_the_answers_of_each_user_by_their_keys_is_right(tmp_path: Path) -> None:
    result = run_check("service_answers_isolation", target=service_of(KEEPS_ANSWERS_OF_EACH_USER, tmp_path))
    assert result.outcome is Outcome.PASS, result.verdict


@pytest.mark.parametrize("forgets", [True, False])
def test_a_worker_that_shows_a_replaced_value_is_found(forgets: bool, tmp_path: Path) -> None:
    target = service_of(TWO_WORKERS.replace("FORGETS = True", f"FORGETS = {forgets}"), tmp_path)
    file = Path(target.removeprefix("service:"))
    text = file.read_text().replace("resumes = true", 'resumes = true\nwrites = "replace"')
    file.write_text(f"workers = 2\n{text}")
    result = run_check("service_answers_isolation", target=target)
    found = {finding.anomaly for finding in result.verdict.findings}
    assert found == (set() if forgets else {"lost-write"}), result.verdict


def test_updates_that_count_twice_are_no_other_user_s(tmp_path: Path) -> None:
    result = run_check("service_concurrent_updates", target=service_of(COUNTS_TWICE, tmp_path))
    assert {finding.anomaly for finding in result.verdict.findings} == {"phantom-update"}, result.verdict


def test_a_session_that_begins_anew_whenever_it_is_opened_loses_no_writes(tmp_path: Path) -> None:
    result = run_check("service_concurrent_updates", target=service_of(BEGINS_ANEW, tmp_path))
    assert result.outcome is Outcome.PASS, result.verdict
    assert "opens at once are not judged" in "".join(result.notes)
