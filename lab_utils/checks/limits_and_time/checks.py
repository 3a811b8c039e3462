"""Checks of the category limits_and_time."""

from __future__ import annotations

from lab_utils.checks.limits_and_time.adoption import adopted_agents, adopted_beyond_the_cap
from lab_utils.checks.limits_and_time.agent_caps import agent_caps
from lab_utils.checks.limits_and_time.endings import age_ends, idle_ends
from lab_utils.checks.limits_and_time.loops import foreign_loops
from lab_utils.checks.limits_and_time.registries import several_registries
from lab_utils.checks.limits_and_time.replacements import type_changes
from lab_utils.checks.limits_and_time.strictness import strict_contexts
from lab_utils.checks.limits_and_time.user_caps import user_caps
from lab_utils.target import Capability
from lab_utils.trial import Check, Part

__all__ = ["CHECKS"]

CHECKS = (
    Check(
        name="agent_and_user_limit_enforcement",
        category="limits_and_time",
        claim="No user has more agents than the limit, and no registry more users, by whichever call they come and "
        "however many race for the last place. A refused, failed or cancelled call takes no place; only an idle "
        "agent makes room, and it is closed; no user's limit counts another user's agents.",
        protects="stability",
        looks_like="A customer's script opens agents in a loop. The limit that should stop it counts all customers "
        "whose ids fall into one bucket, so a bank with two agents gets the error that it has fifty; and each "
        "refused attempt is counted as one more.",
        body=(
            Part(
                "caps on one user's agents",
                agent_caps,
                frozenset({Capability.AGENT_CAP}),
                planted=(
                    "CapCheckedBeforeTheFactory",
                    "RefusedStillCounted",
                    "PlaceKeptByFailure",
                    "PlaceKeptByExit",
                    "PlaceKeptInLine",
                    "PlaceKeptByRefusal",
                    "PlaceKeptByRefusedAdoption",
                    "CapSharedByHash",
                    "CapOfEachThread",
                    "BusyMakesRoom",
                    "EvictedUnclosed",
                    "CapForgottenByGetOrCreate",
                    "PlaceGivenBackTwice",
                ),
            ),
            Part(
                "caps on users",
                user_caps,
                frozenset({Capability.USER_CAP}),
                planted=(
                    "InsidersRefused",
                    "UserCapForgottenByAdoption",
                    "UserCapCheckedBeforeTheFactory",
                    "RefusedNewcomerRemembered",
                    "PlaceKeptByFailedCleanup",
                    "EveryEndMakesRoom",
                    "SessionBeforePermission",
                    "NewcomerKeptByExit",
                    "NewcomerKeptByRefusedAdoption",
                    "CancelledBeforeItsTurn",
                ),
            ),
        ),
        uses=frozenset(
            {
                Capability.ADOPTION,
                Capability.AGENT_CAP,
                Capability.CREATE_ANEW,
                Capability.END,
                Capability.EVENTS,
                Capability.GET_OR_CREATE,
                Capability.LOOKUP,
                Capability.PERMISSIONS,
                Capability.POPULATION,
                Capability.REMOVE,
                Capability.STRICT,
                Capability.USER_CAP,
            }
        ),
    ),
    Check(
        name="idle_and_over_age_session_ending",
        category="limits_and_time",
        claim="Sessions that are idle or too old by the registry's clock are ended once, with the cleanup of each of "
        "their agents. No session that is busy or was used in time is ended, and no ending waits for another.",
        protects="stability",
        looks_like="Every night at three a report breaks off: it runs for longer than the time after which a session "
        "counts as idle, and the sweep takes its agent away. Another customer's cleanup hangs, and all who were due "
        "after it stay for ever.",
        body=(
            Part(
                "endings by idleness",
                idle_ends,
                frozenset({Capability.IDLE_END}),
                planted=(
                    "RunDoesNotRenew",
                    "SweepEndsTheBusy",
                    "SweepEndsWhoMakes",
                    "IdleFromStartOfRun",
                    "SweepInTurn",
                    "SweepHoldsTheRegistry",
                    "SweepStopsAtFirstError",
                    "SweptUnclosed",
                    "SweepsCloseTwice",
                    "LookupsRenewAll",
                    "UseRenewsNamesakes",
                    "GetOrCreateDoesNotRenew",
                    "FailedRunDoesNotRenew",
                    "AdoptedRunDoesNotRenew",
                    "SweepTakesTwenty",
                    "SweepEndsWhoWasDue",
                    "SweepsFewAtOnce",
                    "CancelledRunStaysBusy",
                    "OnlyTheNewestIsBusy",
                    "SweepEndsWhoFindsOrMakes",
                    "SweepStopsAtWhoLeft",
                ),
            ),
            Part(
                "endings by age",
                age_ends,
                frozenset({Capability.AGE_END}),
                planted=(
                    "AgeRenewedByUse",
                    "AgeSinceLastCreate",
                    "AgeRenewedByRemoval",
                    "AgeOfTheUser",
                ),
            ),
        ),
        uses=frozenset(
            {
                Capability.ADOPTION,
                Capability.AGE_END,
                Capability.CREATE_ANEW,
                Capability.END,
                Capability.EVENTS,
                Capability.GET_OR_CREATE,
                Capability.IDLE_END,
                Capability.LOOKUP,
                Capability.POPULATION,
                Capability.REMOVE,
                Capability.STRICT,
            }
        ),
    ),
    Check(
        name="agent_type_registration_and_replacement",
        category="limits_and_time",
        claim="Registering a type twice is refused and changes nothing. A replacement makes every later agent, for "
        "old and new users, with its own permissions; agents that live or are being made keep the recipe that "
        "made them to their end.",
        protects="compliance",
        looks_like="A plug-in is loaded twice and registers its agent again, without the permission that the first "
        "registration required. From then on everybody may ask the agent that deletes invoices.",
        body=type_changes,
        uses=frozenset({Capability.CREATE_ANEW, Capability.END, Capability.GET_OR_CREATE, Capability.PERMISSIONS}),
        planted=(
            "DuplicateReplaces",
            "RecipeLookedUpLate",
            "RecipesRememberedPerUser",
            "OldRequirementsStay",
            "RequirementsAddUp",
            "RequirementsMetOnce",
        ),
        needs=frozenset({Capability.TYPE_CHANGES}),
    ),
    Check(
        name="adopted_agent_ownership",
        category="limits_and_time",
        claim="An agent that was made elsewhere and is adopted by a session belongs to that session: it is found, "
        "counted and limited, its events reach its user's clients, and it is closed once at the end. An agent "
        "of another user, or of a session already, is refused, and an agent that was refused is as it was before.",
        protects="data",
        looks_like="A migration hands over agents that the old system made. Two of them belong to other customers, and "
        "nobody compares: from then on one customer's assistant answers with another one's memory.",
        body=(
            Part(
                "whose an adopted agent is",
                adopted_agents,
                frozenset({Capability.ADOPTION}),
                planted=(
                    "AdoptsAnybodys",
                    "AdoptedTwice",
                    "OwnerNotCheckedAgain",
                    "AdoptedKeepsItsBridge",
                    "AdoptedNeverClosed",
                    "OfferBinds",
                ),
            ),
            Part(
                "caps on adopted agents",
                adopted_beyond_the_cap,
                frozenset({Capability.ADOPTION, Capability.AGENT_CAP}),
                planted=("AdoptedBeyondCap", "RefusedOfferBinds", "RefusedOfferBindsToSession"),
            ),
        ),
        uses=frozenset(
            {
                Capability.ADOPTION,
                Capability.AGENT_CAP,
                Capability.END,
                Capability.EVENTS,
                Capability.LOOKUP,
                Capability.POPULATION,
                Capability.REMOVE,
            }
        ),
    ),
    Check(
        name="strict_context_enforcement",
        category="limits_and_time",
        claim="A strict context refuses everything but plain data, at every depth, on create and in the parameters of "
        "a run. A refusal leaves nothing, and plain data come back unchanged.",
        protects="data",
        looks_like="A request carries an open database connection three levels down in its data. It was to be refused; "
        "it was shared, by the agents of two customers, and the second one's query is answered on the first one's "
        "transaction.",
        body=strict_contexts,
        uses=frozenset({Capability.CONTEXT_DATA, Capability.GET_OR_CREATE, Capability.LOOKUP, Capability.POPULATION}),
        planted=(
            "StrictAtTheTopOnly",
            "StrictInTheFirstFifty",
            "StrictTakesSubclasses",
            "StrictForgottenInRuns",
            "StrictOnceApproved",
            "StrictForgottenByLookups",
            "StrictRefusalLeavesSession",
        ),
        needs=frozenset({Capability.STRICT}),
    ),
    Check(
        name="foreign_thread_and_loop_refusal",
        category="limits_and_time",
        claim="Each call from another thread's event loop, or from a second loop of the same thread, is refused as "
        "such and has no effect; the registry goes on working on its own loop.",
        protects="stability",
        looks_like="A library calls back from a worker thread, which awaits an agent there. Nothing fails. Once a week "
        "two threads change one session at the same moment, and a user has an agent that nobody can find.",
        body=foreign_loops,
        uses=frozenset(
            {
                Capability.AGE_END,
                Capability.END,
                Capability.EVENTS,
                Capability.GET_OR_CREATE,
                Capability.IDLE_END,
                Capability.LOOKUP,
                Capability.POPULATION,
                Capability.REMOVE,
                Capability.STRICT,
            }
        ),
        planted=("RunsOnAnyLoop", "LoopCheckedTooLate", "EndsFromAnyLoop", "SweepsFromAnyLoop"),
        needs=frozenset({Capability.LOOP_GUARD}),
    ),
    Check(
        name="independent_registries_in_one_process",
        category="limits_and_time",
        claim="Two registries in one process share nothing, though their users and types have the same names: no "
        "agents, counts, recipes, rows, events or limits. The end of one changes nothing in the other, and a new one "
        "works on any other event loop.",
        protects="data",
        looks_like="A test tenant and the real one run in one process, each with a registry of its own. The sessions "
        "are kept in an attribute of the class, and a user's real data turn up in the demonstration.",
        body=several_registries,
        uses=frozenset(
            {
                Capability.AGENT_CAP,
                Capability.END,
                Capability.EVENTS,
                Capability.GET_OR_CREATE,
                Capability.LOOKUP,
                Capability.POPULATION,
                Capability.TOOLS,
            }
        ),
        planted=(
            "SessionsOfTheClass",
            "RecipesOfTheProcess",
            "StopClosesEverybody",
            "LimitOfTheProcess",
            "LockOfTheClass",
            "MakingsOfTheProcess",
        ),
    ),
)
