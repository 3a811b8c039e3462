"""Judges a model's prompts: each holds data of the user who sent it, and of nobody else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lab_utils.values.canaries import cookie_of, opening
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["Sent", "own_prompts"]

_SHOWN = 60  # Characters of a prompt on each side of the foreign data.


@dataclass(frozen=True, slots=True)
class Sent:
    """One prompt as the model's server got it: its number, the user in whose name it came ("" for none), its text.

    The text is that of the whole request, whatever stands beside the messages included."""

    number: int
    user: str
    text: str


def own_prompts(prompts: Iterable[Sent], users: Iterable[str]) -> Verdict:
    """Judge that no prompt holds a canary (`workload.canary`) of another user than the one who sent it, nor the cookie
    that the model's server set for one.

    A prompt that came without a user may hold none at all. UNKNOWN unless each of the users sent a prompt with a canary
    of their own: a leak of a user who did not could not have been seen. Prompts without any canary are counted.
    """
    known = list(dict.fromkeys(users))
    findings: list[Finding] = []
    witnessed: set[str] = set()
    bore: set[tuple[str, str]] = set()
    own = bare = 0
    for prompt in prompts:
        writers = [user for user in known if opening(user) in prompt.text] if "canary<" in prompt.text else []
        bare += not writers
        for owner in known:
            if cookie_of(owner) in prompt.text and owner != prompt.user and (prompt.user, owner) not in bore:
                bore.add((prompt.user, owner))
                findings.append(_cookie(prompt, owner))
        for writer in writers:
            if writer == prompt.user:
                own += 1
                witnessed.add(writer)
            else:
                findings.append(_finding(prompt, writer))
    silent = [user for user in known if user not in witnessed]
    if not findings and (silent or not known):
        names = f" ({', '.join(map(repr, silent[:3]))})" if silent else ""
        return Verdict.unknown(
            f"{len(silent)} of {len(known)} users{names} sent no prompt with a canary of their own; {bare} held none"
        )
    what = f"prompts of {len(known)} users hold canaries of their senders and of nobody else ({bare} held none)"
    return Verdict.of(findings, own, what)


def _finding(prompt: Sent, writer: str) -> Finding:
    place = prompt.text.index(opening(writer))
    cut = prompt.text[max(0, place - _SHOWN) : place + len(writer) + _SHOWN]
    sender = repr(prompt.user) if prompt.user else "nobody named"
    sentence = f"a prompt of {sender} sent the model data of {writer!r}"
    return Finding("cross-user-prompt", sentence, (f"prompt {prompt.number}, from {sender}: ...{cut}...",))


def _cookie(prompt: Sent, owner: str) -> Finding:
    sender = repr(prompt.user) if prompt.user else "nobody named"
    sentence = f"a request of {sender} carried the cookie that the model's server had set for {owner!r}"
    return Finding("foreign-cookie", sentence, (f"prompt {prompt.number}, from {sender}: {cookie_of(owner)}",))
