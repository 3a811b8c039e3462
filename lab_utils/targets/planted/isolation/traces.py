"""Defects that show in logs, reprs and tracebacks: one user's data stands in a text about another one's trouble."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

from lab_utils.target import Handle, Recipe, Refusal, Refused
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import Agent, Context, Dispatcher, ReferenceTarget, Session

__all__ = ["PLANTED"]

_LOG = logging.getLogger(__name__)
# Nobody who runs these wants their words on a terminal.
_LOG.addHandler(logging.NullHandler())


class LoggerOfTheFirst(ReferenceTarget):
    """The log's adapter is made for the first user, and kept for all later ones."""

    _log: logging.LoggerAdapter[logging.Logger] | None = None

    async def run(self, handle: Handle, command: Any) -> Any:
        if self._log is None:
            self._log = logging.LoggerAdapter(_LOG, {"tenant": handle.user})
        self._log.info("run %s", command.action)
        return await super().run(handle, command)


class ErrorsLoggedInBatches(ReferenceTarget):
    """Errors are written to the log by the dozen, within the request of the user who causes the twelfth."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    async def run(self, handle: Handle, command: Any) -> Any:
        try:
            return await super().run(handle, command)
        except Exception as error:
            self.errors.append(str(error))
            if len(self.errors) == 12:
                _LOG.warning("%d runs have failed", len(self.errors), extra={"errors": tuple(self.errors)})
                self.errors.clear()
            raise


class ErrorsLoggedByAPool(ReferenceTarget):
    """A pool of threads writes each error to the log when the next one comes, in the name of that one's user."""

    def __init__(self) -> None:
        super().__init__()
        self.last = "none"

    async def run(self, handle: Handle, command: Any) -> Any:
        try:
            return await super().run(handle, command)
        except RuntimeError as error:
            last, self.last = self.last, str(error)
            await asyncio.get_running_loop().run_in_executor(None, _LOG.warning, "the run before failed: %s", last)
            raise


class ErrorsLoggedByAThread(ReferenceTarget):
    """A thread of its own writes the errors of all users to the log, three to a record."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    async def run(self, handle: Handle, command: Any) -> Any:
        try:
            return await super().run(handle, command)
        except RuntimeError as error:
            self.errors.append(str(error))
            if len(self.errors) == 3:
                writer = threading.Thread(target=_LOG.warning, args=("runs have failed: %s", list(self.errors)))
                writer.start()
                writer.join()
                self.errors.clear()
            raise


class BreakerKeepsTheCause(ReferenceTarget):
    """A factory that has failed is not asked again for a while: the next caller gets the first failure as the cause."""

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[str, Exception] = {}

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        if recipe.agent_type in self.open:
            # Without its traceback, which would keep the first caller's objects.
            raise RuntimeError(f"{recipe.agent_type} is not available") from self.open[recipe.agent_type]
        try:
            return await super().build(session, recipe, context, connect)
        except Exception as error:
            self.open[recipe.agent_type] = type(error)(*error.args)
            raise


class OneRefusalForAll(ReferenceTarget):
    """The refusal of an unknown agent type is one object, made once, and each request adds its user to it."""

    def __init__(self) -> None:
        super().__init__()
        self.refusal = Refused(Refusal.UNKNOWN_TYPE, "no such agent type")

    def check_allowed(
        self, user: str, agent_type: str, permissions: frozenset[str], context_user: str | None
    ) -> Recipe:
        if agent_type not in self.recipes:
            self.refusal.add_note(f"asked by {user}")
            raise self.refusal.with_traceback(None)
        return super().check_allowed(user, agent_type, permissions, context_user)


class NeighboursInRepr(ReferenceTarget):
    """The repr of an agent, made for debugging, names the other users of the registry."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        sessions = self.sessions

        class Telling(Agent):
            def __repr__(self) -> str:
                return f"<Agent {self.recipe.agent_type}, one of {sorted(sessions)}>"

        return Telling(recipe, context, dispatcher, session)


PLANTED = (
    planted_by(LoggerOfTheFirst, "canary-in-log"),
    planted_by(ErrorsLoggedInBatches, "canary-in-log"),
    planted_by(ErrorsLoggedByAPool, "canary-in-log"),
    planted_by(ErrorsLoggedByAThread, "canary-in-log"),
    planted_by(BreakerKeepsTheCause, "canary-in-error"),
    planted_by(OneRefusalForAll, "canary-in-error"),
    planted_by(NeighboursInRepr, "canary-in-repr"),
)
