"""`registry-lab new-service`: writes a commented service file to begin with."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import lab_utils.service
from lab_utils.cli.exits import Exit
from lab_utils.service import is_loopback, require_extra
from lab_utils.values.profiles import UsageError
from lab_utils.values.texts import shown

if TYPE_CHECKING:
    from lab_utils.service.drafts import Draft

__all__ = ["arguments", "run"]

_SECONDS: Final = 15.0
_COMMAND: Final = ["CHANGE", "{folder}/server", "--port", "{port}"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `new-service`."""
    parser.add_argument("file", metavar="FILE", help="where to write it; there must be none")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--openapi",
        metavar="SOURCE",
        help="draft it from this OpenAPI description: a file, or the URL of a running server",
    )
    source.add_argument("--mcp", metavar="URL", help="draft it from the tools of the MCP server that runs at this URL")
    parser.add_argument(
        *("--header",),
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a header to ask the server with, such as 'Authorization: Bearer ...'; may be repeated",
    )
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="HOST", help="a host beside this machine; may be repeated"
    )


def run(options: argparse.Namespace) -> int:
    """Write the file. Raises `UsageError` where there is one, its folder is missing, or a draft's source fails."""
    place = Path(options.file)
    if place.exists():
        raise UsageError(f"{place}: there is one already; give another name")
    text = _text(options, str(place))
    try:
        with place.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"{place}: {error.strerror}") from error
    print(f"wrote {shown(place)}; change it, then: registry-lab check-service {shown(place)}")
    return Exit.PASSED


def _text(options: argparse.Namespace, file: str) -> str:
    if options.openapi is None and options.mcp is None:
        template = Path(lab_utils.service.__file__).with_name("template.toml").read_text(encoding="utf-8")
        return template.replace("{file}", file)
    require_extra()
    from lab_utils.service.file import parse_service

    headers = _headers(options.header)
    if options.mcp is not None:
        draft = _of_mcp(options.mcp, headers, options.allow_host)
    else:
        draft = _of_openapi(options.openapi, headers, options.allow_host)
    text = draft.text(file)
    # A draft that does not parse is the lab's own mistake; nobody is to mend it by hand.
    parse_service(text, file, allowed_hosts=options.allow_host)
    return text


def _headers(given: Sequence[str]) -> dict[str, str]:
    made = {}
    for header in given:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise UsageError(f"--header {header!r}: write it as 'Name: value'")
        made[name.strip()] = value.strip()
    return made


def _base(url: str, allowed: Sequence[str]) -> str:
    """The address of a URL that may be asked. Raises `UsageError`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url!r} is no URL; write http://127.0.0.1:8000/...")
    if not is_loopback(parts.hostname) and parts.hostname not in allowed:
        raise UsageError(f"{parts.hostname} is not this machine; if you may ask it, add --allow-host {parts.hostname}")
    return f"{parts.scheme}://{parts.netloc}"


def _of_openapi(source: str, headers: Mapping[str, str], allowed: Sequence[str]) -> Draft:
    from lab_utils.service.drafts import of_openapi

    start: dict[str, Any] = {"command": _COMMAND}
    if source.startswith(("http://", "https://")):
        import httpx

        start = {"address": _base(source, allowed)}
        try:
            answer = httpx.get(source, headers=dict(headers), timeout=_SECONDS, trust_env=False)
        except httpx.HTTPError as error:
            raise UsageError(f"{source}: {type(error).__name__}: {error}; does the server run?") from error
        if answer.status_code != 200:
            raise UsageError(f"{source}: status {answer.status_code}; is the description there? --header may be needed")
        text = answer.text
    else:
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{source}: {getattr(error, 'strerror', None) or error}") from error
    try:
        document = json.loads(text)
    except ValueError:
        import yaml

        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"{source} is neither JSON nor YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(document, dict) or not isinstance(document.get("paths"), dict):
        raise UsageError(f"{source} is no OpenAPI description: it has no paths")
    return of_openapi(document, start)


def _of_mcp(url: str, headers: Mapping[str, str], allowed: Sequence[str]) -> Draft:
    base = _base(url, allowed)
    try:
        import httpx2
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client
    except ImportError:
        raise UsageError("mcp is not installed; pip install 'agent-registry-lab[service]'") from None
    from lab_utils.service.drafts import of_tools

    async def listed() -> Draft:
        async with (
            asyncio.timeout(_SECONDS),
            httpx2.AsyncClient(headers=dict(headers), trust_env=False) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            tools = (await client.list_tools()).tools
            info = client.server_info
        name = info.name if info is not None else "mcp"
        return of_tools(name, tools, urlsplit(url).path or "/", {"address": base}, proves=bool(headers))

    try:
        return asyncio.run(listed())
    except UsageError:
        raise
    except Exception as error:
        first: BaseException = error
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if isinstance(first, UsageError):
            raise first from None
        reason = f"{type(first).__name__}: {first}".rstrip(": ")
        raise UsageError(
            f"{url}: no list of tools ({reason}); does an MCP server run there? --header may be needed"
        ) from error
