"""Checks of the category service."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from lab_utils.target import Capability
from lab_utils.trial import Check, Trial

if TYPE_CHECKING:
    from lab_utils.checks.service.stage import Act

__all__ = ["CHECKS", "act_of"]

_NEEDS = frozenset({Capability.SERVICE})


@dataclass(frozen=True, slots=True)
class _Late:
    """A body that is imported when it runs: it needs the extra `service`, and the list of checks does not."""

    module: str
    name: str

    def act(self) -> Act:
        found: Act = getattr(import_module(f"lab_utils.checks.service.{self.module}"), self.name)
        return found

    async def __call__(self, trial: Trial) -> None:
        await self.act()(trial)


def act_of(check: Check) -> Act:
    """The work of a check of this category on a stage. Needs the extra `service`."""
    assert isinstance(check.body, _Late)
    return check.body.act()


CHECKS = (
    Check(
        name="service_answers_isolation",
        category="service",
        claim="Users who overlap, each with several requests under way, are answered with their own data alone: in no "
        "text, header, list, stream or error page stands another's data, session id or token. Every value sent is read "
        "back over other connections.",
        protects="data",
        looks_like="A customer opens their history and reads a stranger's conversation. The cache's key has the path "
        "in it, and not the user.",
        body=_Late("answers", "answers"),
        planted=(
            "CookieOfTheSecond",
            "ListCacheWithoutUser",
            "ErrorPageOfAnother",
            "HeaderOfAnother",
            "BadRequestQuotesLast",
            "BadRequestRollsBack",
            "BufferNotCleared",
            "AnswersKeptByKey",
            "SlotsReused",
            "UserOfTheConnection",
            "UserOfTheBusyConnection",
            "NewestIdInErrors",
            "TokenOfTheLast",
            "SecondPageOfAll",
            "CurrentUserGlobal",
            "RunsCachedByLength",
            "StateInOneWorker",
        ),
        needs=_NEEDS,
    ),
    Check(
        name="service_access_denial",
        category="service",
        claim="Nobody but its owner reads, changes, lists, streams or ends a session: no other user who knows its id, "
        "and nobody with no token, an expired or a forged one. The owner reads back; a status decides nothing.",
        protects="compliance",
        looks_like="A support engineer pastes a session's address into a ticket. Every reader of the ticket can read "
        "the session, for the server looks up the id and never checks its owner.",
        body=_Late("denial", "denial"),
        planted=(
            "ReadOfAnyone",
            "OwnerByTheBeginning",
            "OpenedForTheNamed",
            "StreamOfAnyone",
            "ResumedByAnyone",
            "EventIdNamesLog",
            "IdIsPattern",
            "OwnerOfTheIdAsSpelt",
            "HeaderNamesUser",
            "AddressNamesUser",
            "BodyNamesUser",
            "CookieNamesUser",
            "TenantOfTheRequest",
            "RefusalQuotesLast",
            "RunInAnyones",
            "WritesThenRefuses",
            "EndsThenRefuses",
            "ExpiredAccepted",
            "TokensRemembered",
            "StreamOutlivesToken",
            "TokensKnownByClaims",
            "TokensKnownByBeginning",
            "NobodyIsTheConnections",
            "UnsignedAccepted",
            "UnsignedInOtherLetters",
            "SignatureUnchecked",
            "TokenIsTheName",
            "NobodyIsTheLast",
            "IdsWithoutCase",
            "KeyWithoutSeparator",
            "KeyWithHyphen",
            "IdsAsNumbers",
            "IdsCut",
            "IdsOfClientsTaken",
            "IdsCounted",
            "IdsOfTheClock",
            "IdByItsBeginning",
            "EndByPattern",
        ),
        needs=_NEEDS,
    ),
    Check(
        name="service_concurrent_updates",
        category="service",
        claim="Requests that update one session at once all count, one after another, and none counts in another's. "
        "A session that is opened several times at once keeps what is written to it.",
        protects="data",
        looks_like="Two answers arrive at once, and one of them is missing from the history afterwards: both were "
        "read, changed and written back.",
        body=_Late("answers", "updates"),
        planted=(
            "LostUpdates",
            "CounterOfAll",
            "TotalsCachedById",
            "CounterOfTheUser",
            "SumOfTheUser",
            "OpenedTwiceAtOnce",
        ),
        needs=_NEEDS,
    ),
    Check(
        name="service_non_interference",
        category="service",
        claim="A user's answers are the same alone as beside another user who does the same things at once.",
        protects="data",
        looks_like="A small customer is refused for a quota that a large one has used up, or counts from the numbers "
        "of their own orders how many the others have.",
        body=_Late("answers", "non_interference"),
        planted=("RunsLeftOfAll", "QuotaOfAllUsers", "ListCutBeforeUsers", "HeaderNamesOthers"),
        needs=_NEEDS,
    ),
    Check(
        name="service_abandoned_requests",
        category="service",
        claim="After requests were abandoned at every chunk, all users are answered, each with the answer to their own "
        "request, also where it was under way beside one that was dropped. No place is lost with a dropped request, or "
        "with one that is no JSON.",
        protects="data",
        looks_like="A user closes the tab while the model still writes. The reply stays in the shared connection, and "
        "the next user is given it: from then on everybody reads the answer of the one before.",
        body=_Late("leaving", "abandoned"),
        planted=(
            "ReplyLeftBehind",
            "HalfBodyLeft",
            "SlotLost",
            "PlaceLost",
            "PlaceLostToNonsense",
            "RefreshCancelledForAll",
        ),
        needs=_NEEDS,
    ),
    Check(
        name="service_session_end",
        category="service",
        claim="An ended session holds nothing more, for its owner or for the next user of the same id, also where it "
        "ended during a write, or where work of a run goes on behind its answer; no other session ends with it. A list "
        "names all of its user's sessions. A restart keeps what is promised, for its owner alone, brings nothing back "
        "that had ended, and opens no new session to an old id.",
        protects="compliance",
        looks_like="A customer deletes a conversation. It is gone from the list, and still answers under its address.",
        body=_Late("leaving", "ended"),
        planted=(
            "EndForgetsNothing",
            "EndKeepsCounter",
            "EndOfLongOnesLater",
            "EndByPrefix",
            "EndLogsOut",
            "EndForAllUsers",
            "WriteUndeletes",
            "WriteOutlivesEnd",
            "LateSummary",
            "ErasedLate",
            "SumComesBack",
            "SavedAgain",
            "NewestNotListed",
            "NumbersGivenAgain",
            "NotesOfOldNumbers",
            "InheritsNotes",
            "LostAtRestart",
            "RestoredForAnyone",
            "RestoredByIdAlone",
            "EndedComeBack",
            "SumsNotRestored",
            "IdsFromOneAgain",
            # Where the owner is shown another's data in place of their own, that is the finding.
            "PagesCachedByLength",
        ),
        needs=_NEEDS,
    ),
    Check(
        name="service_stream_isolation",
        category="service",
        claim="A stream brings its own session's events, each once, and nobody else's, also beside another stream of "
        "the session, after it was dropped and resumed, and whatever other streams were dropped.",
        protects="data",
        looks_like="A user's phone loses its network for a second, comes back, and shows the work of others.",
        body=_Late("leaving", "streams"),
        planted=(
            "StreamToEverybody",
            "ResumesAnyonesEvents",
            "LogOfTheId",
            "LogOutlivesSession",
            "ListenersOutliveSession",
            "NewestDeviceAlone",
            "ResumesFromTheLast",
            "EventsCountedAnew",
            "StreamOfAllOnes",
            "LosesWhatWasMissed",
            "EndOfTheOldOne",
            "GoneListenerBreaksWrites",
            "ListenersNotCounted",
            "EndEndsAllStreams",
        ),
        needs=_NEEDS,
    ),
    Check(
        name="service_burst_latency",
        category="service",
        claim="One user's burst of requests delays the others by no more than the server promises.",
        protects="stability",
        looks_like="One customer imports a year of data at nine o'clock, and for all the others the chat stands still.",
        body=_Late("load", "burst"),
        measures=True,
        planted=("OneRunAtATime",),
        needs=_NEEDS,
    ),
    Check(
        name="service_memory",
        category="service",
        claim="After users have come, worked and left, the server's processes keep neither memory nor descriptors, "
        "threads or connections of them, cycle after cycle.",
        protects="stability",
        looks_like="The server is restarted every night, and nobody remembers why.",
        body=_Late("load", "memory"),
        measures=True,
        planted=("EndedSessionsKept", "AnsweredRunsKept", "AbandonedRunsKept", "DescriptorsKept", "ThreadsKept"),
        needs=_NEEDS,
    ),
)
