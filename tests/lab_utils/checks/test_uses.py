"""Each check names the capabilities that its body asks about: `list checks --target` shows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from lab_utils.checks import CHECKS
from lab_utils.runner import run_check
from lab_utils.target import Capability
from lab_utils.targets import TARGETS
from lab_utils.values.profiles import CATEGORIES


class Asked(frozenset[Capability]):
    """Capabilities that remember which of them were asked about."""

    about: set[Capability]

    def __contains__(self, one: object) -> bool:
        self.about.add(Capability(str(one)))
        return super().__contains__(one)

    def issuperset(self, others: Iterable[object]) -> bool:
        others = list(others)
        self.about.update(map(Capability, map(str, others)))
        return super().issuperset(others)


def asking(base: Any, about: set[Capability]) -> Any:
    capabilities = Asked(base().capabilities)
    capabilities.about = about

    class Target(base):  # type: ignore[misc]
        pass

    Target.capabilities = capabilities
    return Target


# Those of limits and time are made of parts, whose needs say the same.
DIVIDED = "limits_and_time"
REGISTRIES = ("agent_registry", "reference")


@pytest.mark.parametrize("name", [name for name, check in CHECKS.items() if check.category not in (DIVIDED, "service")])
def test_a_check_names_what_it_asks_about(name: str) -> None:
    check, about = CHECKS[name], set[Capability]()
    least: dict[str, Any] = {}
    for parameter in CATEGORIES[check.category].parameters:
        if isinstance(parameter.smoke, int) and parameter.name != "patience":
            least[parameter.name] = (
                int(parameter.least) if parameter.least == 0 else min(parameter.smoke, max(4, int(parameter.least)))
            )
    for base in map(TARGETS.__getitem__, REGISTRIES):
        # Its findings are other tests' business: here it shares a process with them.
        result = run_check(name, target=asking(base, about), parameters=least, in_process=True)
        assert not result.traceback
    # The runner asks for its parts' needs, and whether it is a service; the trial asks about the model.
    about |= frozenset().union(*(part.needs for part in check.parts))
    always = {Capability.MODEL, Capability.SERVICE}
    assert about - check.needs - always == check.uses - always
