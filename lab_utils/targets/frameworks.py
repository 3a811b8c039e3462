"""The public frameworks that have a target here: the origin of each, and the promises of its own documentation.

This table is the one list of framework targets. A target's module imports its framework; this module needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, distributions, version
from types import MappingProxyType
from typing import Final

__all__ = ["FRAMEWORKS", "Framework", "Promise", "Standing"]


class Standing(StrEnum):
    """How a finding stands to the documentation of the framework in which it was found."""

    BROKEN = "breaks its own promise"
    """The documentation promises the opposite."""
    UNSAFE = "unsafe default"
    """The documentation is silent, and an app that follows its examples runs into it. The quote is the nearest."""
    APP = "left to the app"
    """The documentation names it, or names the purpose of the part so that the app must guard it."""

    @property
    def letter(self) -> str:
        """p, u or a: what stands beside a FAIL where there is no room."""
        return {self.BROKEN: "p", self.UNSAFE: "u", self.APP: "a"}[self]


@dataclass(frozen=True, slots=True)
class Promise:
    """The sentence of the documentation that bears on one anomaly.

    `quote` stands in `document`, an address or the docstring of a name. `reproduction` is the stem of a script in
    `examples/reproductions`, which shows the anomaly against the framework's own interface.
    """

    standing: Standing
    quote: str
    document: str
    reproduction: str


@dataclass(frozen=True, slots=True)
class Framework:
    """A public framework as one target: the import path of the target, the framework's name, the distribution it comes
    in, the extra that brings it, and a summary. `promises`: for each anomaly that the lab or a reproduction shows, the
    sentence of its documentation that bears on it."""

    spec: str
    title: str
    package: str
    extra: str
    summary: str
    promises: Mapping[str, Promise]

    @property
    def remedy(self) -> str:
        """The command that installs it."""
        return f"pip install 'agent-registry-lab[{self.extra}]'"

    @property
    def is_installed(self) -> bool:
        # By its distribution: a folder of somebody's may have the name of the module.
        return any(distributions(name=self.package))

    @property
    def version(self) -> str:
        """The version that is installed, "" for none."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return ""


_AUTOGEN_LIFECYCLE: Final = (
    "https://microsoft.github.io/autogen/stable/user-guide/core-user-guide/core-concepts/"
    "agent-identity-and-lifecycle.html"
)
_AUTOGEN_RUNTIME: Final = "docstring of autogen_core.SingleThreadedAgentRuntime"
_AUTOGEN_SEND: Final = "docstring of autogen_core.AgentRuntime.send_message"
_PAGING: Final = Promise(
    Standing.APP,
    'The runtime is also responsible for "paging in" or "out" agent instances to conserve resources [...]. This is not '
    "implemented yet.",
    _AUTOGEN_LIFECYCLE,
    "autogen_core_retained_object",
)
_AUTOGEN_CONCURRENT: Final = Promise(
    Standing.APP,
    "the runtime processes each message in a separate asyncio task concurrently",
    _AUTOGEN_RUNTIME,
    "autogen_core_lost_update",
)
_AUTOGEN: Final[Mapping[str, Promise]] = MappingProxyType(
    {
        "double-activation": Promise(
            Standing.BROKEN,
            "An Agent ID uniquely identifies an agent instance within an agent runtime [...] it either fetches the "
            "instance, or creates it if it does not exist.",
            _AUTOGEN_LIFECYCLE,
            "autogen_core_double_activation",
        ),
        "lost-update": _AUTOGEN_CONCURRENT,
        "stale-update": _AUTOGEN_CONCURRENT,
        "retained-object": _PAGING,
        "object-growth": _PAGING,
        "memory-growth": _PAGING,
        "reference-cycle": Promise(
            Standing.UNSAFE,
            "Send a message to an agent and get a response. [...] Raises: [...] Other: Any other exception raised by "
            "the recipient.",
            _AUTOGEN_SEND,
            "autogen_core_reference_cycle",
        ),
        "left-waiting": Promise(
            Standing.BROKEN,
            "Send a message to an agent and get a response. [...] Raises: [...] UndeliverableException: If the message "
            "cannot be delivered.",
            _AUTOGEN_SEND,
            "autogen_core_left_waiting",
        ),
        "aliased-input": Promise(
            Standing.UNSAFE,
            "Messages are purely data, and should not contain any logic.",
            "https://microsoft.github.io/autogen/stable/user-guide/core-user-guide/framework/"
            "message-and-communication.html",
            "autogen_core_aliased_input",
        ),
        "aliased-output": Promise(
            Standing.UNSAFE,
            "Messages are purely data, and should not contain any logic.",
            "https://microsoft.github.io/autogen/stable/user-guide/core-user-guide/framework/"
            "message-and-communication.html",
            "autogen_core_aliased_output",
        ),
        "unhandled-error": Promise(
            Standing.UNSAFE,
            "Any background exceptions will be raised on the next call to `process_next` or from an awaited `stop`, "
            "`stop_when_idle` or `stop_when`. Note, this does not apply to RPC handlers.",
            _AUTOGEN_RUNTIME,
            "autogen_core_unhandled_error",
        ),
        "shared-object": Promise(
            Standing.UNSAFE,
            "[...] an agent runtime provides the necessary infrastructure to facilitate communication between agents, "
            "manage agent lifecycles, enforce security boundaries [...]",
            "https://microsoft.github.io/autogen/stable/user-guide/core-user-guide/framework/"
            "agent-and-agent-runtime.html",
            "autogen_core_cross_user_data",
        ),
        "cross-user-data": Promise(
            Standing.UNSAFE,
            "[...] an agent runtime provides the necessary infrastructure to facilitate communication between agents, "
            "manage agent lifecycles, enforce security boundaries [...]",
            "https://microsoft.github.io/autogen/stable/user-guide/core-user-guide/framework/"
            "agent-and-agent-runtime.html",
            "autogen_core_cross_user_data",
        ),
    }
)


