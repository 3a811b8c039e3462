"""A service's answers, and the messages of its streams."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

__all__ = ["Answer", "StreamEvent"]

_SHOWN: Final = 240


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `status` is 0 where none came, and `error` gives the reason; `is_done`: the service confirms that it
    carried out the request. `value` is the part that the file's `answer` extracts, else the whole text."""

    status: int
    text: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    is_done: bool = False
    value: Any = None
    extracted: Mapping[str, str] = field(default_factory=dict)
    error: str = ""

    def holds(self, token: str) -> bool:
        """Whether the token is in it, in the text or in a header, however it is escaped."""
        return any(token in one for one in self.everything())

    def everything(self) -> list[str]:
        """The text and the headers, and the text without the escapes of JSON, HTML and URLs."""
        found = [self.text, html.unescape(self.text), unquote(self.text), *(f"{k}: {v}" for k, v in self.headers)]
        with suppress(ValueError):
            found.append(json.dumps(json.loads(self.text), ensure_ascii=False))
        return list(dict.fromkeys(filter(None, found)))

    def __str__(self) -> str:
        text = self.text if len(self.text) <= _SHOWN else f"{self.text[:_SHOWN]}... ({len(self.text):,} characters)"
        return f"{self.status or self.error} {text}".strip()


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of a stream, parsed from its text; `id` and `type` are "" where it has none."""

    data: str
    id: str = ""
    type: str = ""
