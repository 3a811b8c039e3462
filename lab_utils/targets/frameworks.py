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
    """The documentation is silent, and an app that follows its examples runs into it."""
    APP = "left to the app"
    """The documentation names it, or names the purpose of the part so that the app must guard it."""


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
    in, the extra that brings it, and a summary. `promises`: for each anomaly that the lab finds in it, the sentence of
    its documentation that bears on it."""

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

_DOUBLE_TEXTING: Final = (
    "Double texting is a feature of LangSmith Deployment. It is not available in the LangGraph open source framework."
)
_DOUBLE_TEXTING_PAGE: Final = "https://docs.langchain.com/langsmith/double-texting"
_STORE_PAGE: Final = "https://docs.langchain.com/oss/python/langgraph/stores"
_LANGGRAPH_SAVER: Final[Mapping[str, Promise]] = MappingProxyType(
    {
        "lost-update": Promise(Standing.APP, _DOUBLE_TEXTING, _DOUBLE_TEXTING_PAGE, "langgraph_saver_lost_update"),
        "stale-update": Promise(Standing.APP, _DOUBLE_TEXTING, _DOUBLE_TEXTING_PAGE, "langgraph_saver_stale_update"),
    }
)
_NO_UPDATE: Final = "Store or update an item in the store."
_NO_UPDATE_PAGE: Final = "docstring of langgraph.store.base.BaseStore.aput"
_STORE_SAME: Final = "InMemoryStore is suitable for development and testing."
_LANGGRAPH_STORE: Final[Mapping[str, Promise]] = MappingProxyType(
    {
        "lost-update": Promise(Standing.APP, _NO_UPDATE, _NO_UPDATE_PAGE, "langgraph_store_lost_update"),
        "stale-update": Promise(Standing.APP, _NO_UPDATE, _NO_UPDATE_PAGE, "langgraph_store_stale_update"),
        "aliased-input": Promise(Standing.UNSAFE, _STORE_SAME, _STORE_PAGE, "langgraph_store_aliased_input"),
        "aliased-output": Promise(Standing.UNSAFE, _STORE_SAME, _STORE_PAGE, "langgraph_store_aliased_output"),
    }
)

_FULL_HISTORY: Final = (
    "Each subsequent run with the same session includes the full conversation history, allowing the agent to maintain "
    "context."
)
_SESSIONS_PAGE: Final = "https://openai.github.io/openai-agents-python/sessions/"
_OPENAI_AGENTS: Final[Mapping[str, Promise]] = MappingProxyType(
    {
        "lost-update": Promise(Standing.UNSAFE, _FULL_HISTORY, _SESSIONS_PAGE, "openai_agents_lost_update"),
        "stale-update": Promise(Standing.UNSAFE, _FULL_HISTORY, _SESSIONS_PAGE, "openai_agents_stale_update"),
    }
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
            MappingProxyType({}),
        ),
        "agent_framework_client_ids": Framework(
            "lab_utils.targets.agent_framework:AgentFrameworkClientIdsTarget",
            "Agent Framework",
            "agent-framework-core",
            "agent-framework",
            "Microsoft Agent Framework's sessions, kept by SessionStore; the client chooses the id",
            MappingProxyType({}),
        ),
        "pydantic_ai": Framework(
            "lab_utils.targets.pydantic_ai:PydanticAITarget",
            "Pydantic AI",
            "pydantic-ai-slim",
            "pydantic-ai",
            "Pydantic AI's conversations, kept by InMemoryConversationStore",
            MappingProxyType({}),
        ),
        "pydantic_ai_client_ids": Framework(
            "lab_utils.targets.pydantic_ai:PydanticAIClientIdsTarget",
            "Pydantic AI",
            "pydantic-ai-slim",
            "pydantic-ai",
            "Pydantic AI's conversations, kept by InMemoryConversationStore; the client chooses the id",
            MappingProxyType({}),
        ),
        "google_adk": Framework(
            "lab_utils.targets.google_adk:GoogleADKTarget",
            "Google ADK",
            "google-adk",
            "google-adk",
            "Google ADK's sessions, kept by InMemorySessionService",
            MappingProxyType({}),
        ),
        "google_adk_client_ids": Framework(
            "lab_utils.targets.google_adk:GoogleADKClientIdsTarget",
            "Google ADK",
            "google-adk",
            "google-adk",
            "Google ADK's sessions, kept by InMemorySessionService; the client chooses the id",
            MappingProxyType({}),
        ),
        "agno": Framework(
            "lab_utils.targets.agno:AgnoTarget",
            "agno",
            "agno",
            "agno",
            "agno's sessions, kept by InMemoryDb",
            MappingProxyType({}),
        ),
        "agno_client_ids": Framework(
            "lab_utils.targets.agno:AgnoClientIdsTarget",
            "agno",
            "agno",
            "agno",
            "agno's sessions, kept by InMemoryDb; the client chooses the id",
            MappingProxyType({}),
        ),
        "langgraph_saver_client_ids": Framework(
            "lab_utils.targets.langgraph:LangGraphSaverClientIdsTarget",
            "LangGraph",
            "langgraph",
            "langgraph",
            "LangGraph's conversations, kept by InMemorySaver; the client chooses the id",
            MappingProxyType({}),
        ),
        "openai_agents_client_ids": Framework(
            "lab_utils.targets.openai_agents:OpenAIAgentsClientIdsTarget",
            "OpenAI Agents SDK",
            "openai-agents",
            "openai-agents",
            "the OpenAI Agents SDK's conversations, kept by SQLiteSession; the client chooses the id",
            MappingProxyType({}),
        ),
    }
)
"""Target name -> its framework. Several targets may be of one framework: those of one `title`."""