def _unserialised(standing: Standing, quote: str, document: str, name: str) -> dict[str, Promise]:
    return {
        "lost-update": Promise(standing, quote, document, f"{name}_lost_update"),
        "stale-update": Promise(standing, quote, document, f"{name}_stale_update"),
    }


_STORE_PAGE: Final = "https://docs.langchain.com/oss/python/langgraph/stores"
_LANGGRAPH_SAVER: Final[Mapping[str, Promise]] = MappingProxyType(
    {
        "old-handle-works": Promise(
            Standing.UNSAFE,
            "Delete all checkpoints and writes associated with a thread ID.",
            "docstring of langgraph.checkpoint.memory.InMemorySaver.adelete_thread",
            "langgraph_saver_old_handle_works",
        ),
        "memory-growth": Promise(
            Standing.APP,
            "When you compile a graph with a checkpointer, the checkpointer saves a checkpoint of the graph state at "
            "every super-step.",
            "https://langchain-ai.github.io/langgraph/concepts/persistence",
            "langgraph_saver_memory_growth",
        ),
        "reference-cycle": Promise(
            Standing.UNSAFE,
            "Asynchronously update the state of the graph with the given values, as if they came from node `as_node`.",
            "docstring of langgraph.pregel.Pregel.aupdate_state",
            "langgraph_saver_reference_cycle",
        ),
        **_unserialised(
            Standing.APP,
            "Double texting is a feature of LangSmith Deployment. It is not available in the LangGraph open source "
            "framework.",
            "https://docs.langchain.com/langsmith/double-texting",
            "langgraph_saver",
        ),
    }
)
_STORE_SAME: Final = "InMemoryStore is suitable for development and testing."
_LANGGRAPH_STORE: Final[Mapping[str, Promise]] = MappingProxyType(
    {
        **_unserialised(
            Standing.UNSAFE,
            "Store or update an item in the store.",
            "docstring of langgraph.store.base.BaseStore.aput",
            "langgraph_store",
        ),
        "aliased-input": Promise(Standing.UNSAFE, _STORE_SAME, _STORE_PAGE, "langgraph_store_aliased_input"),
        "aliased-output": Promise(Standing.UNSAFE, _STORE_SAME, _STORE_PAGE, "langgraph_store_aliased_output"),
        "memory-growth": Promise(Standing.UNSAFE, _STORE_SAME, _STORE_PAGE, "langgraph_store_memory_growth"),
        "cost-grows": Promise(Standing.UNSAFE, _STORE_SAME, _STORE_PAGE, "langgraph_store_cost_grows"),
    }
)

