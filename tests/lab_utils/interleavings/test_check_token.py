"""A token of a check says all that runs it again, survives a shell, and is refused where it was changed."""

from __future__ import annotations

import shlex

import pytest

from lab_utils.interleavings import BadToken, CheckToken


@pytest.mark.parametrize("target", ["agent_registry", "my.package:Target", "made.<locals>.Aimé~ $(x)"])
@pytest.mark.parametrize("parameters", [{}, {"users": 3, "usage_csv": "a b/ü.csv", "share": 0.5, "flag": True}])
def test_a_token_reads_back_as_it_was_written(target: str, parameters: dict[str, int | float | str | bool]) -> None:
    token = CheckToken("a_check", target, "smoke", 7, "lost-update", "0123456789ab", parameters)
    text = str(token)
    assert CheckToken.parse(text) == token
    assert CheckToken.is_one(text)
    assert shlex.split(text) == [text]
    assert not any(letter in text for letter in "$`*?[](){}<>|&;!#\"'\\ ")


@pytest.mark.parametrize(
    "change", [lambda text: text[:-1], lambda text: text.replace("~7~", "~8~"), lambda text: "rc1~"]
)
def test_a_token_that_was_changed_is_refused(change: object) -> None:
    text = str(CheckToken("a_check", "agent_registry", "smoke", 7, "lost-update", "0123456789ab"))
    assert callable(change)
    with pytest.raises(BadToken, match="copy it whole"):
        CheckToken.parse(change(text))
