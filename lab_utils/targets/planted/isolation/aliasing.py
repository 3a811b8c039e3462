"""Defects of borders: an object handed over at one of them is still the other side's own, or shared by all."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from lab_utils.target import Recipe
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import Agent, Bridge, Context, Dispatcher, ReferenceTarget, Session, copied

__all__ = ["PLANTED"]


class SourceRowsAnswered(ReferenceTarget):
    """A tool answers with the source's own records, the way it got them."""

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        source = self.rows

        class Lending(Dispatcher):
            def answer(self, name: str, parameters: Mapping[str, Any]) -> Any:
                return source.get(self.context.user, ()) if name == "rows" else super().answer(name, parameters)

        return Lending(context, self.rows.get(context.user, ()), bridge)

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        return _LendsLists(recipe, context, dispatcher, session)


class _LendsLists(Agent):
    def copy_out(self, answer: Any) -> Any:
        # The records are many, and were not worth a copy.
        return answer if isinstance(answer, list) else super().copy_out(answer)


class ListsLent(ReferenceTarget):
    """An answer that is a list is handed out as it is: the code that copies answers asks for a dict."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        return _LendsLists(recipe, context, dispatcher, session)


class ContextLent(ReferenceTarget):
    """An agent answers a question about its request with a copy one level deep."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        class Lending(Agent):
            def copy_out(self, answer: Any) -> Any:
                lent = isinstance(answer, dict) and answer.keys() == self.context.data.keys()
                return dict(answer) if lent else super().copy_out(answer)

        return Lending(recipe, context, dispatcher, session)


class FlatValuesLent(ReferenceTarget):
    """An answer that holds no other container is not copied: there seems to be nothing in it that could be changed."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        class Lending(Agent):
            def copy_out(self, answer: Any) -> Any:
                is_flat = type(answer) is dict and all(type(one) is str for one in answer.values())
                return answer if is_flat else super().copy_out(answer)

        return Lending(recipe, context, dispatcher, session)


class CopiedToADepth(ReferenceTarget):
    """Answers are copied twenty levels deep: enough for all that anybody had seen."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        class Lending(Agent):
            def copy_out(self, answer: Any) -> Any:
                return _copied(answer, 20)

        return Lending(recipe, context, dispatcher, session)


def _copied(value: Any, levels: int) -> Any:
    if type(value) is dict and levels:
        return {key: _copied(one, levels - 1) for key, one in value.items()}
    if type(value) is list and levels:
        return [_copied(one, levels - 1) for one in value]
    return value if levels == 0 else copied(value)


class LongListsLent(ReferenceTarget):
    """A list of more than 1,000 members is not copied, for that took long."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        class Lending(Agent):
            def copy_out(self, answer: Any) -> Any:
                is_long = isinstance(answer, list) and len(answer) > 1_000
                return answer if is_long else super().copy_out(answer)

        return Lending(recipe, context, dispatcher, session)


class MetAgainLent(ReferenceTarget):
    """The code that copies answers keeps what it has met, for a value that holds itself: an object that stands in two
    places is copied in the first one only."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        class Lending(Agent):
            async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
                answer = await super().run(action, arguments, run)
                if action == "write":
                    # As it came: one object in two places is one here, too.
                    self.memory[arguments["key"]] = copy.deepcopy(arguments["value"])
                return answer

            def copy_out(self, answer: Any) -> Any:
                return _copied_once(answer, set())

        return Lending(recipe, context, dispatcher, session)


def _copied_once(value: Any, met: set[int]) -> Any:
    if type(value) not in (dict, list):
        return copied(value)
    if id(value) in met:
        return value
    met.add(id(value))
    if type(value) is dict:
        return {key: _copied_once(one, met) for key, one in value.items()}
    return [_copied_once(one, met) for one in value]


class NumbersPooled(ReferenceTarget):
    """The numbers of every context are pooled, and each agent gets its unusual values by a norm of all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.pool: list[float] = []

    def make_context(self, user: str, thread: str, data: Mapping[str, Any], permissions: frozenset[str]) -> Context:
        context = super().make_context(user, thread, data, permissions)
        numbers = context.data.get("typed", {}).values()
        self.pool += [number for number in numbers if type(number) in (int, float)]
        if self.pool:
            context.data["norm"] = max(self.pool)
        return context


PLANTED = (
    planted_by(SourceRowsAnswered, "aliased-output"),
    planted_by(ListsLent, "aliased-output"),
    planted_by(ContextLent, "aliased-output"),
    planted_by(FlatValuesLent, "aliased-output"),
    planted_by(CopiedToADepth, "aliased-output"),
    planted_by(LongListsLent, "aliased-output"),
    planted_by(MetAgainLent, "aliased-output"),
    planted_by(NumbersPooled, "cross-user-data"),
)