_FULL_HISTORY: Final = (
    "Each subsequent run with the same session includes the full conversation history, allowing the agent to maintain "
    "context."
)
_SESSIONS_PAGE: Final = "https://openai.github.io/openai-agents-python/sessions/"
_OPENAI_AGENTS: Final[Mapping[str, Promise]] = MappingProxyType(
    {
        **_unserialised(
            Standing.UNSAFE,
            "Before each run: The runner automatically retrieves the conversation history for the session [...] After "
            "each run: All new items generated during the run [...] are automatically stored in the session.",
            _SESSIONS_PAGE,
            "openai_agents",
        ),
        "memory-growth": Promise(Standing.APP, _FULL_HISTORY, _SESSIONS_PAGE, "openai_agents_memory_growth"),
        "reference-cycle": Promise(
            Standing.UNSAFE,
            "Close the database connection.",
            "docstring of agents.SQLiteSession.close",
            "openai_agents_reference_cycle",
        ),
    }
)


_OF_ONE_KEY: Final = (
    "cross-user-data",
    "cross-user-update",
    "cross-user-answer",
    "cross-thread-data",
    "interference",
    "neighbour-touched",
    "used-after-end",
    "use-after-close",
    "wrong-report",
    "wrong-count",
    "failed-operation",
    "shared-object",
    "shared-run-id",
    "merged-identity",
    "aliased-input",
    "aliased-output",
    "lost-agent",
    "old-agent-found",
    "old-life-read",
    "old-life-wrote",
    "lost-write",
    "wrong-answer",
)


def _client_ids(quote: str, document: str, reproduction: str) -> Mapping[str, Promise]:
    """A key that two users chose is one conversation: what each finds there follows from it."""
    shared = Promise(Standing.APP, quote, document, reproduction)
    return MappingProxyType(dict.fromkeys(_OF_ONE_KEY, shared))


