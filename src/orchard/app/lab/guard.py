"""What every request passes first: host, origin and token checks, a bound on sizes, kept answers, and security headers.

A page of another site can make a browser send requests to loopback, and can point its own name at 127.0.0.1 (DNS rebinding).
Host names whom the browser believes to talk to, Origin and Sec-Fetch-Site which page asks; both have to be this server.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from orchard.app.lab.worker import refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_JSON_BYTES = 256 << 10
KEPT_PATHS = frozenset({"/api/v1/predict", "/api/v1/view"})
HEADERS = (
    (b"content-security-policy", b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
     b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)  # fmt: skip
_JSON = (b"content-type", b"application/json")
_NO_STORE = (b"cache-control", b"no-store")


class Kept:
    """Answers by request, least recently used first out; `most_bytes` bounds keys and bodies together."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self._found: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()

    def get(self, key: tuple[str, bytes]) -> bytes | None:
        body = self._found.get(key)
        if body is not None:
            self._found.move_to_end(key)
        return body

    def put(self, key: tuple[str, bytes], body: bytes) -> None:
        size = len(key[1]) + len(body)
        if size > self.most_bytes // 8 or key in self._found:
            return
        self._found[key] = body
        self.bytes += size
        while self.bytes > self.most_bytes:
            (_, old_key), old = self._found.popitem(last=False)
            self.bytes -= len(old_key) + len(old)

    def __len__(self) -> int:
        return len(self._found)


@dataclass(frozen=True, slots=True)
class Access:
    """`hosts`: names (without port) the server answers to; `token`: what the API asks for, None on loopback."""

    hosts: frozenset[str]
    token: str | None

    def problem(self, headers: dict[bytes, bytes], *, api: bool) -> tuple[int, str] | None:
        """Status and sentence for a request that may not pass, None for one that may."""
        host = headers.get(b"host", b"").decode("latin-1")
        if _name(f"http://{host}") not in self.hosts:
            return 421, f"the server does not answer to the host {host[:80]!r}"
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin.decode("latin-1")).netloc.lower() != host.lower():
            return 403, "requests from pages of another origin are refused"
        if api and headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
            return 403, "requests from pages of another site are refused"
        if api and self.token is not None:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self.token.encode()):
                return 401, "this server asks for its token: Authorization: Bearer ..."
        return None


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


class Guard:
    """ASGI application around `app`."""

    def __init__(self, app: App, access: Access, kept: Kept) -> None:
        self.app, self.access, self.kept = app, access, kept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        path: str = scope["path"]
        api = path.startswith("/api/")
        problem = self.access.problem(headers, api=api)
        if problem is not None:
            await _reply(send, problem[0], refusal(problem[1]))
        elif (api and scope["method"] in ("POST", "PATCH")) or (path in KEPT_PATHS and scope["method"] != "GET"):
            await self._with_body(scope, receive, send, headers)
        else:
            await self.app(scope, receive, _secured(send, api))

    async def _with_body(self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes]) -> None:
        """Read the whole body (bounded), answer from what is kept, or pass it on and keep the answer."""
        body = await _read(receive, headers)
        if body is None:
            sentence = f"the body is larger than {MOST_JSON_BYTES >> 10} KiB"
            return await _reply(send, 413, refusal(sentence))
        if body and not headers.get(b"content-type", b"").startswith(b"application/json"):
            return await _reply(send, 415, refusal("expected a body with content-type: application/json"))
        key = (scope["path"], body)
        found = self.kept.get(key) if scope["path"] in KEPT_PATHS else None
        if found is not None:
            return await _reply(send, 200, found)
        collected = bytearray()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and scope["path"] in KEPT_PATHS:
                collected.extend(message.get("body", b""))
            await send(message)

        await self.app(scope, _replay(body, receive), _secured(watched, True))
        if status == 200 and scope["path"] in KEPT_PATHS:
            self.kept.put(key, bytes(collected))
        return None


async def _read(receive: Receive, headers: dict[bytes, bytes]) -> bytes | None:
    try:
        declared = int(headers.get(b"content-length", b"0"))
    except ValueError:
        declared = 0
    if declared > MOST_JSON_BYTES:
        return None
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        body += bytes(message.get("body", b""))
        if len(body) > MOST_JSON_BYTES:
            return None
        if not message.get("more_body"):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _secured(send: Send, api: bool) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [*HEADERS, _NO_STORE] if api else HEADERS
            message["headers"] = [*message.get("headers", ()), *own]
        await send(message)

    return with_headers


async def _reply(send: Send, status: int, body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [_JSON, length, _NO_STORE, *HEADERS]})
    await send({"type": "http.response.body", "body": body})
