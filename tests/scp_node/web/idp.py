"""A small OpenID provider on loopback: discovery, keys, and a token endpoint that tells what a test wants."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

CLIENT: Final = "scp-node"
SECRET: Final = "a secret of a test"  # noqa: S105


class Provider:
    """What it knows of one login, and how it signs."""

    def __init__(self, issuer: str) -> None:
        """Begin with one key and nobody."""
        self.issuer = issuer
        self.key = ECKey.generate_key("P-256", {"kid": "one", "use": "sig"})
        self.published: list[ECKey | RSAKey] = [self.key]
        self.metadata: dict[str, Any] = {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
            "jwks_uri": f"{issuer}/keys",
        }
        self.claims: dict[str, Any] = {}
        self.changes: dict[str, Any] = {}  # of the claims of the next token
        self.sign_with: tuple[str, Any] = ("ES256", self.key)
        self.requests: list[dict[str, str]] = []
        self.challenge = ""

    def log_in(self, address: str, **claims: Any) -> tuple[str, str]:
        """Take a browser that was led here; return the code and the state that lead it back."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert address.startswith(f"{self.issuer}/authorize?")
        assert (asked["response_type"], asked["client_id"], asked["code_challenge_method"]) == ("code", CLIENT, "S256")
        self.challenge = asked["code_challenge"]
        now = int(time.time())
        self.claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "sub": "subject-1",
            "iat": now,
            "exp": now + 60,
            "nonce": asked["nonce"],
            "preferred_username": "Ada",
            **claims,
        }
        return "the-code", asked["state"]

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """Answer the token endpoint."""
        self.requests.append(form)
        verified = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        known = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if form["code"] != "the-code" or verified.decode() != self.challenge or authorization != f"Basic {known}":
            return 400, {"error": "invalid_grant"}
        claims = {name: value for name, value in {**self.claims, **self.changes}.items() if value is not None}
        return 200, {"access_token": "unused", "token_type": "Bearer", "id_token": self.signed(claims)}

    def signed(self, claims: dict[str, Any]) -> str:
        algorithm, key = self.sign_with
        if algorithm in {"none", "HS256"}:  # which no library signs so
            text = f"{_encoded({'alg': algorithm, 'kid': 'one'})}.{_encoded(claims)}"
            made = hmac.digest(key, text.encode(), "sha256") if key else b""
            return f"{text}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"
        header = {"alg": algorithm, "kid": getattr(key, "kid", None) or "one"}
        return jwt.encode(header, claims, key, algorithms=[algorithm])

    def confused(self) -> None:
        """Sign by the public key as if it were a shared secret, which everybody can."""
        self.sign_with = ("HS256", self.key.as_pem(private=False))


def _encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


@contextmanager
def provider() -> Iterator[Provider]:
    """Run a provider."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    found = Provider(f"http://127.0.0.1:{server.server_port}")
    server.provider = found  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known: Provider = self.server.provider  # type: ignore[attr-defined]
        if self.path == "/.well-known/openid-configuration":
            self._answer(200, known.metadata)
        else:
            self._answer(200, {"keys": [key.as_dict(private=False) for key in known.published]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        known: Provider = self.server.provider  # type: ignore[attr-defined]
        self._answer(*known.token(form, self.headers.get("authorization", "")))

    def _answer(self, status: int, told: dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
