"""Stand-ins for the servers that a registry talks to: real sockets on loopback, answers that can be set beforehand."""

from lab_utils.standin.llm_server import StandInLLM
from lab_utils.standin.script import Asked, Fault, Misbehaviour, Plan, Reply, seeded_faults

__all__ = ["Asked", "Fault", "Misbehaviour", "Plan", "Reply", "StandInLLM", "seeded_faults"]
