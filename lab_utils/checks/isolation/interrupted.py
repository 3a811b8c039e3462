"""The check that interrupts one user at every suspension point, in every way, and then asks others."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lab_utils.checks.isolation.exploration import explore_interruptions
from lab_utils.checks.isolation.left_model import judge_left_model
from lab_utils.checks.isolation.left_socket import judge_left_socket
from lab_utils.checks.isolation.logged import recorded_logs
from lab_utils.checks.isolation.sampled import judge_sampled
from lab_utils.target import Capability
from lab_utils.trial import Body, Check, Part, Trial

__all__ = ["CHECKS", "SHOWN_BY"]

SHOWN_BY: Mapping[str, str] = MappingProxyType(
    {
        "AmbientUserBelieved": "write",
        "ReplyLeftOnTheWire": "tool",
        "PooledConnectionLeftDirty": "tool",
        "BatchMatchedByPlace": "tool",
        "ScratchBufferKept": "tool",
        "CacheNotInvalidated": "tool",
        "ContextLoadedByOrder": "create",
        "UserLeftInContext": "write",
        "UserOfTheCreateStays": "first-create",
        "RunAnswersCancellation": "write",
        "CreateShieldedFromCancellation": "first-create",
        "CancellationWrapped": "write",
        "CallerCancelledAgain": "write",
        "EarlierCancellationTaken": "write",
        "GivenBackAfterAnAwait": "write",
        "GivenBackAfterALongFarewell": "write",
        "KeptOnBaseException": "first-create",
        "WorkerDiesOfUserCode": "first-create",
        "SeatClearedByForce": "write",
        "CommitOfAllCancelled": "write",
        "FollowersCancelled": "create",
        "FailureRollsBackOthers": "uncopied-answer",
        "CompletedAndThenFailed": "write",
        "DroppedClientClosesAll": "tool",
        "DroppedClientEndsAllRuns": "tool",
        "ErrorNamesTheInterrupted": "write",
        "StreamLeftHalfSent": "think",
        "EndCutOffKeepsClients": "end",
        "EndRepeatedByName": "end",
        "ToolsLeftToTheNextCreate": "create",
        "PermissionsNotCheckedMeanwhile": "tool",
        "EverySecondLookupFails": "write",
        "NewcomerGetsMemory": "get_or_create",
        "PagesKeptInPart": "tool",
    }
)
"""The planted registries, each with a call whose interruption alone shows its defect."""


def _unlogged(part: Body) -> Body:
    """The part, without the target's log: a write to a client that has left is logged, and nobody need hear of it."""

    async def work(trial: Trial) -> None:
        with recorded_logs():
            await part(trial)

    return work


async def _interrupted(trial: Trial) -> None:
    exploration = await explore_interruptions(trial, SHOWN_BY)
    if exploration.unexplored:
        await judge_sampled(trial, exploration, list(exploration.unexplored))


CHECKS = (
    Check(
        name="interrupted_calls_leave_nothing_to_others",
        category="user_isolation",
        claim=(
            "One user's call is interrupted at each of its suspension points: by one cancellation, by two, by a "
            "time limit, by an error of the user's code, and by the loss of its client. All others observe the same "
            "as without the interruption: those who are there, those who come later, and those whom the same task "
            "serves next. The caller's own task is as before, and no question to the model gets the answer to one that "
            "was left."
        ),
        protects="data",
        looks_like=(
            "A customer closes the browser in the middle of an answer. The shared connection still holds the reply, "
            "and the next to ask receives it: titles of strangers' conversations, for hours, and no error anywhere."
        ),
        body=(
            Part(
                "questions to a model over HTTP that are left",
                _unlogged(judge_left_model),
                planted=(
                    "AnswerLeftOnTheConnection",
                    "CookiesOfAll",
                    "ClientClosedByWhoLeaves",
                    "QuestionsNumberedAnew",
                    "AnswersInTheMailbox",
                    "EqualQuestionsCancelled",
                    "PlaceAtTheModelKept",
                ),
            ),
            Part("clients over sockets that leave", _unlogged(judge_left_socket), planted=("RedeliveredToTheNext",)),
            # Its store is reached over a real loop alone, where the interruptions of all calls are drawn.
            Part("calls that are interrupted", _interrupted, planted=("ReplyLeftInASocket",)),
        ),
        planted=tuple(SHOWN_BY),
        uses=frozenset(
            {
                Capability.CONTEXT_DATA,
                Capability.END,
                Capability.EVENTS,
                Capability.GET_OR_CREATE,
                Capability.LOOKUP,
                Capability.PERMISSIONS,
                Capability.POPULATION,
                Capability.REMOVE,
                Capability.RUN_IDS,
                Capability.SOCKETS,
                Capability.SUPERVISION,
                Capability.TOOLS,
            }
        ),
        extra_markers=frozenset({"enterprise_critical"}),
    ),
)
