"""The default agents, one file each, and the recipes by which a registry knows them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from registry.agent import AgentFactory
from registry.usage.agents.actions import ActionsAgent
from registry.usage.agents.corpus_admin import CorpusAdminAgent
from registry.usage.agents.data_helper import DataHelperAgent
from registry.usage.agents.goals_triage import GoalsTriageAgent
from registry.usage.agents.optimization import OptimizationAgent
from registry.usage.agents.reporting import ReportingAgent
from registry.usage.agents.synthetic_data import SyntheticDataAgent
from registry.usage.agents.triage import TriageAgent

__all__ = [
    "DEFAULT_AGENTS",
    "ActionsAgent",
    "CorpusAdminAgent",
    "DataHelperAgent",
    "DefaultAgent",
    "GoalsTriageAgent",
    "OptimizationAgent",
    "ReportingAgent",
    "SyntheticDataAgent",
    "TriageAgent",
]


class DefaultAgent(NamedTuple):
    """The arguments of `AgentRegistry.register` beside the name."""

    factory: AgentFactory
    requires: frozenset[str] = frozenset()


DEFAULT_AGENTS: Final[Mapping[str, DefaultAgent]] = MappingProxyType(
    {
        "triage": DefaultAgent(TriageAgent),
        "data_helper": DefaultAgent(DataHelperAgent),
        "optimization": DefaultAgent(OptimizationAgent),
        "goals_triage": DefaultAgent(GoalsTriageAgent),
        "actions": DefaultAgent(ActionsAgent),
        "reporting": DefaultAgent(ReportingAgent),
        "corpus_admin": DefaultAgent(CorpusAdminAgent, frozenset({"admin"})),
        "synthetic_data": DefaultAgent(SyntheticDataAgent),
    }
)
"""Every default agent by its type. All need the tools of `registry.usage.tools.usage_dispatcher_factory`."""
