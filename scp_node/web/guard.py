"""What a request passes first: where it comes from, how much it brings, and what a browser may do with the answer."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scp_node.settings import WebSettings, is_loopback

MOST_FORM_BYTES: Final = 65_536
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",  # for browsers that do not know frame-ancestors
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_HTTPS_ALONE: Final = "max-age=31536000"  # seconds in which a browser asks by https only (RFC 6797)
PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})  # asked by machines, which know us by other names
_CACHED: Final = "public, max-age=31536000, immutable"  # static files: their address names their contents
_ADDRESS: Final = "scp_node_address"
_FROM_PROXY: Final = "scp_node_from_proxy"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Guard:
    """The middleware before all others."""

    def __init__(self, app: ASGIApp, *, settings: WebSettings, large: Sequence[str] = (), most_large: int = 0) -> None:
        """Guard `app`; requests to the paths `large` may bring `most_large` bytes, others `MOST_FORM_BYTES`."""
        self._app = app
        self._settings = settings
        self._proxies = [ipaddress.ip_network(each, strict=False) for each in settings.trusted_proxies]
        self._is_tls = settings.certificate is not None
        self._host = urlsplit(settings.public_url).hostname
        self._large = frozenset(large)
        self._most_large = most_large

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        peer = _plain((scope.get("client") or ("", 0))[0])
        from_proxy = is_in(peer, self._proxies)
        scope[_FROM_PROXY] = from_proxy
        scope[_ADDRESS] = _forwarded(headers, peer, self._proxies) if from_proxy else peer
        if from_proxy and headers.get("x-forwarded-proto", "").lower() == "https":
            scope["scheme"] = "https"
        answer = _with_headers(send, scope)
        if refusal := self._refusal(scope, headers, peer):
            await PlainTextResponse(refusal[1], status_code=refusal[0])(scope, receive, answer)
            return
        most = self._most_large if scope["path"] in self._large else MOST_FORM_BYTES
        await self._app(scope, _bounded(receive, headers, most), answer)

    def _refusal(self, scope: Scope, headers: Headers, peer: str) -> tuple[int, str] | None:
        if told := self._in_the_clear(scope, headers, peer):
            return 403, told
        for name in (self._settings.header, self._settings.groups_header):
            if name and name in headers and not scope[_FROM_PROXY]:
                return 400, f"The header {name} comes from the proxy alone."
            if name and len(headers.getlist(name)) > 1:
                return 400, f"The header {name} is there twice."
        if not self._is_our_name(scope, headers):
            return 421, "This page has another name: see web.public_url."
        if scope["method"] not in SAFE_METHODS and not _is_same_origin(scope, headers, self._settings.public_url):
            return 403, "The request does not come from this page."
        return None

    def _in_the_clear(self, scope: Scope, headers: Headers, peer: str) -> str:
        """Return why what is asked would travel through a network in the clear; "" where it does not."""
        if self._is_tls or not peer:
            return ""
        if not scope[_FROM_PROXY]:
            if not is_loopback(peer):
                return "Passwords must not travel in the clear: ask the proxy, by https."
            if "x-forwarded-for" in headers or "forwarded" in headers:
                return "A proxy handed this on that is not in web.trusted_proxies."
            return ""
        if scope["scheme"] == "https" or is_loopback(scope[_ADDRESS]) or scope["path"] in PROBES:
            return ""
        return "Ask by https. (For the proxy: it has to set X-Forwarded-Proto to the scheme that it was asked by.)"

    def _is_our_name(self, scope: Scope, headers: Headers) -> bool:
        """Return whether the Host header names us: another site's name may lead a browser here (DNS rebinding).

        An address cannot be led elsewhere, and no browser adds a token. With a certificate of our own, or behind a
        proxy, and without public_url, names are theirs to check.
        """
        if scope["path"] in PROBES or "authorization" in headers:
            return True
        name = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if name == self._host or _is_address(name) or name in {"localhost", self._settings.host.lower()}:
            return True
        return self._host is None and (self._is_tls or bool(scope[_FROM_PROXY]))


def address_of(connection: HTTPConnection) -> str:
    """Return the IP address of who asks; behind a trusted proxy, what that says of it."""
    address: str = connection.scope.get(_ADDRESS, "")
    return address


def comes_from_proxy(connection: HTTPConnection) -> bool:
    """Return whether a trusted proxy handed the request on."""
    return bool(connection.scope.get(_FROM_PROXY))


def is_secure(connection: HTTPConnection) -> bool:
    """Return whether the browser asked by https."""
    return connection.scope.get("scheme") == "https"


def _plain(address: str) -> str:
    """Return an IPv4 address as such, where a socket for both kinds writes it as IPv6."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = known.ipv4_mapped if isinstance(known, ipaddress.IPv6Address) else None
    return str(mapped or known)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_in(address: str, networks: Sequence[Network]) -> bool:
    """Return whether an IP address, as text, is in one of the networks."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(known in network for network in networks)


def _forwarded(headers: Headers, peer: str, proxies: Sequence[Network]) -> str:
    """Return the last address of X-Forwarded-For that is no trusted proxy: what stands before it may be invented."""
    named = [_plain(each.strip()) for each in ",".join(headers.getlist("x-forwarded-for")).split(",")]
    for address in reversed([each for each in named if each]):
        if not is_in(address, proxies):
            return address[:64]
    return peer


def _is_same_origin(scope: Scope, headers: Headers, public_url: str) -> bool:
    """Return whether an unsafe request comes from our own page, or from no browser at all.

    Browsers say so by Sec-Fetch-Site, older ones by Origin (https://www.w3.org/TR/fetch-metadata/). Who sends neither
    is no browser that another page could have misled.
    """
    if site := headers.get("sec-fetch-site"):
        return site == "same-origin"
    origin = headers.get("origin")
    if origin is None:
        return True
    if public_url:
        return origin == public_url
    parsed = urlsplit(origin)
    return (parsed.scheme, parsed.netloc) == (scope.get("scheme"), headers.get("host"))


def _bounded(receive: Receive, headers: Headers, most: int) -> Receive:
    declared = headers.get("content-length", "")
    is_too_large = declared.isdecimal() and int(declared[:20]) > most
    received = 0

    async def take() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if is_too_large or received > most:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"At most {most} bytes.")
        return message

    return take


def _with_headers(send: Send, scope: Scope) -> Send:
    is_static = scope["path"].startswith("/static/")

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if is_static and message["status"] in {200, 304}:
                headers["cache-control"] = _CACHED
            protect(headers, is_https=scope["scheme"] == "https")
        await send(message)

    return answer


def protect(headers: MutableHeaders, *, is_https: bool) -> None:
    """Say to the browser what it may do with an answer."""
    for name, value in _HEADERS.items():
        headers[name] = value
    if is_https:
        headers["strict-transport-security"] = _HTTPS_ALONE
    headers.setdefault("cache-control", "no-store")
