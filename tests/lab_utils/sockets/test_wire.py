"""An event's text is read as it came, and the faults of the text itself are reported."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab_utils.sockets.wire import delivered
from lab_utils.target import Delivered

EVENT: dict[str, Any] = {
    "stream": "s1",
    "seq": 3,
    "type": "agent_thinking",
    "user_id": "ada",
    "thread_id": "main",
    "run_id": "r1",
    "agent_type": "helper",
    "agent_id": "a1",
    "payload": {"thought": "x"},
}


def text(**fields: Any) -> str:
    return json.dumps({**EVENT, **fields})


def flaws(text: str) -> list[str]:
    return [anomaly for anomaly, _ in delivered(text, "s1").flaws]


def test_every_field_is_where_it_belongs() -> None:
    found = delivered(text(), "s0")
    expected = Delivered("ada", 3, "agent_thinking", "helper", "r1", '{"thought": "x"}', "s1", "main", "a1")
    assert found == expected
    assert found.greeted == "s0"


@pytest.mark.parametrize(
    "body",
    ['{"thought":"x"}', '{ "thought" : "\\u0078" }', '{"thought": "\\"payload\\": {}"}', "{}", "[1, 1.0]", "null"],
)
def test_a_payload_is_kept_byte_for_byte(body: str) -> None:
    found = delivered(text(payload=0).replace('"payload": 0', f'"payload":  {body}'), "s1")
    assert (found.body, found.flaws) == (body, ())


@pytest.mark.parametrize(
    ("wrong", "anomaly", "told"),
    [
        (text()[:-1] + ', "user_id": "ada"}', "repeated-name", "'user_id'"),
        (text().replace('{"thought"', '{"thought": "y", "thought"'), "repeated-name", "'thought'"),
        (text(payload={"a": [{"b": 0}]}).replace('{"b"', '{"b": 1, "b"'), "repeated-name", "'b'"),
        (text()[:-1] + ', "payload": {"thought": "x"}}', "repeated-name", "'payload'"),
        (text(trace="t", host="h"), "extra-field", "'host', 'trace'"),
        (text(run_id=5), "malformed-field", "run_id 5"),
        (text(stream=["s1"]), "malformed-field", "stream ['s1']"),
        (json.dumps({name: value for name, value in EVENT.items() if name != "user_id"}), "malformed-field", "user_id"),
    ],
)
def test_what_is_wrong_with_the_text_is_named(wrong: str, anomaly: str, told: str) -> None:
    ((found, sentence),) = delivered(wrong, "s1").flaws
    assert found == anomaly
    assert told in sentence


def test_a_name_in_two_objects_is_in_order() -> None:
    assert flaws(text(payload={"type": "x", "inner": {"type": "y"}, "list": [{"type": "z"}, {"type": "z"}]})) == []


def test_each_flaw_is_told() -> None:
    assert flaws(text(run_id=5, trace="t")[:-1] + ', "seq": 3}') == ["repeated-name", "extra-field", "malformed-field"]


def test_the_payload_that_counts_for_json_is_the_one_that_is_kept() -> None:
    assert delivered(text()[:-1] + ', "payload": {"thought": "y"}}', "s1").body == '{"thought": "y"}'


def test_what_is_no_object_is_no_event() -> None:
    with pytest.raises(ValueError, match="must be a JSON object"):
        delivered("[]", "s1")
