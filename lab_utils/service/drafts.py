"""Drafts of service files: which of a server's operations or tools each of the lab's words may be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from lab_utils.values.profiles import UsageError
from lab_utils.values.quantities import counted

if TYPE_CHECKING:
    from mcp.types import Tool

__all__ = ["Draft", "of_openapi", "of_tools"]

_TEXTS: Final = (
    "text",
    "content",
    "message",
    "note",
    "body",
    "value",
    "data",
    "input",
    "query",
    "prompt",
    "title",
    "name",
)
"""Names of properties that hold a free text, the likeliest first."""
_WRITES: Final = re.compile(
    r"write|remember|save|store|put|append|post|insert|create|note|add|set|update|log", re.IGNORECASE
)
_READS: Final = re.compile(r"read|recall|get|list|fetch|load|show|find|search|view|history", re.IGNORECASE)
_RUNS: Final = re.compile(r"run|ask|chat|complete|generate|invoke|execute|send|query", re.IGNORECASE)
_ENDS: Final = re.compile(r"delete|remove|clear|wipe|end|forget|drop", re.IGNORECASE)
_LOGINS: Final = re.compile(
    r"(?:log-?in|sign-?in|tokens?|auth|authenticate|authenti[cz]ation|authori[sz]e)(?![a-z])", re.IGNORECASE
)
"""How a path ends that takes a name and a password: /auth/login, and neither /auth/register nor /authors."""
_COUNTS: Final = re.compile(
    r"(?<![a-z])(?:count(?:er)?|sum|total|tally|balance|amount|points?|score|credit|delta|increment|by)s?(?![a-z])",
    re.IGNORECASE,
)
"""A word in the path or in the properties of a counter. Two other numbers, such as a width and a height, need not add
up."""
_PASSWORDS: Final = re.compile(r"pass|secret|pw", re.IGNORECASE)
_EXAMPLE: Final = "lab012345678901x000001z"
"""A text as the lab writes them."""
_PARAMETER: Final = re.compile(r"\{[^}]*\}")
_DEEPEST: Final = 6


@dataclass(frozen=True, slots=True)
class Draft:
    """A service file to be: `operations` by word, with the `reasons` for each guess; `others` are mapped to no word.

    `start` is where the server runs, or how it starts; `preset` that of its protocol.
    """

    name: str
    start: Mapping[str, Any]
    operations: Mapping[str, Mapping[str, Any]]
    reasons: Mapping[str, str]
    others: Sequence[str] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    login: Mapping[str, Any] = field(default_factory=dict)
    promises: Mapping[str, Any] = field(default_factory=dict)
    preset: str = ""

    def text(self, file: str) -> str:
        """The file. Each guess has its reason in a comment above it."""
        return "\n".join([*self._head(file), *self._identity(), *self._operations()]) + "\n"

    def _head(self, file: str) -> Iterator[str]:
        yield "# A service file, drafted from the server's own description. Each mapping is a guess to look at."
        yield f"# docs/services.md explains each key. Try it:  registry-lab check-service {file}"
        yield ""
        yield f"name = {_toml(self.name)}"
        if self.preset:
            yield f"preset = {_toml(self.preset)}"
        yield '# Better than an address: command = ["...", "{port}"]. The lab then starts it anew for each check.'
        yield from (f"{key} = {_toml(value)}" for key, value in self.start.items())

    def _identity(self) -> Iterator[str]:
        yield ""
        if self.headers and self.login:
            yield "# CHANGE the accounts: two users whom the server knows, and their passwords."
            yield "[identity]"
            yield f"headers = {_toml(self.headers)}"
            yield 'accounts = { ada = "password-of-ada", bob = "password-of-bob" }'
            yield "# guessed: it takes a password and answers with a token"
            yield f"login = {_toml(self.login)}"
            yield ""
        elif self.headers:
            yield "# CHANGE the accounts: two users whom the server knows, and their tokens."
            yield '# Or token = "{user}-secret", token_command = [...], signing_key = ...: see docs/services.md.'
            yield "[identity]"
            yield f"headers = {_toml(self.headers)}"
            yield 'accounts = { ada = "token-of-ada", bob = "token-of-bob" }'
            yield ""
        yield "[promises]"
        if not self.headers:
            yield '# The description names no credentials. "proved" and [identity] if there are some.'
            yield 'identity = "none"'
        yield from (f"{key} = {_toml(value)}" for key, value in self.promises.items())
        yield ""

    def _operations(self) -> Iterator[str]:
        yield "[operations]"
        for word, operation in self.operations.items():
            yield f"# guessed: {self.reasons[word]}"
            yield f"{word} = {_toml(operation)}"
        if self.others:
            yield "# Mapped to no word:"
            yield from (f"#   {other}" for other in self.others)


def of_openapi(document: Mapping[str, Any], start: Mapping[str, Any]) -> Draft:
    """The draft for an OpenAPI description. Schemathesis infers which operation makes a resource and which take its id.

    Raises `UsageError` where the description cannot be read, or describes no operation.
    """
    links, operations = _links(document)
    if not operations:
        raise UsageError("the OpenAPI description has no operation; is it the server's?")
    prefix = urlsplit(str((document.get("servers") or [{}])[0].get("url", ""))).path.rstrip("/")
    described = _Described(document, operations, prefix)
    found: dict[str, tuple[dict[str, Any], str]] = {}
    # The session is the resource that one operation makes, and the most others use.
    made = {key: uses for key, uses in links.items() if key[0] in ("POST", "PUT") and "{" not in key[1]}
    maker = max(made, key=lambda key: (len(made[key]), key), default=None)
    putter, below = described.put_by_clients()
    promises: dict[str, Any] = {}
    if putter is not None and len(below) > len(made[maker] if maker is not None else ()):
        parameter = _PARAMETER.findall(putter[1])[0][1:-1]
        text = described.text_of(putter)
        uses = {key: (_PARAMETER.findall(key[1])[0][1:-1], "") for key in below}
        why = f"its client chooses {parameter}, which {counted(len(below), 'other operation')} take"
        found["open"] = (described.request(putter, {}, parameter), why)
        described.words(putter, uses, found)
        if "write" not in found and text:
            # The resource is the text itself: to make it and to write it is the same request.
            del found["open"]
            found["write"] = (described.request(putter, {text: "{value}"}, parameter), f"{why}; {text} is a free text")
        promises["session_ids"] = "client"
    elif maker is not None:
        uses = made[maker]
        pointer = next(iter(uses.values()))[1]
        opening = described.request(maker, {}) | {"extract": {"session": pointer}}
        found["open"] = (opening, f"it makes a resource, whose {pointer} {len(uses)} other operations take")
        described.words(maker, uses, found)
    else:
        described.without_sessions(found)
    headers = _credentials(document)
    login = described.login() if headers else {}
    taken = {_PARAMETER.sub("{}", operation["request"]) for operation, _ in found.values()}
    taken |= {login["request"]} if login else set()
    others = [line for key in operations if _PARAMETER.sub("{}", line := described.line(key)) not in taken]
    reasons = {word: why for word, (_, why) in found.items()}
    writes = "append" if found.get("write", ({"request": "POST"}, ""))[0]["request"].startswith("POST") else "replace"
    promises |= {"writes": writes} if "write" in found else {}
    name = re.sub(r"[^a-z0-9]+", "-", str(document.get("info", {}).get("title", "service")).lower()).strip("-")
    mapped = {word: operation for word, (operation, _) in found.items()}
    return Draft(name or "service", start, mapped, reasons, others, headers, login, promises)


def _links(
    document: Mapping[str, Any],
) -> tuple[dict[tuple[str, str], dict[tuple[str, str], tuple[str, str]]], list[tuple[str, str]]]:
    """Producer -> consumer -> the consumer's path parameter, and the JMESPath of its value in the producer's answer."""
    try:
        import schemathesis
        from schemathesis.specs.openapi.stateful import dependencies
    except ImportError:
        remedy = "pip install 'agent-registry-lab[openapi]'"
        raise UsageError(f"schemathesis is not installed; OpenAPI descriptions need: {remedy}") from None
    try:
        graph = dependencies.analyze(schemathesis.openapi.from_dict(dict(document)))
        produced = list(graph.iter_links())
    except Exception as error:
        raise UsageError(f"the OpenAPI description cannot be read: {type(error).__name__}: {error}") from error
    links: dict[tuple[str, str], dict[tuple[str, str], tuple[str, str]]] = {}
    for one in produced:
        producer = _referred(one.producer_operation_ref)
        for link in one.links.values():
            consumer = _referred(link.operation_ref)
            places = [(name.removeprefix("path."), value.removeprefix("$response.body#/"))
                      for name, value in link.parameters.items() if name.startswith("path.")
                      and value.startswith("$response.body#/") and "*" not in value]  # fmt: skip
            if len(places) == 1 and len(_PARAMETER.findall(consumer[1])) == 1:
                parameter, pointer = places[0]
                links.setdefault(producer, {})[consumer] = (parameter, pointer.replace("/", "."))
    return links, [(node.method.upper(), node.path) for node in graph.operations.values()]


def _referred(reference: str) -> tuple[str, str]:
    path, _, method = reference.removeprefix("#/paths/").rpartition("/")
    return method.upper(), path.replace("~1", "/").replace("~0", "~")


def _collection(path: str) -> str:
    """The path of a collection, given its own or that of one of its items."""
    return path.rpartition("/")[0] if path.endswith("}") else path


def _last(path: str) -> str:
    """The last word of a path."""
    return path.rstrip("/").rpartition("/")[2]


def _apart(name: str) -> str:
    """A name whose words are joined by capitals, with lines between them."""
    return re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", name)


@dataclass(frozen=True, slots=True)
class _Described:
    """The operations of a description, as requests of a service file."""

    document: Mapping[str, Any]
    operations: Sequence[tuple[str, str]]
    prefix: str

    def line(self, key: tuple[str, str], parameter: str = "") -> str:
        path = key[1].replace(f"{{{parameter}}}", "{session}") if parameter else key[1]
        return f"{key[0]} {self.prefix}{path}"

    def request(self, key: tuple[str, str], texts: Mapping[str, str], parameter: str = "") -> dict[str, Any]:
        """The operation as a request, with a sample body in which these properties have these texts."""
        made: dict[str, Any] = {"request": self.line(key, parameter)}
        schema = self.body(key)
        if schema is not None:
            sample = self.sample(schema)
            made["body"] = {**sample, **texts} if isinstance(sample, dict) else sample
        return made

    def words(
        self,
        maker: tuple[str, str],
        uses: Mapping[tuple[str, str], tuple[str, str]],
        found: dict[str, tuple[dict[str, Any], str]],
    ) -> None:
        """Add the words that the consumers of one resource may be."""
        streams = [key for key in uses if self.streams(key)]
        counters = self.counters(uses)
        if counters:
            (adds, amount, whole), (totals, number) = counters
            change = self.request(adds, {amount: "{amount}"}, uses[adds][0]) | ({"answer": whole} if whole else {})
            found["add"] = (change, f"{amount} of its body is a number, and its path answers with one")
            found["total"] = (self.request(totals, {}, uses[totals][0]) | {"answer": number}, "same path as add")
        readers = [key for key in uses if key[0] == "GET" and key not in streams]
        readers = [key for key in readers if not counters or key != counters[1][0]]
        writers = [(key, text) for key in uses if key[0] in ("POST", "PUT", "PATCH") and (text := self.text_of(key))]

        def likely(writer: tuple[tuple[str, str], str]) -> tuple[bool, bool, int]:
            (method, path), text = writer
            return ("GET", path) in readers, method == "POST", -_TEXTS.index(text) if text in _TEXTS else -len(_TEXTS)

        if writers:
            key, text = max(writers, key=likely)
            found["write"] = (self.request(key, {text: "{value}"}, uses[key][0]), f"{text} of its body is a free text")
            # Written data is read at the same path, or with the resource itself.
            readers.sort(key=lambda one: (one[1] != key[1], len(one[1])))
            running = [one for one in writers if one[0] != key and one[0][0] == "POST"
                       and _RUNS.match(_last(one[0][1]))]  # fmt: skip
            for run, given in running[:1]:
                why = f"{_last(run[1])} names a run, on a text"
                found["run"] = (self.request(run, {given: "{value}"}, uses[run][0]), why)
        if readers:
            why = "same path as write" if writers and readers[0][1] == key[1] else "it takes the resource's id"
            found["read"] = (self.request(readers[0], {}, uses[readers[0]][0]), why)
        if streams:
            why = "it answers with server-sent events"
            found["stream"] = (self.request(streams[0], {}, uses[streams[0]][0]), why)
        collection = _collection(maker[1])
        if ("GET", collection) in self.operations:
            why = "same path as open" if collection == maker[1] else "its path is that of open, without the id"
            found["list"] = (self.request(("GET", collection), {}), why)
        ends = [key for key in uses if key[0] == "DELETE" and key[1].endswith("}")]
        if ends:
            found["end"] = (self.request(ends[0], {}, uses[ends[0]][0]), "it deletes the resource")

    def counters(
        self, uses: Mapping[tuple[str, str], Any]
    ) -> tuple[tuple[tuple[str, str], str, str], tuple[tuple[str, str], str]] | None:
        """The operation that adds to a counter, with the property of the added number and the JMESPath of the sum in
        its answer, "" if it has none; and the operation that reads the counter, with the JMESPath of its number. None
        without both."""
        for key in uses:
            reader = ("GET", key[1])
            if key[0] not in ("POST", "PATCH") or reader not in uses or self.text_of(key):
                continue
            given, read = self.numbers(self.body(key)), self.numbers(self.answer(reader))
            if given and read and any(_COUNTS.search(_apart(name)) for name in (_last(key[1]), given[0], read[0])):
                return (key, given[0], next(iter(self.numbers(self.answer(key))), "")), (reader, read[0])
        return None

    def numbers(self, schema: Mapping[str, Any] | None) -> list[str]:
        """The properties that are numbers; those that must be there first."""
        found = schema or {}
        properties = {name: self.resolved(one) for name, one in found.get("properties", {}).items()}
        names = [name for name, one in properties.items() if one.get("type") in ("integer", "number")]
        free = [name for name in names if "enum" not in properties[name]]
        return sorted(free, key=lambda name: name not in found.get("required", ()))

    def answer(self, key: tuple[str, str]) -> Mapping[str, Any]:
        """The schema of the JSON that an operation answers with when it is done."""
        answers = self.document["paths"][key[1]][key[0].lower()].get("responses", {})
        for status, one in answers.items():
            for kind, media in self.resolved(one).get("content", {}).items():
                if str(status).startswith("2") and "json" in kind:
                    return self.resolved(media.get("schema", {}))
        return {}

    def login(self) -> dict[str, Any]:
        """The request that takes a name and a password and answers with a token; empty without one."""
        for key in self.operations:
            if key[0] != "POST" or "{" in key[1] or not _LOGINS.search(_apart(_last(key[1]))):
                continue
            operation = self.document["paths"][key[1]]["post"]
            content = self.resolved(operation.get("requestBody", {})).get("content", {})
            kind = next((kind for kind in content if "json" in kind or "form-urlencoded" in kind), "")
            schema = self.resolved(content.get(kind, {}).get("schema", {}))
            texts = [name for name, one in schema.get("properties", {}).items()
                     if self.resolved(one).get("type") == "string"]  # fmt: skip
            secret = next((name for name in texts if _PASSWORDS.search(name)), "")
            name = next((name for name in texts if re.search(r"user|name|mail|login", name, re.IGNORECASE)), "")
            tokens = [one for one in self.answer(key).get("properties", {}) if "token" in one.lower()]
            if secret and name and tokens:
                needed = {one: text for one, text in self.sample(schema).items() if one in schema.get("required", ())}
                body = {**needed, name: "{user}", secret: "{secret}"}
                where = "body" if "json" in kind else "form"
                return {"request": self.line(key), where: body, "extract": {"token": tokens[0]}}
        return {}

    def streams(self, key: tuple[str, str]) -> bool:
        """Whether an operation answers with server-sent events."""
        answers = self.document["paths"][key[1]][key[0].lower()].get("responses", {})
        kinds = (kind for one in answers.values() for kind in self.resolved(one).get("content", {}))
        return key[0] == "GET" and any("event-stream" in kind for kind in kinds)

    def put_by_clients(self) -> tuple[tuple[str, str] | None, list[tuple[str, str]]]:
        """The PUT at an item of a collection that no POST makes items of, and the operations that take the item's id;
        that with the most of them. None where no operation takes the id of one."""
        best: tuple[tuple[str, str] | None, list[tuple[str, str]]] = (None, [])
        for key in self.operations:
            method, path = key
            if method != "PUT" or not path.endswith("}") or len(_PARAMETER.findall(path)) != 1:
                continue
            below = [one for one in self.operations if one != key and len(_PARAMETER.findall(one[1])) == 1
                     and (one[1] == path or one[1].startswith(f"{path}/"))]  # fmt: skip
            if ("POST", _collection(path)) not in self.operations and len(below) > len(best[1]):
                best = key, below
        return best

    def without_sessions(self, found: dict[str, tuple[dict[str, Any], str]]) -> None:
        """Add the operations there are, where none makes a resource that others take."""
        for key in self.operations:
            if key[0] == "POST" and "{" not in key[1] and (text := self.text_of(key)):
                found["run"] = (self.request(key, {text: "{value}"}), f"no operation makes a session; {text} is a text")
                return
        found["list"] = (self.request(self.operations[0], {}), "no operation makes a session; CHANGE it")

    def body(self, key: tuple[str, str]) -> Mapping[str, Any] | None:
        """The schema of an operation's JSON body."""
        operation = self.document["paths"][key[1]][key[0].lower()]
        content = self.resolved(operation.get("requestBody", {})).get("content", {})
        for kind, media in content.items():
            if "json" in kind:
                return self.resolved(media.get("schema", {}))
        return None

    def text_of(self, key: tuple[str, str]) -> str:
        """The property of an operation's body that is likeliest to hold a free text; "" without one."""
        properties = (self.body(key) or {}).get("properties", {})
        texts = [name for name, one in properties.items() if self.is_text(self.resolved(one))]
        return min(texts, key=lambda name: _TEXTS.index(name) if name in _TEXTS else len(_TEXTS), default="")

    @staticmethod
    def is_text(schema: Mapping[str, Any]) -> bool:
        plain = not any(key in schema for key in ("enum", "const", "format"))
        return schema.get("type") == "string" and plain and schema.get("maxLength", 99) >= 24 and _fits(schema)

    def resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        for _ in range(_DEEPEST):
            reference = str(schema.get("$ref", ""))
            if not reference.startswith("#/"):
                return schema
            found: Any = self.document
            for part in reference[2:].split("/"):
                found = found.get(part.replace("~1", "/").replace("~0", "~"), {})
            schema = found
        return {}

    def sample(self, schema: Mapping[str, Any], depth: int = 0) -> Any:
        """A value that the schema allows, as small as it may be."""
        schema = self.resolved(schema)
        for key in ("example", "default", "const"):
            if schema.get(key) is not None:
                return schema[key]
        for key in ("examples", "enum"):
            if schema.get(key):
                return schema[key][0]
        for key in ("anyOf", "oneOf", "allOf"):
            if schema.get(key):
                return self.sample(schema[key][0], depth + 1)
        kind = schema.get("type", "object")
        if kind == "object":
            wanted = schema.get("required", ()) if depth < _DEEPEST else ()
            return {name: self.sample(schema.get("properties", {}).get(name, {}), depth + 1) for name in wanted}
        if kind == "array":
            return [self.sample(schema.get("items", {}), depth + 1)] * int(schema.get("minItems", 0))
        return {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1), "boolean": False}.get(
            kind, "lab"
        )