_AGENT_FRAMEWORK: Final[Mapping[str, Promise]] = MappingProxyType(
    {
        **_unserialised(
            Standing.APP,
            "Concurrent writers use last-writer-wins semantics.",
            "docstring of agent_framework.FileSessionStore, the same store on disk",
            "agent_framework",
        ),
        "memory-growth": Promise(
            Standing.APP,
            "The store has no eviction; callers that need TTLs [...] should provide another implementation [...]",
            "docstring of agent_framework.SessionStore",
            "agent_framework_memory_growth",
        ),
        "reference-cycle": Promise(
            Standing.UNSAFE,
            "Run the agent with the given messages and options.",
            "docstring of agent_framework.Agent.run",
            "agent_framework_reference_cycle",
        ),
    }
)
_ADK_DOCSTRING: Final = "docstring of google.adk.sessions.InMemorySessionService"
_ADK_PURPOSE: Final = (
    "It is not suitable for multi-threaded production environments. Use it for testing and development only."
)
_ADK_LEFT: Final = Promise(Standing.UNSAFE, _ADK_PURPOSE, _ADK_DOCSTRING, "google_adk_retained_object")
_GOOGLE_ADK: Final[Mapping[str, Promise]] = MappingProxyType(
    {
        **_unserialised(
            Standing.UNSAFE,
            "[...] this does not block new `run_async` calls for subsequent user queries, which can be started "
            "concurrently.",
            "docstring of google.adk.runners.Runner.run_async",
            "google_adk",
        ),
        "never-ends": Promise(
            Standing.UNSAFE,
            "abort_signal: Optional asyncio.Event to cancel the invocation.",
            "docstring of google.adk.runners.Runner.run_async",
            "google_adk_never_ends",
        ),
        "cancellation-lost": Promise(
            Standing.UNSAFE,
            "abort_signal: Optional asyncio.Event to cancel the invocation.",
            "docstring of google.adk.runners.Runner.run_async",
            "google_adk_cancellation_lost",
        ),
        "reference-cycle": Promise(
            Standing.UNSAFE,
            "Main entry method to run the agent in this runner.",
            "docstring of google.adk.runners.Runner.run_async",
            "google_adk_reference_cycle",
        ),
        "retained-object": _ADK_LEFT,
        "object-growth": _ADK_LEFT,
        "memory-growth": _ADK_LEFT,
    }
)
_ADK_STRIPPED: Final = Promise(Standing.UNSAFE, _ADK_PURPOSE, _ADK_DOCSTRING, "google_adk_joined_key")
_ADK_DELETED: Final = Promise(
    Standing.UNSAFE,
    "Deletes a session.",
    "docstring of google.adk.sessions.BaseSessionService.delete_session",
    "google_adk_old_handle_works",
)
_GOOGLE_ADK_CLIENT_IDS: Final[Mapping[str, Promise]] = MappingProxyType(
    {
        **_GOOGLE_ADK,
        **dict.fromkeys(("joined-key", "cross-thread-data", "wrong-thread"), _ADK_STRIPPED),
        **dict.fromkeys(("old-handle-works", "old-life-wrote"), _ADK_DELETED),
    }
)
_AGNO_DELETED: Final = Promise(
    Standing.UNSAFE,
    "Delete a session from in-memory storage.",
    "docstring of agno.db.in_memory.InMemoryDb.delete_session",
    "agno_old_handle_works",
)
_AGNO: Final[Mapping[str, Promise]] = MappingProxyType(
    {
        **_unserialised(
            Standing.UNSAFE,
            "Each session gets a unique session_id that ties together all the runs, chat history, state, and metrics "
            "for that conversation.",
            "https://docs.agno.com/sessions/overview",
            "agno",
        ),
        **dict.fromkeys(("old-handle-works", "old-life-read", "old-life-wrote", "old-agent-found"), _AGNO_DELETED),
        "reference-cycle": Promise(
            Standing.UNSAFE,
            "Delete a session from in-memory storage.",
            "docstring of agno.db.in_memory.InMemoryDb.delete_session",
            "agno_reference_cycle",
        ),
    }
)
_AGNO_OWNER: Final = Promise(
    Standing.UNSAFE,
    "Owner guard, mirroring the SQL adapters' ON CONFLICT ... WHERE clause: an owned session is only writable by its "
    "owner; an unowned session can be claimed by anyone.",
    "comment in agno.db.in_memory.InMemoryDb.upsert_session, which upsert_run does not follow",
    "agno_cross_user_data",
)
_AGNO_CLIENT_IDS: Final[Mapping[str, Promise]] = MappingProxyType(
    {
        **_AGNO,
        **dict.fromkeys(_OF_ONE_KEY, _AGNO_OWNER),
    }
)
_PYDANTIC_STORE: Final = "docstring of pydantic_ai.conversation_store.InMemoryConversationStore"
_PYDANTIC_AI: Final[Mapping[str, Promise]] = MappingProxyType(
    {
        "cost-grows": Promise(
            Standing.APP,
            "A ConversationStore that keeps everything in memory, for tests and examples.",
            _PYDANTIC_STORE,
            "pydantic_ai_cost_grows",
        ),
        "reference-cycle": Promise(
            Standing.UNSAFE,
            "Run the agent with a user prompt in async mode.",
            "docstring of pydantic_ai.Agent.run",
            "pydantic_ai_reference_cycle",
        ),
        "task-left": Promise(
            Standing.BROKEN,
            "if the caller cancels the run [...], this method receives an `asyncio.CancelledError`. Implementations "
            "that hold resources should handle cleanup accordingly.",
            "docstring of pydantic_ai.capabilities.AbstractCapability.wrap_run",
            "pydantic_ai_task_left",
        ),
    }
)
_PYDANTIC_TAKEN: Final = Promise(
    Standing.APP,
    "Raises: ConversationConflict: If [...] one with its `conversation_id` already exists when it wasn't loaded from "
    "the store, or it was saved with another `scope`.",
    "docstring of pydantic_ai.conversation_store.ConversationStore.save",
    "pydantic_ai_failed_operation",
)
_PYDANTIC_AGAIN: Final = Promise(
    Standing.APP,
    "A conversation deleted and created again under the same ID gets a new [revision], so a copy loaded before the "
    "delete can't be saved over it.",
    "docstring of pydantic_ai.conversation_store.ConversationRecord.revision",
    "pydantic_ai_old_handle_works",
)
_PYDANTIC_AI_CLIENT_IDS: Final[Mapping[str, Promise]] = MappingProxyType(
    {
        **_PYDANTIC_AI,
        **dict.fromkeys(("failed-operation", "interference", "lost-agent", "wrong-refusal"), _PYDANTIC_TAKEN),
        **dict.fromkeys(("old-handle-works", "old-life-wrote"), _PYDANTIC_AGAIN),
    }
)
_CREWAI: Final[Mapping[str, Promise]] = MappingProxyType(
    {
        **_unserialised(
            Standing.UNSAFE,
            "Conversational apps treat each user line as a new flow run with the same session id.",
            "https://docs.crewai.com/en/guides/flows/conversational-flows",
            "crewai",
        ),
        "reference-cycle": Promise(
            Standing.UNSAFE,
            "Once completed, it emits the FlowFinishedEvent and returns the final output.",
            "docstring of crewai.flow.flow.Flow.kickoff_async",
            "crewai_reference_cycle",
        ),
        "context-left": Promise(
            Standing.UNSAFE,
            "Once completed, it emits the FlowFinishedEvent and returns the final output.",
            "docstring of crewai.flow.flow.Flow.kickoff_async",
            "crewai_context_left",
        ),
    }
)
_CREWAI_CLIENT_IDS: Final = _client_ids(
    "This method performs state restoration (if an 'id' is provided and persistence is available) [...]",
    "docstring of crewai.flow.flow.Flow.kickoff_async",
    "crewai_cross_user_data",
)
_LANGGRAPH_CLIENT_IDS: Final = _client_ids(
    "The thread_id is the primary key used to store and retrieve checkpoints.",
    "https://reference.langchain.com/python/langgraph.checkpoint/base/BaseCheckpointSaver",
    "langgraph_saver_cross_user_data",
)
_OPENAI_CLIENT_IDS: Final = _client_ids(
    "Sessions store conversation history for a specific session [...]",
    _SESSIONS_PAGE,
    "openai_agents_cross_user_data",
)
_AGENT_FRAMEWORK_CLIENT_IDS: Final = _client_ids(
    "The store maps an opaque caller-selected ID to an AgentSession.",
    "docstring of agent_framework.SessionStore",
    "agent_framework_cross_user_data",
)

