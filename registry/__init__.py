"""An asyncio registry of per-user agents: isolated by construction, single by key, given back together."""

from registry.agent import AgentFactory, AgentRequest, AgentResult, AgentScope, BaseAgent
from registry.agent_registry import AgentRegistry
from registry.bridge import AgentWebSocketBridge, Connection
from registry.context import UserExecutionContext, create_isolated_execution_context, managed_user_context
from registry.errors import (
    AgentClosed,
    AgentCreationFailed,
    CapacityExceeded,
    ContextBoundaryError,
    DuplicateAgentType,
    EventPayloadError,
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
    ReentrantRun,
    RegistryClosed,
    RegistryError,
    RunFinished,
    SessionClosed,
    StepTimedOut,
    UncopyableValue,
    UnknownAgentType,
    UnknownTool,
    WrongEventLoop,
)
from registry.events import Event, EventType
from registry.lifecycle import AgentLifecycleManager
from registry.llm import Completion, LLMManager, Message, Prompt, ScriptedLLM
from registry.llm_openai import OpenAICompatibleLLM
from registry.plan import GOLDEN_PATH, Plan, PlanResult, Step, StepOutcome, StepStatus
from registry.runtime import Limits
from registry.session import UserAgentSession
from registry.supervisor import Supervisor
from registry.tools import USAGE_TOOLS, Tool, ToolContext, ToolDispatcher, ToolResult, usage_dispatcher_factory
from registry.usage_records import InMemoryUsage, UsageRecord, UsageSource
from registry.websocket import WebSocketManager

__all__ = [
    "GOLDEN_PATH",
    "USAGE_TOOLS",
    "AgentClosed",
    "AgentCreationFailed",
    "AgentFactory",
    "AgentLifecycleManager",
    "AgentRegistry",
    "AgentRequest",
    "AgentResult",
    "AgentScope",
    "AgentWebSocketBridge",
    "BaseAgent",
    "CapacityExceeded",
    "Completion",
    "Connection",
    "ContextBoundaryError",
    "DuplicateAgentType",
    "Event",
    "EventPayloadError",
    "EventType",
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
    "OpenAICompatibleLLM",
    "PermissionDenied",
    "Plan",
    "PlanError",
    "PlanFailed",
    "PlanResult",
    "Prompt",
    "ReentrantRun",
    "RegistryClosed",
    "RegistryError",
    "RunFinished",
    "ScriptedLLM",
    "SessionClosed",
    "Step",
    "StepOutcome",
    "StepStatus",
    "StepTimedOut",
    "Supervisor",
    "Tool",
    "ToolContext",
    "ToolDispatcher",
    "ToolResult",
    "UncopyableValue",
    "UnknownAgentType",
    "UnknownTool",
    "UsageRecord",
    "UsageSource",
    "UserAgentSession",
    "UserExecutionContext",
    "WebSocketManager",
    "WrongEventLoop",
    "create_isolated_execution_context",
    "managed_user_context",
    "usage_dispatcher_factory",
]
