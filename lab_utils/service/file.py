"""Reads a service file: how a server starts, the form of its requests, its users, and its promises."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError
from msgspec import Struct, field

from lab_utils.service import is_loopback
from lab_utils.service.filling import fields_of
from lab_utils.values.decoding import decodable
from lab_utils.values.profiles import UsageError

__all__ = [
    "PRESETS",
    "WORDS",
    "Bounds",
    "Identity",
    "Operation",
    "Promises",
    "ServiceFile",
    "parse_service",
    "read_service",
]

WORDS: Final = ("open", "write", "read", "list", "add", "total", "run", "stream", "end")
"""The lab's requests to a service. The file maps each word to a request; a word without one is not tried."""

PRESETS: Final = tuple(sorted(path.stem for path in (Path(__file__).parent / "presets").glob("*.toml")))
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_OF_A_SHELL: Final = re.compile(r"[$%]\{[^}]*\}")
_OF_A_START: Final = frozenset({"port", "folder", "work", "workers", "python"})
_OF_A_LOGIN: Final = frozenset({"user", "secret", "expires_in", "address"})
_BRACES: Final = "; braces of its own belong in a script that it calls"
_ALWAYS: Final = frozenset({"user", "token", "value", "amount", "session", "number", "last_id", "other", "cursor"})
_PLACES: Final = re.compile(r" - at `\$\.?(?P<place>[^`]*)`$")


class Operation(Struct, frozen=True, forbid_unknown_fields=True):
    """One word as a request. Texts are templates: `{session}`, `{user}`, `{value}`, and the values that `open` has
    extracted.

    `request`: method and path. `extract`: variable -> JMESPath into the JSON answer, or `header:Name`. `answer`:
    JMESPath to the answer's value; without it, an answer counts as a whole. `next`: JMESPath to the cursor of the next
    page, which is asked for with it as `{cursor}`. `ok`: statuses that mean done, if not 200
    to 299. `events`: how a stream's events are written. `tool`, `arguments`: an MCP tool in place of a request.
    """

    request: str = ""
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    form: dict[str, str] = field(default_factory=dict)
    extract: dict[str, str] = field(default_factory=dict)
    answer: str = ""
    next: str = ""
    ok: tuple[int, ...] = ()
    events: Literal["sse", "lines", "websocket"] = "sse"
    tool: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        return self.request.partition(" ")[0]

    @property
    def path(self) -> str:
        return self.request.partition(" ")[2].strip()


class Identity(Struct, frozen=True, forbid_unknown_fields=True):
    """How a user proves who they are.

    `headers` and `query`: sent with each request, with `{token}` or `{user}`. The token is `token` (a template), or the
    output of `token_command` (`{folder}`, `{user}`, `{expires_in}`, `{address}` in its words), or a JWT of `claims`,
    signed with `signing_key` by `algorithm`; or that of `accounts`, user -> token, where the server knows a fixed set
    of users; or the answer of `login`, a request with `{user}` and `{secret}` that extracts `token`. With a `login` or
    a `token_command`, `accounts` are user -> `{secret}`.
    """

    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    token: str = ""
    token_command: tuple[str, ...] = ()
    signing_key: str = ""
    algorithm: Literal["HS256", "HS384", "HS512"] = "HS256"
    claims: dict[str, Any] = field(default_factory=lambda: {"sub": "{user}"})
    accounts: dict[str, str] = field(default_factory=dict)
    login: Operation | None = None

    @property
    def sources(self) -> list[str]:
        """The keys that a token comes from; one, if the file is right."""
        found = [name for name in ("token", "token_command", "signing_key", "login") if getattr(self, name)]
        return found if set(found) & {"token_command", "login"} or not self.accounts else [*found, "accounts"]

    @property
    def can_expire(self) -> bool:
        """Whether the lab can make a token that has expired."""
        return bool(self.signing_key) or "expires_in" in fields_of(self.token_command)

    @property
    def without_expiry(self) -> str:
        """The part of a claim that is not tried with tokens that cannot expire, and why; "" where they can, or where
        there are none."""
        if self.can_expire or not self.sources:
            return ""
        return (
            f"expired tokens (the lab can make none with identity.{self.sources[0]}, but with a signing_key, or with "
            "{expires_in} in a token_command)"
        )


