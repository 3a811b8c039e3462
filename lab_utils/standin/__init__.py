"""Stand-ins for the servers that a registry talks to: real sockets on loopback, answers that can be set beforehand.

The server itself is in `lab_utils.standin.llm_server`, which the base install cannot import."""

from lab_utils.standin.script import Asked, Fault, Misbehaviour, Plan, Reply, seeded_faults

__all__ = ["Asked", "Fault", "Misbehaviour", "Plan", "Reply", "seeded_faults"]
