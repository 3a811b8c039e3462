"""An asyncio registry of per-user agents: isolated by construction, single by key, given back together."""

from importlib import import_module
from typing import TYPE_CHECKING

from registry._sessions.lifecycle import AgentLifecycleManager
from registry._sessions.reports import (
    AgentsReport,
    AllCleanupReport,
    AllUsersReport,
    CleanupReport,
    NoSessionReport,
    RegistryHealth,
    ResetReport,
    SessionMetrics,
    SweepReport,
    UserReport,
)
from registry._sessions.session import UserAgentSession
from registry.agent import AgentFactory, AgentRequest, AgentResult, AgentScope, BaseAgent
from registry.agent_registry import AgentRegistry
from registry.context import UserExecutionContext, create_isolated_execution_context, managed_user_context
from registry.errors import (
    AgentClosed,
    AgentCreationFailed,
    BadToken,
    CapacityExceeded,
    ContextBoundaryError,
    DuplicateAgentType,
    EventPayloadError,
    ExpiredToken,
    ForeignToken,
    InvalidAgent,
    InvalidIdentifier,
    InvalidParameters,
    InvalidUsageRecord,
    InvalidUserId,
    LLMFailed,
    LLMTimedOut,
    PermissionDenied,
    PlanError,
    PlanFailed,
    ReadOnlyContext,
    ReentrantCreate,
    ReentrantRun,
    RegistryClosed,
    RegistryError,
    RunFinished,
    SessionClosed,
    StepTimedOut,
    TokenError,
    UncopyableValue,
    UnknownAgentType,
    UnknownTool,
    UserCodeExited,
    WrongEventLoop,
)
from registry.events.bridge import AgentWebSocketBridge, Connection
from registry.events.manager import WebSocketManager
from registry.events.notify import NotifyBridge, NotifyManager
from registry.events.tokens import Grant, TokenSigner
from registry.events.types import BridgeSource, Event, EventBridge, EventType, Origin
from registry.events.wire import CloseCode, SocketLimits
from registry.limits import Limits
from registry.llm.base import LLM, Completion, LLMManager, Message, ModelHandle, ModelHandleSource, Prompt, ScriptedLLM
from registry.llm.openai import OpenAICompatibleLLM
from registry.supervisor import GOLDEN_PATH, AgentSource, Plan, PlanResult, Step, StepOutcome, StepStatus, Supervisor
from registry.tools import Dispatcher, DispatcherFactory, Tool, ToolContext, ToolDispatcher, ToolResult

__version__ = "0.2.0"
"""The version of the distribution; the build reads it here."""

if TYPE_CHECKING:
    from registry.usage.records import InMemoryUsage, UsageRecord, UsageSource
    from registry.usage.tools import USAGE_TOOLS, UsageToolContext, usage_dispatcher_factory
else:
    # Imported at their first use: `registry/usage/` is an application of the registry, which works without it.
    _OF_USAGE = {
        **dict.fromkeys(("InMemoryUsage", "UsageRecord", "UsageSource"), "registry.usage.records"),
        **dict.fromkeys(("USAGE_TOOLS", "UsageToolContext", "usage_dispatcher_factory"), "registry.usage.tools"),
    }

    def __getattr__(name):
        if name not in _OF_USAGE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_OF_USAGE[name]), name)
        return value


__all__ = [
    "GOLDEN_PATH",
    "LLM",
    "USAGE_TOOLS",
    "AgentClosed",
    "AgentCreationFailed",
    "AgentFactory",
    "AgentLifecycleManager",
    "AgentRegistry",
    "AgentRequest",
    "AgentResult",
    "AgentScope",
    "AgentSource",
    "AgentWebSocketBridge",
    "AgentsReport",
    "AllCleanupReport",
    "AllUsersReport",
    "BadToken",
    "BaseAgent",
    "BridgeSource",
    "CapacityExceeded",
    "CleanupReport",
    "CloseCode",
    "Completion",
    "Connection",
    "ContextBoundaryError",
    "Dispatcher",
    "DispatcherFactory",
    "DuplicateAgentType",
    "Event",
    "EventBridge",
    "EventPayloadError",
    "EventType",
    "ExpiredToken",
    "ForeignToken",
    "Grant",
    "InMemoryUsage",
    "InvalidAgent",
    "InvalidIdentifier",
    "InvalidParameters",
    "InvalidUsageRecord",
    "InvalidUserId",
    "LLMFailed",
    "LLMManager",
    "LLMTimedOut",
    "Limits",
    "Message",
    "ModelHandle",
    "ModelHandleSource",
    "NoSessionReport",
    "NotifyBridge",
    "NotifyManager",
    "OpenAICompatibleLLM",
    "Origin",
    "PermissionDenied",
    "Plan",
    "PlanError",
    "PlanFailed",
    "PlanResult",
    "Prompt",
    "ReadOnlyContext",
    "ReentrantCreate",
    "ReentrantRun",
    "RegistryClosed",
    "RegistryError",
    "RegistryHealth",
    "ResetReport",
    "RunFinished",
    "ScriptedLLM",
    "SessionClosed",
    "SessionMetrics",
    "SocketLimits",
    "Step",
    "StepOutcome",
    "StepStatus",
    "StepTimedOut",
    "Supervisor",
    "SweepReport",
    "TokenError",
    "TokenSigner",
    "Tool",
    "ToolContext",
    "ToolDispatcher",
    "ToolResult",
    "UncopyableValue",
    "UnknownAgentType",
    "UnknownTool",
    "UsageRecord",
    "UsageSource",
    "UsageToolContext",
    "UserAgentSession",
    "UserCodeExited",
    "UserExecutionContext",
    "UserReport",
    "WebSocketManager",
    "WrongEventLoop",
    "create_isolated_execution_context",
    "managed_user_context",
    "usage_dispatcher_factory",
]
