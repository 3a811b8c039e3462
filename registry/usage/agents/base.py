"""Shared code of the default agents: calling tools, reading earlier steps, and wording figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, TypedDict, cast

from registry.agent import AgentRequest, BaseAgent
from registry.errors import InvalidParameters, a_type
from registry.llm.base import Prompt
from registry.tools import ToolResult

__all__ = [
    "ALL_TIME",
    "StepOutput",
    "UsageAgent",
    "Window",
    "count",
    "earlier",
    "limits_of",
    "ms",
    "percent",
    "usd",
    "window_of",
]

ALL_TIME: Final = "all records"
_INSTRUCTION: Final = "You word figures for a report on AI usage. State every figure as it is given, and add no other."
_NUMBER: Final = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


StepOutput = Mapping[str, Any]
"""The output of an earlier step. It came as a parameter: only its keys were checked."""


class Window(TypedDict):
    """A window of time: `since` included and `until` excluded, ISO 8601 text or None for no limit; and its name."""

    since: str | None
    until: str | None
    label: str


class UsageAgent(BaseAgent):
    """An agent that works on its user's usage records through its tools, and puts its results into words.

    Figures in outputs are exact and unrounded; only words and Markdown are rounded, by `usd`, `ms`, `percent`, `count`.
    """

    __slots__ = ()

    async def use(self, tool: str, parameters: Mapping[str, object] | None = None) -> Any:
        """Call a tool and return its output."""
        result: object = await self.tool_dispatcher.execute_tool(tool, parameters or {})
        return result.output if isinstance(result, ToolResult) else result

    async def word(self, heading: str, figures: Mapping[str, str]) -> str:
        """Return the figures in the words of the model.

        A number in the answer that is none of the given ones is made up: the plain list then takes the answer's place,
        as for an empty answer and for an agent without a model.
        """
        plain = f"{heading}: {'; '.join(f'{name} {value}' for name, value in figures.items())}."
        if self.scope.llm is None:
            return plain
        asked = "\n".join([f"{heading}:", *(f"- {name}: {value}" for name, value in figures.items())])
        text = (await self.llm.complete(Prompt.of(asked, system=_INSTRUCTION))).text.strip()
        return text if text and _numbers(text) <= _numbers(asked) else plain


def earlier(request: AgentRequest, step: str, *needed: str) -> StepOutput | None:
    """Return the result of an earlier step, found in the request's parameters under its name, or None without one.

    Raises `InvalidParameters` if it is not a mapping or lacks one of the `needed` keys.
    """
    output = request.parameters.get(step)
    if output is None:
        return None
    if not isinstance(output, Mapping):
        raise InvalidParameters(f"the result of step {step!r} is {a_type(output)}; pass the step's output")
    for key in needed:
        if key not in output:
            raise InvalidParameters(f"the result of step {step!r} has no {key!r}; pass the step's whole output")
    return output


def window_of(request: AgentRequest, *steps: str) -> Window:
    """Return the window of the first of the steps that has a result, else of the
    request's own parameters `since` and `until` (ISO 8601 text with an offset, or None for no limit)."""
    for step in steps:
        output = earlier(request, step, "window")
        if output is not None:
            window = output["window"]
            if not isinstance(window, Mapping) or not {"since", "until", "label"} <= set(window):
                raise InvalidParameters(f"the window of step {step!r} is {window!r}; it needs since, until and label")
            return cast(Window, dict(window))
    since, until = request.parameters.get("since"), request.parameters.get("until")
    label = ALL_TIME if since is None and until is None else f"from {since or 'the first'} to {until or 'the last'}"
    return {"since": since, "until": until, "label": label}


def limits_of(window: Window) -> dict[str, object]:
    """The window as parameters of a tool."""
    return {"since": window["since"], "until": window["until"]}


def usd(value: object) -> str:
    """US dollars with four decimals."""
    return f"{_real(value):.4f}"


def ms(value: object) -> str:
    """Milliseconds with one decimal; "none" for None."""
    return "none" if value is None else f"{_real(value):.1f}"


def percent(share: object) -> str:
    """A share from 0 to 1 in percent with one decimal: `share * 100`, formatted."""
    return f"{_real(share) * 100:.1f}"


def count(value: object) -> str:
    """A whole number, without separators."""
    if type(value) is not int:
        raise InvalidParameters(f"{value!r} is not a whole number")
    return str(value)


def _real(value: object) -> float:
    if type(value) is int or type(value) is float:
        return float(value)
    raise InvalidParameters(f"{value!r} is not a number")


def _numbers(text: str) -> set[Decimal]:
    return {Decimal(found.replace(",", "")) for found in _NUMBER.findall(text)}
