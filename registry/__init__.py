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
    InvalidUserId,
    PermissionDenied,
    PlanError,
    ReentrantRun,
    RegistryClosed,
    RegistryError,
    RunFinished,
    SessionClosed,
    UncopyableValue,
    UnknownAgentType,
    UnknownTool,
    WrongEventLoop,
)
from registry.events import Event, EventType
from registry.lifecycle import AgentLifecycleManager
from registry.llm import LLMManager, ScriptedLLM
from registry.runtime import Limits
from registry.session import UserAgentSession
from registry.tools import Tool, ToolDispatcher
from registry.websocket import WebSocketManager

__all__ = [
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
    "Connection",
    "ContextBoundaryError",
    "DuplicateAgentType",
    "Event",
    "EventPayloadError",
    "EventType",
    "InvalidAgent",
    "InvalidIdentifier",
    "InvalidUserId",
    "LLMManager",
    "Limits",
    "PermissionDenied",
    "PlanError",
    "ReentrantRun",
    "RegistryClosed",
    "RegistryError",
    "RunFinished",
    "ScriptedLLM",
    "SessionClosed",
    "Tool",
    "ToolDispatcher",
    "UncopyableValue",
    "UnknownAgentType",
    "UnknownTool",
    "UserAgentSession",
    "UserExecutionContext",
    "WebSocketManager",
    "WrongEventLoop",
    "create_isolated_execution_context",
    "managed_user_context",
]
