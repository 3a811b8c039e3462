"""A planted registry: a target wrong in exactly one way, and the anomaly that must be found on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lab_utils.target import Subscription, Target
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.reference import Bridge, Client, ReferenceTarget

__all__ = ["Planted", "planted_by"]


@dataclass(frozen=True, slots=True)
class Planted:
    """One defect. `make` builds the target; a check has caught it when it finds one of `anomalies` by that name.

    `twin` is the target without the defect, on which the same check passes.
    """

    name: str
    defect: str
    anomalies: frozenset[str]
    make: Callable[[], Target]
    twin: str

    def __post_init__(self) -> None:
        if not self.defect or not self.anomalies:
            raise ValueError(f"planted {self.name}: its docstring names the defect, and its row or `finds` an anomaly")


def planted_by(
    kind: type, *anomalies: str, twin: type | None = None, make: Callable[[], Target] | None = None
) -> Planted:
    """Describe a defect by its class, whose docstring is the defect in a sentence.

    `twin`: the class without the defect; by default the registry that the class derives from, which is our own or the
    reference. `make`: builds the target, where the class is only a part of one. A bridge or a client is given to the
    reference.
    """
    if twin is not None:
        right = f"{twin.__module__}:{twin.__name__}"
    else:
        right = "agent_registry" if issubclass(kind, AgentRegistryTarget) else "reference"
    if make is None and issubclass(kind, Bridge):
        make = partial(_Made, bridge=kind)
    elif make is None and issubclass(kind, Client):
        make = partial(_Made, client=kind)
    return Planted(kind.__name__, (kind.__doc__ or "").strip(), frozenset(anomalies), make or kind, right)


class _Made(ReferenceTarget):
    """The reference with bridges or clients of another class."""

    def __init__(self, bridge: type[Bridge] = Bridge, client: type[Client] = Client) -> None:
        super().__init__()
        self._bridge, self._client = bridge, client

    def make_bridge(self, user: str) -> Bridge:
        return self._bridge(user, self.clients_of(user))

    def subscribe(self, user: str) -> Subscription:
        client = self._client(user)
        self.clients_of(user).add(client)
        return client