class Promises(Struct, frozen=True, forbid_unknown_fields=True):
    """The promises of the server. FAIL is a broken promise, or a leak that no promise allows.

    `identity`: "proved" (a credential that the server checks), "claimed" (any user may name any other: the app controls
    who reads a session), or "none" (the holder of a session's id has the session). `only_owner`: words that only a
    session's owner may use; by default all that the file maps, where identity is proved. `session_ids`: who chooses
    them; `session_id_grammar`: a regular expression that ids chosen by the client must match. `writes`: whether a
    session keeps all that is written or the last. `end_erases`: whether an ended session's data is gone; `retention_s`:
    seconds for which it may be kept all the same. `updates`: whether concurrent adds to one counter all count ("all"),
    or the last one wins ("last"). `resumes`: whether a stream that was dropped goes on after the last event that its
    client names. `own_events`: whether a stream has its own session's events only. `shared`: regular expressions of
    texts that all users see by design. `survives_restart`: whether written data is there after a restart.
    `latency_beside_burst_s`: the longest median wait of a user beside another one's burst. `stream_outlives_token_s`:
    the seconds for which a stream may go on after the token of its listener has expired. `run_outlives_caller_s`: the
    seconds for which a run may go on, and hold its session, after its caller has dropped the request; by default
    `bounds.deadline_s`.
    """

    identity: Literal["proved", "claimed", "none"] = "proved"
    only_owner: tuple[str, ...] | None = None
    session_ids: Literal["server", "client"] = "server"
    session_id_grammar: str = "[A-Za-z0-9_-]{1,64}"
    writes: Literal["append", "replace"] = "append"
    end_erases: bool = True
    retention_s: float = 0.0
    updates: Literal["all", "last"] = "all"
    resumes: bool = False
    own_events: bool = True
    shared: tuple[str, ...] = ()
    survives_restart: bool = False
    latency_beside_burst_s: float | None = None
    stream_outlives_token_s: float | None = None
    run_outlives_caller_s: float | None = None


class Bounds(Struct, frozen=True, forbid_unknown_fields=True):
    """The most that the lab sends to one start of the server, and how long one request may take in all."""

    requests: int = 20_000
    per_second: float = 1_000.0
    deadline_s: float = 10.0
    seconds: float = 600.0


class ServiceFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A service as its file describes it.

    `command` starts it, with `{port}`, `{folder}` (where the file is), `{work}` (the fresh folder that it runs in) and
    `{workers}`; or `address` is where one runs already. `ready` is a path that answers below 500 once it is ready;
    `ready_text` a regular expression that its output then matches; with neither, it is ready when its port accepts
    connections. `door`: `file.py:Class`, where a file is not enough. `preset`: operations of a known protocol, which
    the file's own replace or complete. `variables`: texts that templates may use by these names.
    """

    name: str
    operations: dict[str, Operation] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    address: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    ready: str = ""
    ready_text: str = ""
    ready_within_s: float = 60.0
    workers: int = 1
    preset: str = ""
    door: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    identity: Identity = field(default_factory=Identity)
    promises: Promises = field(default_factory=Promises)
    bounds: Bounds = field(default_factory=Bounds)
    secrets: tuple[str, ...] = ()
    folder: str = ""

    @property
    def is_mcp(self) -> bool:
        """Whether its words are tools of an MCP server."""
        return self.preset == "mcp" or any(one.tool for one in self.operations.values())

    def may(self, *words: str) -> bool:
        """Whether the file maps all of these words."""
        return all(word in self.operations for word in words)

    @property
    def names_users(self) -> bool:
        """Whether a request names its user beside the token: in a header, an address or a body."""
        of_all = [*self.identity.headers.values(), *self.identity.query.values()]
        headers = [template for template in of_all if "{token}" not in template]
        requests = [[one.request, one.query, one.headers, one.body, one.form] for one in self.operations.values()]
        return "user" in fields_of([headers, requests])

    @property
    def only_owner(self) -> tuple[str, ...]:
        """The words that only a session's owner may use."""
        if self.promises.only_owner is not None:
            return tuple(word for word in self.promises.only_owner if word in self.operations)
        about_sessions = ("read", "write", "add", "total", "run", "stream", "end")
        return tuple(w for w in about_sessions if w in self.operations) if self.promises.identity == "proved" else ()


