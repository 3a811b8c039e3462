"""A service file's errors name its faults, by key and with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

import lab_utils.service
from lab_utils.service.file import PRESETS, parse_service, read_service
from lab_utils.values.profiles import UsageError

GOOD = """
name = "notes"
command = ["node", "server.js", "{port}"]
[identity]
headers = { Authorization = "Bearer {token}" }
token = "{user}-secret"
[operations]
open = { request = "POST /s", extract = { session = "id" } }
write = { request = "POST /s/{session}", body = { text = "{value}" } }
read = { request = "GET /s/{session}" }
"""


def test_a_good_file_is_read_with_its_defaults() -> None:
    service = parse_service(GOOD, "service.toml")
    assert service.only_owner == ("read", "write")
    assert service.may("open", "write")
    assert not service.may("end")
    assert service.operations["write"].path == "/s/{session}"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name =", "nam =", ["nam is no key", "did you mean 'name'"]),
        ('"node", "server.js", "{port}"', '"node"', ["command", "{port}"]),
        ("command =", 'address = "http://127.0.0.1:1"\ncommand =', ["command or address"]),
        ('command = ["node", "server.js", "{port}"]', 'address = "http://example.com"', ["--allow-host example.com"]),
        ('command = ["node", "server.js", "{port}"]', 'address = "8000"', ["address", "no URL"]),
        ('command = ["node", "server.js", "{port}"]', 'command = "node {port}"', ["command", "expected"]),
        ("GET /s/{session}", "GET /s/{sesion}", ["operations.read", "{sesion}", "did you mean {session}"]),
        ("GET /s/{session}", "FETCH /s", ["operations.read.request", "FETCH"]),
        ('session = "id"', 'session = "id["', ["operations.open.extract.session", "JMESPath"]),
        (', extract = { session = "id" }', "", ["operations.open.extract", 'session_ids = "client"']),
        ("read =", "raed =", ["operations.raed", "did you mean 'read'"]),
        ('token = "{user}-secret"', "", ["promises.identity", "claimed"]),
        ('headers = { Authorization = "Bearer {token}" }', "", ["identity.headers", "sent nowhere"]),
        ('token = "{user}-secret"', 'token = "a"\nsigning_key = "b"', ["token and signing_key"]),
        ('token = "{user}-secret"', 'login = { request = "POST /login" }', ["identity.login.extract", "gives no token"]),
        ('token = "{user}-secret"', 'login = { request = "/login" }', ["identity.login.request", "a method and a path"]),
        ('token = "{user}-secret"', 'login = { path = "/login" }', ["identity.login.path is no key"]),
        ("[operations]", '[promises]\nidentity = "prooved"\n[operations]', ["promises.identity", "prooved"]),
        ("[operations]", '[promises]\nshared = ["("]\n[operations]', ["promises.shared", "regular expression"]),
        ("[operations]", '[promises]\nonly_owner = ["delete"]\n[operations]', ["promises.only_owner", "'delete'"]),
        ("[operations]", "[operations", ["is not TOML"]),
        ("name =", 'preset = "soap"\nname =', ["preset", "soap", "mcp"]),
        ('token = "{user}-secret"', 'token_command = ["make", "{user}", "{expires}"]', ["identity.token_command", "{expires}", "known: address,", "did you mean {expires_in}"]),
        ('token = "{user}-secret"', 'token = "{usr}-secret"', ["identity.token: {usr}", "did you mean {user}"]),
        ('"Bearer {token}"', '"Bearer {tokn}"', ["identity.headers: {tokn}", "did you mean {token}"]),
        ('headers = { Authorization = "Bearer {token}" }', 'query = { key = "{tokn}" }', ["identity.query: {tokn}", "did you mean {token}"]),
        ('headers = { Authorization = "Bearer {token}" }', '', ["identity.headers: the token is sent nowhere", "query = { key"]),
        ('token = "{user}-secret"', 'login = { request = "POST /in", body = { p = "{pasword}" }, extract = { token = "t" } }', ["identity.login: {pasword}", "secret"]),
        ('token = "{user}-secret"', 'signing_key = "k"\nclaims = { sub = "{usr}" }', ["identity.claims: {usr}"]),
        ('"{port}"]', '"{port}", "{prot}"]', ["command: {prot}", "braces of its own belong in a script", "did you mean {port}"]),
        ('name =', 'environment = { STORE = "{workdir}" }\nname =', ["environment: {workdir}", "did you mean {work"]),
        ('read = { request = "GET /s/{session}"', 'stream = { request = "GET /s/{session}", events = "SSE"', ["operations.stream.events", "SSE", "known: sse, lines, websocket"]),
        ('read = { request = "GET /s/{session}" }', 'read = "GET /s/{session}"', ["operations.read", "expected"]),
        ("[operations]", '[promises]\nwrites = "add"\n[operations]', ["promises.writes", "known: append, replace"]),
        ("[operations]", '[promises]\nresumes = true\n[operations]\nstream = { request = "GET /e/{session}" }', ["promises.resumes", "Last-Event-ID", "resumes = false"]),
        ("[operations]", "[promises]\nstream_outlives_token_s = -1.0\n[operations]", ["promises.stream_outlives_token_s", "0 to those of bounds.seconds (600)"]),
        ("[operations]", "[promises]\nrun_outlives_caller_s = -1.0\n[operations]", ["promises.run_outlives_caller_s", "0 to less than those of bounds.seconds (600)"]),
        ("[operations]", "[promises]\nrun_outlives_caller_s = 600.0\n[operations]", ["promises.run_outlives_caller_s = 600", "0 to less than"]),
        ("[operations]", '[promises]\nresumes = true\n[operations]\nstream = { request = "GET /e/{last_id}", events = "lines" }', ["promises.resumes", 'set events = "sse"', "resumes = false"]),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_with_key_and_remedy(old: str, new: str, words: list[str]) -> None:
    assert old in GOOD
    with pytest.raises(UsageError) as refused:
        parse_service(GOOD.replace(old, new, 1), "service.toml")
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('token = "{user}-secret"', 'token_command = ["{python}", "{folder}/mint.py", "{user}", "{expires_in}", "{address}"]'),
        ('"node", "server.js"', '"sh", "-c", "exec node ${script} {port}"'),
        ('token = "{user}-secret"', """token_command = ["sh", "-c", "curl -w '%{http_code}' {address}/login"]"""),
        ('name =', 'environment = { A = "{work}/{port}", B = "${home}" }\nname ='),
        ("[operations]", '[promises]\nresumes = true\n[operations]\nstream = { request = "GET /e/{session}", query = { after = "{last_id}" } }'),
        ("[operations]", "[promises]\nresumes = true\n[operations]"),
        ('token = "{user}-secret"', 'token = "{realm}/{user}"\n[variables]\nrealm = "north"'),
        ('headers = { Authorization = "Bearer {token}" }', 'query = { key = "{token}", as = "{user}" }'),
    ],
)  # fmt: skip
def test_variables_that_are_known_where_they_stand_are_no_problem(old: str, new: str) -> None:
    assert old in GOOD
    assert parse_service(GOOD.replace(old, new, 1), "service.toml").name == "notes"


def test_all_problems_are_named_at_once() -> None:
    text = GOOD.replace("{port}", "80").replace("GET", "FETCH").replace('"id"', '"id["')
    with pytest.raises(UsageError) as refused:
        parse_service(text, "service.toml")
    assert all(word in str(refused.value) for word in ("{port}", "FETCH", "JMESPath"))


def test_another_host_must_be_allowed_by_name() -> None:
    text = GOOD.replace('command = ["node", "server.js", "{port}"]', 'address = "http://example.com:80"')
    with pytest.raises(UsageError):
        parse_service(text, "service.toml", allowed_hosts=["example.org"])
    assert parse_service(text, "service.toml", allowed_hosts=["example.com"]).address == "http://example.com:80"


def test_a_missing_file_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="new-service"):
        read_service(tmp_path / "none.toml")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_needs_a_name_a_command_and_an_identity(preset: str) -> None:
    text = f'name = "a"\npreset = "{preset}"\ncommand = ["a", "{{port}}"]\n[promises]\nidentity = "claimed"\n'
    assert parse_service(text, "service.toml").operations


def test_the_files_that_the_lab_ships_are_right() -> None:
    room = Path(lab_utils.service.__file__).parent
    template = parse_service((room / "template.toml").read_text().replace("{file}", "a.toml"), "template.toml")
    planted = read_service(room / "planted" / "service.toml")
    assert {"open", "write", "read", "end"} <= template.operations.keys() & planted.operations.keys()
