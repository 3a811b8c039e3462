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


def test_a_session_that_begins_anew_whenever_it_is_opened_loses_no_writes(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(BEGINS_ANEW)
    file = tmp_path / "service.toml"
    file.write_text(
        PLANTED.read_text()
        .replace('"-m", "lab_utils.service.planted", "DEFECT"', '"{folder}/server.py"')
        .replace("[identity]", f'[environment]\nPYTHONPATH = "{PLANTED.parents[3]}"\n\n[identity]', 1)
    )
    result = run_check("service_concurrent_updates", target=f"service:{file}")
    assert result.outcome is Outcome.PASS, result.verdict
    assert "opens at once are not judged" in "".join(result.notes)