decodable(ServiceFile)


def read_service(path: str | Path, *, allowed_hosts: Collection[str] = ()) -> ServiceFile:
    """Read and check a service file. Raises `UsageError`, which names the key and the remedy, for every problem."""
    place = Path(path)
    try:
        text = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: {reason}; `registry-lab new-service {path}` writes one to begin with") from error
    return parse_service(text, str(path), str(place.resolve().parent), allowed_hosts)


def parse_service(text: str, name: str, folder: str = "", allowed_hosts: Collection[str] = ()) -> ServiceFile:
    """The service that this text describes; `name` is how errors name the file."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name} is not TOML: {error}") from error
    problems = list(_unknown_keys(document))
    if problems:
        raise UsageError("\n  ".join([f"{name}:", *problems]))
    preset = document.get("preset", "")
    if preset and preset not in PRESETS:
        raise UsageError(f"{name}: preset = {preset!r}: known: {', '.join(PRESETS)}")
    if preset:
        document = _merged(tomllib.loads(_preset(preset)), document)
    try:
        service = msgspec.convert(document, ServiceFile, strict=True)
    except msgspec.ValidationError as error:
        raise UsageError(f"{name}: {_words(str(error), document)}") from error
    service = msgspec.structs.replace(service, folder=folder)
    problems = list(_problems(service, allowed_hosts))
    if problems:
        raise UsageError("\n  ".join([f"{name}:", *problems]))
    return service


def _preset(name: str) -> str:
    return (Path(__file__).parent / "presets" / f"{name}.toml").read_text(encoding="utf-8")


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The preset's tables with the file's own keys in their place; of an operation, the whole of it."""
    found = {**under, **over}
    for key in ("identity", "promises", "bounds", "operations", "variables"):
        if key in under and isinstance(over.get(key), Mapping):
            found[key] = {**under[key], **over[key]}
    return found


_TABLES: Final[Mapping[str, type[Struct]]] = {"identity": Identity, "promises": Promises, "bounds": Bounds}


