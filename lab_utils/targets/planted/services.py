"""Planted services as targets: each starts the server of its name, with the service file that all of them share."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from lab_utils.service import require_extra
from lab_utils.service.planted.defects import DEFECTS
from lab_utils.target import Target
from lab_utils.targets.planted.base import Planted

if TYPE_CHECKING:
    from lab_utils.service.file import ServiceFile

__all__ = ["PLANTED", "RIGHT", "right_service"]

_FILE: Final = Path(__file__).parents[2] / "service" / "planted" / "service.toml"
_ROOT: Final = str(Path(__file__).parents[3])
RIGHT: Final = "right_service"
_BY_ID_ALONE: Final = ("IdsCounted", "IdsFromOneAgain", "IdsOfClientsTaken", "IdsOfTheClock", "IdByItsBeginning")
_NUMBERED: Final = ("NumbersGivenAgain", "NotesOfOldNumbers")


def planted_file(defect: str) -> ServiceFile:
    """The service file of a planted server."""
    from lab_utils.service.file import Identity, Operation, read_service

    service = read_service(_FILE)
    command = tuple(defect if word == "DEFECT" else word for word in service.command)
    service = msgspec.structs.replace(service, command=command, environment={"PYTHONPATH": _ROOT})
    if defect == "TokenIsTheName":
        identity = Identity(
            headers=service.identity.headers,
            login=Operation("POST /login", body={"name": "{user}"}, extract={"token": "token"}),
        )
        return msgspec.structs.replace(service, identity=identity)
    if defect not in (*_BY_ID_ALONE, *_NUMBERED):
        return service
    # The rules for its ids depend on who chooses them, and on the other means that keep sessions apart.
    promises = msgspec.structs.replace(
        service.promises,
        identity="none" if defect in _BY_ID_ALONE else "proved",
        session_ids="server",
        survives_restart=defect not in ("IdsFromOneAgain", "NotesOfOldNumbers"),
    )
    opening = msgspec.structs.replace(service.operations["open"], body={})
    return msgspec.structs.replace(service, promises=promises, operations={**service.operations, "open": opening})


def make(defect: str) -> Target:
    """The target of a planted server, or of the right one (`right`). Needs the extra `service`."""
    require_extra()
    from lab_utils.service.target import ServiceTarget

    return ServiceTarget(planted_file(defect))


def right_service() -> Target:
    """A small server of notes over HTTP, started for each check, which keeps the promises of its service file."""
    return make("right")


_ANOMALIES: Final = {
    "CookieOfTheSecond": {"cross-user-data"},
    "ListCacheWithoutUser": {"foreign-session-listed"},
    "ErrorPageOfAnother": {"cross-user-data"},
    "HeaderOfAnother": {"cross-user-data"},
    "BadRequestQuotesLast": {"cross-user-data"},
    "BadRequestRollsBack": {"lost-write"},
    "BufferNotCleared": {"cross-user-data"},
    "SlotsReused": {"cross-user-data", "cross-session-data"},
    "UserOfTheConnection": {"cross-user-data"},
    "UserOfTheBusyConnection": {"cross-user-data", "session-lost"},
    "NewestIdInErrors": {"cross-user-data"},
    "TokenOfTheLast": {"cross-user-data"},
    "SecondPageOfAll": {"foreign-session-listed"},
    "CurrentUserGlobal": {"cross-user-data"},
    "PagesCachedByLength": {"cross-user-data"},
    "RunsCachedByLength": {"cross-user-data"},
    "StateInOneWorker": {"session-lost"},
    "ReadOfAnyone": {"read-by-another"},
    "StreamOfAnyone": {"read-by-another"},
    "ResumedByAnyone": {"read-by-another"},
    "EventIdNamesLog": {"read-by-another"},
    "IdIsPattern": {"read-by-another"},
    "OwnerOfTheIdAsSpelt": {"read-by-another"},
    "HeaderNamesUser": {"read-by-another"},
    "AddressNamesUser": {"read-by-another"},
    "BodyNamesUser": {"changed-by-another"},
    "CookieNamesUser": {"read-by-another"},
    "TenantOfTheRequest": {"read-by-another"},
    "TokenIsTheName": {"forged-token-accepted"},
    "RefusalQuotesLast": {"cross-user-data"},
    "RunInAnyones": {"changed-by-another"},
    "WritesThenRefuses": {"changed-by-another"},
    "EndsThenRefuses": {"ended-by-another"},
    "ExpiredAccepted": {"expired-token-accepted"},
    "TokensRemembered": {"expired-token-accepted"},
    "StreamOutlivesToken": {"expired-token-accepted"},
    "TokensKnownByClaims": {"forged-token-accepted"},
    "TokensKnownByBeginning": {"forged-token-accepted"},
    "NobodyIsTheConnections": {"no-token-accepted"},
    "UnsignedAccepted": {"forged-token-accepted"},
    "UnsignedInOtherLetters": {"forged-token-accepted"},
    "SignatureUnchecked": {"forged-token-accepted"},
    "NobodyIsTheLast": {"no-token-accepted"},
    "IdsWithoutCase": {"ids-collide"},
    "KeyWithoutSeparator": {"ids-collide"},
    "KeyWithHyphen": {"ids-collide"},
    "IdsAsNumbers": {"ids-collide"},
    "IdsCut": {"ids-collide"},
    "IdsOfClientsTaken": {"session-adopted"},
    "IdByItsBeginning": {"read-by-another"},
    "EndByPattern": {"ids-collide"},
    "IdsOfTheClock": {"guessable-ids"},
    "IdsCounted": {"guessable-ids"},
    "LostUpdates": {"lost-update"},
    "CounterOfAll": {"cross-user-update", "phantom-update"},
    "TotalsCachedById": {"lost-update", "phantom-update"},
    "CounterOfTheUser": {"cross-session-data"},
    "SumOfTheUser": {"cross-session-data"},
    "OpenedTwiceAtOnce": {"lost-write"},
    "RunsLeftOfAll": {"interference"},
    "QuotaOfAllUsers": {"interference"},
    "ListCutBeforeUsers": {"interference"},
    "HeaderNamesOthers": {"interference"},
    "PlaceLost": {"no-answer-after-abandoned"},
    "PlaceLostToNonsense": {"no-answer-after-abandoned"},
    "RefreshCancelledForAll": {"cancelled-others"},
    "ReplyLeftBehind": {"wrong-answer-after-abandoned"},
    "HalfBodyLeft": {"cross-user-data"},
    "SlotLost": {"no-answer-after-abandoned"},
    "EndForgetsNothing": {"kept-after-end"},
    "EndKeepsCounter": {"kept-after-end"},
    "EndOfLongOnesLater": {"kept-after-end"},
    "EndByPrefix": {"ended-with-another"},
    "EndLogsOut": {"ended-with-another"},
    "EndForAllUsers": {"ended-with-another"},
    "WriteUndeletes": {"kept-after-end"},
    "WriteOutlivesEnd": {"kept-after-end"},
    "LateSummary": {"kept-after-end"},
    "ErasedLate": {"lost-write"},
    "SumComesBack": {"kept-after-end"},
    "SavedAgain": {"kept-after-end"},
    "NewestNotListed": {"session-lost"},
    "NumbersGivenAgain": {"inherited-data"},
    "NotesOfOldNumbers": {"cross-user-data"},
    "InheritsNotes": {"inherited-data"},
    "LostAtRestart": {"lost-at-restart"},
    "RestoredForAnyone": {"read-by-another"},
    "RestoredByIdAlone": {"cross-user-data"},
    "EndedComeBack": {"kept-after-end"},
    "SumsNotRestored": {"lost-at-restart"},
    "IdsFromOneAgain": {"session-adopted"},
    "StreamToEverybody": {"cross-user-event"},
    "ResumesAnyonesEvents": {"cross-user-event"},
    "LogOfTheId": {"cross-user-event"},
    "LogOutlivesSession": {"kept-after-end"},
    "ListenersOutliveSession": {"kept-after-end"},
    "NewestDeviceAlone": {"lost-event"},
    "ResumesFromTheLast": {"doubled-event"},
    "EventsCountedAnew": {"lost-event"},
    "StreamOfAllOnes": {"cross-session-data"},
    "EndEndsAllStreams": {"lost-event"},
    "EndOfTheOldOne": {"lost-event"},
    "GoneListenerBreaksWrites": {"no-answer-after-abandoned"},
    "ListenersNotCounted": {"capacity-lost"},
    "LosesWhatWasMissed": {"lost-event"},
    "OneRunAtATime": {"delayed-by-neighbour"},
    "EndedSessionsKept": {"memory-kept"},
    "AbandonedRunsKept": {"memory-kept"},
    "DescriptorsKept": {"descriptors-kept"},
    "ThreadsKept": {"threads-kept"},
}


def _planted(name: str, anomalies: set[str]) -> Planted:
    defect = " ".join((DEFECTS[name].__doc__ or "").split())
    return Planted(name, defect, frozenset(anomalies), partial(make, name), RIGHT)


PLANTED: Final = tuple(_planted(name, anomalies) for name, anomalies in _ANOMALIES.items())