def _fits(schema: Mapping[str, Any]) -> bool:
    """Whether the texts of the lab match the pattern of a schema, which is one of another language, nearly Python's."""
    try:
        return re.search(str(schema.get("pattern", "")), _EXAMPLE) is not None
    except re.error:
        return False


def _credentials(document: Mapping[str, Any]) -> dict[str, str]:
    """The header that carries a token, as the description has it; empty where it has none."""
    schemes = document.get("components", {}).get("securitySchemes", {}).values()
    for scheme in schemes:
        match scheme.get("type"), scheme.get("in"), str(scheme.get("scheme", "")).lower():
            case "apiKey", "header", _:
                return {str(scheme.get("name")): "{token}"}
            case "http", _, "basic":
                return {"Authorization": "Basic {token}"}
            case (("http" | "oauth2" | "openIdConnect"), _, _):
                return {"Authorization": "Bearer {token}"}
    return {}


def of_tools(name: str, tools: Sequence[Tool], path: str, start: Mapping[str, Any], *, proves: bool) -> Draft:
    """The draft for an MCP server with these tools at this path; `proves`: whether it was asked with credentials.

    A tool reads that its annotations call read-only, or its name; it writes if it takes a text and is neither called
    read-only nor destructive. Raises `UsageError` where no tool may be either.
    """
    found: dict[str, tuple[dict[str, Any], str]] = {}
    if path != "/mcp":
        extract = {"session": "header:mcp-session-id", "protocol": "header:mcp-protocol-version"}
        found["open"] = ({"request": f"POST {path}", "extract": extract}, "the path at which the tools were listed")

    def hinted(tool: Tool, hint: str) -> bool | None:
        return getattr(tool.annotations, hint, None) if tool.annotations is not None else None

    def text_of(tool: Tool) -> str:
        properties = tool.input_schema.get("properties", {})
        texts = [one for one, schema in properties.items() if _Described.is_text(schema)]
        return min(texts, key=lambda one: _TEXTS.index(one) if one in _TEXTS else len(_TEXTS), default="")

    def needs(tool: Tool) -> list[str]:
        return list(tool.input_schema.get("required", ()))

    def take(word: str, tool: Tool, why: str) -> None:
        arguments = _Described({}, (), "").sample(tool.input_schema)
        arguments |= {one: "{session}" for one in shared if one in arguments}
        if word in ("write", "run"):
            arguments[text_of(tool)] = "{value}"
        found[word] = ({"tool": tool.name} | ({"arguments": arguments} if arguments else {}), why)

    def best(tools: Sequence[Tool], names: re.Pattern[str], given: Sequence[str] = ()) -> Tool | None:
        """The likeliest by its name; of readers, one that needs no more than the writer is `given` comes first."""

        def rank(one: Tool) -> tuple[int, bool, bool, int]:
            more = len(set(needs(one)) - set(given)) if given else 0
            return more, not names.match(one.name), not names.search(one.name), len(needs(one))

        return min(tools, key=rank, default=None)

    readers = [one for one in tools if hinted(one, "read_only_hint") or (hinted(one, "read_only_hint") is None
               and _READS.search(one.name) and not _WRITES.match(one.name))]  # fmt: skip
    changing = [one for one in tools if one not in readers and text_of(one) and not _RUNS.match(one.name)
                and not (hinted(one, "destructive_hint") and not _WRITES.search(one.name))]  # fmt: skip
    writer = best(changing, _WRITES)
    reader = best(readers, _READS, needs(writer) if writer else ())
    # The arguments that both must have, beside the text, name the place: one place for each session.
    shared = (
        [one for one in needs(writer) if one in needs(reader) and one != text_of(writer)] if writer and reader else []
    )
    if writer:
        take("write", writer, f"not called read-only, and takes the text {text_of(writer)}")
    if reader:
        is_hinted = hinted(reader, "read_only_hint")
        take("read", reader, "its annotations call it read-only" if is_hinted else "its name is that of a read")
    running = [one for one in tools if one not in (writer, reader) and text_of(one) and _RUNS.match(one.name)]
    if runner := best(running, _RUNS):
        take("run", runner, f"its name runs something on the text {text_of(runner)}")
    ending = [one for one in tools if one not in (writer, reader) and set(needs(one)) == set(shared)
              and (hinted(one, "destructive_hint") or _ENDS.match(one.name))]  # fmt: skip
    if shared and ending:
        take("end", ending[0], f"it is called destructive, and takes the same {', '.join(shared)}")
    if not {"write", "read", "run"} & set(found):
        raise UsageError(f"none of the {len(tools)} tools takes a text or is called read-only; write the file by hand")
    taken = {operation.get("tool") for operation, _ in found.values()}
    others = [
        f"{one.name}({', '.join(one.input_schema.get('properties', {}))})" for one in tools if one.name not in taken
    ]
    reasons = {word: why for word, (_, why) in found.items()}
    headers = {"Authorization": "Bearer {token}"} if proves else {}
    mapped = {word: operation for word, (operation, _) in found.items()}
    return Draft(name, start, mapped, reasons, others, headers, {}, {}, "mcp")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        pairs = (f"{key if re.fullmatch(r'[A-Za-z0-9_-]+', key) else json.dumps(key)} = {_toml(one)}"
                 for key, one in value.items() if one is not None)  # fmt: skip
        inside = ", ".join(pairs)
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return json.dumps(value, ensure_ascii=False)