def _unknown_keys(document: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each key that no file has, with the nearest one that it may have."""
    yield from _strangers("", document, [one for one in ServiceFile.__struct_fields__ if one != "folder"])
    for table, kind in _TABLES.items():
        if isinstance(document.get(table), Mapping):
            yield from _strangers(f"{table}.", document[table], kind.__struct_fields__)
    if isinstance(document.get("identity"), Mapping) and isinstance(
        login := document["identity"].get("login"), Mapping
    ):
        yield from _strangers("identity.login.", login, Operation.__struct_fields__)
    operations = document.get("operations")
    if isinstance(operations, Mapping):
        yield from _strangers("operations.", operations, WORDS)
        for word, operation in operations.items():
            if word in WORDS and isinstance(operation, Mapping):
                yield from _strangers(f"operations.{word}.", operation, Operation.__struct_fields__)


def _strangers(place: str, table: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            yield f"{place}{key} is no key of a service file; {hint}"


def _words(problem: str, document: Mapping[str, Any]) -> str:
    """A problem of the schema, its key first."""
    found = _PLACES.search(problem)
    if found is None:
        missing = re.search(r"missing required field `(\w+)`", problem)
        return f"{missing[1]} is missing; add {missing[1]} = ..." if missing else problem
    said = problem[: found.start()]
    place = found["place"]
    # The schema knows no names of words: the operation at fault is the first that it refuses.
    operations = document.get("operations")
    if place.startswith("operations[...]") and isinstance(operations, Mapping):
        word = next((word for word, one in operations.items() if not _is_operation(one)), "...")
        place = place.replace("operations[...]", f"operations.{word}", 1)
    key = place.rpartition(".")[2]
    remedy = f"change the value of {key}"
    if said.startswith("Invalid enum value"):
        remedy = f"known: {', '.join(_CHOICES.get(key, ()))}"
    return f"{place}: {said[0].lower()}{said[1:]}; {remedy}"


def _is_operation(value: object) -> bool:
    try:
        msgspec.convert(value, Operation, strict=True)
    except msgspec.ValidationError:
        return False
    return True


_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    name: get_args(hint)
    for kind in (Operation, Identity, Promises)
    for name, hint in get_type_hints(kind).items()
    if get_origin(hint) is Literal
}
"""The keys whose values are one of a few texts."""


def _problems(service: ServiceFile, allowed_hosts: Collection[str]) -> Iterator[str]:
    """Everything that is wrong with a file whose keys and types are right, a sentence each."""
    if bool(service.command) == bool(service.address):
        yield 'command or address: give one of the two: command = ["node", "server.js", "{port}"], or address = "http://127.0.0.1:8000"'
    if service.address:
        yield from _address_problems(service.address, allowed_hosts)
    elif not any("{port}" in word for word in (*service.command, *service.environment.values())):
        yield "command: the server is not given its port; add {port} to its words, or to a value of environment"
    if not service.operations:
        yield f"operations: none is mapped; add at least one of {', '.join(WORDS)}"
    if any(one.tool for one in service.operations.values()) and "open" not in service.operations:
        yield 'operations.open: tools need an MCP session; add preset = "mcp"'
    for word, operation in service.operations.items():
        # A tool may open a session, too; then its request is the handshake before it.
        handshake = {"tool": ""} if word == "open" and operation.tool and operation.request else {}
        checked = msgspec.structs.replace(operation, **handshake)
        yield from (f"operations.{word}.{problem}" for problem in _operation_problems(checked))
    yield from _variable_problems(service)
    yield from _promise_problems(service)
    yield from _identity_problems(service)
    if service.workers < 1:
        yield f"workers = {service.workers}: give 1 or more"


def _promise_problems(service: ServiceFile) -> Iterator[str]:
    stream = service.operations.get("stream")
    if service.promises.resumes and not (stream is None or stream.tool or service.door):
        if stream.events != "sse":
            yield (
                f'promises.resumes: events = "{stream.events}" has no ids that a client could name; if these are '
                'server-sent events, set events = "sse"; else set resumes = false, or let a door read the ids'
            )
        elif "last_id" not in fields_of(_templates(stream)):
            yield (
                "promises.resumes: operations.stream does not send the id of the last event, so no server can resume "
                'after it; add headers = { Last-Event-ID = "{last_id}" } to operations.stream, or set resumes = false'
            )
    for key, pattern in [
        *(("promises.shared", one) for one in service.promises.shared),
        ("promises.session_id_grammar", service.promises.session_id_grammar),
        ("ready_text", service.ready_text),
    ]:
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"{key}: {pattern!r} is no regular expression: {error}"
    if (seconds := service.promises.stream_outlives_token_s) is not None and not 0 <= seconds <= service.bounds.seconds:
        yield (
            f"promises.stream_outlives_token_s = {seconds:g}: give seconds from 0 to those of bounds.seconds "
            f"({service.bounds.seconds:g}), or leave it out, and streams are not asked when their token has expired"
        )
    if (seconds := service.promises.run_outlives_caller_s) is not None and not 0 <= seconds < service.bounds.seconds:
        yield (
            f"promises.run_outlives_caller_s = {seconds:g}: give seconds from 0 to less than those of bounds.seconds "
            f"({service.bounds.seconds:g}), or leave it out for those of bounds.deadline_s"
        )
    for word in service.promises.only_owner or ():
        if word not in WORDS:
            yield f"promises.only_owner: {word!r} is none of {', '.join(WORDS)}"


def _identity_problems(service: ServiceFile) -> Iterator[str]:
    identity = service.identity
    sources = identity.sources
    if identity.login is not None:
        yield from (f"identity.login.{problem}" for problem in _operation_problems(identity.login))
        if "token" not in identity.login.extract:
            yield 'identity.login.extract: the answer gives no token; add extract = { token = "token" }'
    if len(sources) > 1:
        yield f"identity: {' and '.join(sources)} are given; a token comes from one of them"
    if service.promises.identity == "proved" and not sources:
        yield (
            "identity: the server promises that identity is proved, but no token is described; add token, "
            'token_command, signing_key, accounts or login, or set promises.identity = "claimed" or "none"'
        )
    if sources and not (identity.headers or identity.query):
        yield (
            'identity.headers: the token is sent nowhere; add headers = { Authorization = "Bearer {token}" }, or '
            'query = { key = "{token}" } where addresses carry it'
        )


def _operation_problems(operation: Operation) -> Iterator[str]:
    if operation.tool:
        if operation.request:
            yield f"tool: a request is given too ({operation.request}); a word is one of them"
        return
    if operation.method not in _METHODS or not operation.path.startswith("/"):
        yield f'request: {operation.request!r}: write a method and a path: "POST /sessions/{{session}}"'
    if operation.body is not None and operation.form:
        yield "body: form is given too; a request has one of them"
    for name, expression in {**operation.extract, "answer": operation.answer, "next": operation.next}.items():
        if not expression or expression.startswith("header:"):
            continue
        try:
            jmespath.compile(expression)
        except JMESPathError as error:
            line = str(error).splitlines()[0]
            yield f"{name if name in ('answer', 'next') else f'extract.{name}'}: {expression!r} is no JMESPath: {line}"


def _templates(operation: Operation) -> list[Any]:
    """All texts of an operation in which variables stand."""
    return [operation.request, operation.query, operation.headers, operation.body, operation.form, operation.arguments]


def _variable_problems(service: ServiceFile) -> Iterator[str]:
    own = set(service.variables)
    known = _ALWAYS | own | {name for one in service.operations.values() for name in one.extract}
    for word, operation in service.operations.items():
        more = ", and the names in extract"
        yield from _unknown_variables(f"operations.{word}", _templates(operation), known, more)
    identity = service.identity
    for place, template, names in (
        ("command", _beside_shells(service.command), _OF_A_START),
        ("environment", _beside_shells(service.environment.values()), _OF_A_START),
        ("identity.headers", list(identity.headers.values()), {"user", "token"} | own),
        ("identity.query", list(identity.query.values()), {"user", "token"} | own),
        ("identity.token", identity.token, _OF_A_LOGIN | own),
        ("identity.token_command", _beside_shells(identity.token_command), _OF_A_LOGIN | {"folder", "python"} | own),
        ("identity.claims", identity.claims, {"user"} | own),
        ("identity.login", _templates(identity.login) if identity.login else (), _OF_A_LOGIN | own),
    ):
        is_command = place in ("command", "environment", "identity.token_command")
        yield from _unknown_variables(place, template, names, _BRACES if is_command else "")
    about_sessions = [one for word, one in service.operations.items() if word not in ("open", "list")]
    uses = any("session" in fields_of([one.request, one.query, one.headers, one.body]) for one in about_sessions)
    opening = service.operations.get("open")
    is_given = opening is not None and "session" in opening.extract
    if uses and service.promises.session_ids == "server" and not is_given and not service.is_mcp:
        yield (
            "operations.open.extract: requests use {session}, and no answer gives it; add extract = { session = "
            '"id" } to operations.open, or set promises.session_ids = "client"'
        )


def _beside_shells(words: Iterable[str]) -> list[str]:
    """The words of a command without the variables that are a shell's own, or its programs': `${name}`, `%{name}`."""
    return [_OF_A_SHELL.sub("", word) for word in words]


def _unknown_variables(place: str, template: Any, known: Collection[str], more: str = "") -> Iterator[str]:
    """A sentence for each variable that would be sent as it stands, with the nearest one that is known there."""
    for name in sorted(fields_of(template)):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean {{{near[0]}}}?" if near else ""
            yield f"{place}: {{{name}}} is not known there; known: {', '.join(sorted(known))}{more}{hint}"


def _address_problems(address: str, allowed_hosts: Collection[str]) -> Iterator[str]:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield f'address: {address!r} is no URL; write "http://127.0.0.1:8000"'
    elif not is_loopback(parts.hostname) and parts.hostname not in allowed_hosts:
        yield f"address: {parts.hostname} is not this machine; if you may test it, add --allow-host {parts.hostname}"