FRAMEWORKS: Mapping[str, Framework] = MappingProxyType(
    {
        "autogen_core": Framework(
            "lab_utils.targets.autogen_core:AutogenCoreTarget",
            "AutoGen Core",
            "autogen-core",
            "autogen",
            "autogen-core's SingleThreadedAgentRuntime, used as its documentation recommends",
            _AUTOGEN,
        ),
        "langgraph_saver": Framework(
            "lab_utils.targets.langgraph:LangGraphSaverTarget",
            "LangGraph",
            "langgraph",
            "langgraph",
            "LangGraph's conversations, kept by InMemorySaver",
            _LANGGRAPH_SAVER,
        ),
        "langgraph_store": Framework(
            "lab_utils.targets.langgraph:LangGraphStoreTarget",
            "LangGraph",
            "langgraph",
            "langgraph",
            "LangGraph's memories, kept by InMemoryStore",
            _LANGGRAPH_STORE,
        ),
        "openai_agents": Framework(
            "lab_utils.targets.openai_agents:OpenAIAgentsTarget",
            "OpenAI Agents SDK",
            "openai-agents",
            "openai-agents",
            "the OpenAI Agents SDK's conversations, kept by SQLiteSession",
            _OPENAI_AGENTS,
        ),
        "agent_framework": Framework(
            "lab_utils.targets.agent_framework:AgentFrameworkTarget",
            "Agent Framework",
            "agent-framework-core",
            "agent-framework",
            "Microsoft Agent Framework's sessions, kept by SessionStore",
            _AGENT_FRAMEWORK,
        ),
        "agent_framework_client_ids": Framework(
            "lab_utils.targets.agent_framework:AgentFrameworkClientIdsTarget",
            "Agent Framework",
            "agent-framework-core",
            "agent-framework",
            "Microsoft Agent Framework's sessions, kept by SessionStore; the client chooses the id",
            MappingProxyType({**_AGENT_FRAMEWORK, **_AGENT_FRAMEWORK_CLIENT_IDS}),
        ),
        "pydantic_ai": Framework(
            "lab_utils.targets.pydantic_ai:PydanticAITarget",
            "Pydantic AI",
            "pydantic-ai-slim",
            "pydantic-ai",
            "Pydantic AI's conversations, kept by InMemoryConversationStore",
            _PYDANTIC_AI,
        ),
        "pydantic_ai_client_ids": Framework(
            "lab_utils.targets.pydantic_ai:PydanticAIClientIdsTarget",
            "Pydantic AI",
            "pydantic-ai-slim",
            "pydantic-ai",
            "Pydantic AI's conversations, kept by InMemoryConversationStore; the client chooses the id",
            _PYDANTIC_AI_CLIENT_IDS,
        ),
        "google_adk": Framework(
            "lab_utils.targets.google_adk:GoogleADKTarget",
            "Google ADK",
            "google-adk",
            "google-adk",
            "Google ADK's sessions, kept by InMemorySessionService",
            _GOOGLE_ADK,
        ),
        "google_adk_client_ids": Framework(
            "lab_utils.targets.google_adk:GoogleADKClientIdsTarget",
            "Google ADK",
            "google-adk",
            "google-adk",
            "Google ADK's sessions, kept by InMemorySessionService; the client chooses the id",
            _GOOGLE_ADK_CLIENT_IDS,
        ),
        "agno": Framework(
            "lab_utils.targets.agno:AgnoTarget",
            "agno",
            "agno",
            "agno",
            "agno's sessions, kept by InMemoryDb",
            _AGNO,
        ),
        "agno_client_ids": Framework(
            "lab_utils.targets.agno:AgnoClientIdsTarget",
            "agno",
            "agno",
            "agno",
            "agno's sessions, kept by InMemoryDb; the client chooses the id",
            _AGNO_CLIENT_IDS,
        ),
        "langgraph_saver_client_ids": Framework(
            "lab_utils.targets.langgraph:LangGraphSaverClientIdsTarget",
            "LangGraph",
            "langgraph",
            "langgraph",
            "LangGraph's conversations, kept by InMemorySaver; the client chooses the id",
            MappingProxyType({**_LANGGRAPH_SAVER, **_LANGGRAPH_CLIENT_IDS}),
        ),
        "openai_agents_client_ids": Framework(
            "lab_utils.targets.openai_agents:OpenAIAgentsClientIdsTarget",
            "OpenAI Agents SDK",
            "openai-agents",
            "openai-agents",
            "the OpenAI Agents SDK's conversations, kept by SQLiteSession; the client chooses the id",
            MappingProxyType({**_OPENAI_AGENTS, **_OPENAI_CLIENT_IDS}),
        ),
        "crewai": Framework(
            "lab_utils.targets.crewai:CrewAITarget",
            "CrewAI",
            "crewai",
            "crewai",
            "CrewAI's flow states, kept by SQLiteFlowPersistence",
            _CREWAI,
        ),
        "crewai_client_ids": Framework(
            "lab_utils.targets.crewai:CrewAIClientIdsTarget",
            "CrewAI",
            "crewai",
            "crewai",
            "CrewAI's flow states, kept by SQLiteFlowPersistence; the client chooses the id",
            MappingProxyType({**_CREWAI, **_CREWAI_CLIENT_IDS}),
        ),
    }
)
"""Target name -> its framework. Several targets may be of one framework: those of one `title`."""
