"""Login by the site's single sign-on: OpenID Connect's authorization code flow, with PKCE (RFC 7636) and a nonce.

This module loads the libraries of the extra "oidc": only an application with [web.oidc] imports it.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import OAuth2Client
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from scp_node.secret_files import read_secret
from scp_node.settings import OidcSettings, SettingsError, is_safe_address
from scp_node.web.ports import Arrival, Departure, SignOnAwayError, SignOnError

RETURN_PATH: Final = "/login/oidc/back"
_DISCOVERY: Final = "/.well-known/openid-configuration"
_ALGORITHMS: Final = (  # with two keys: a token cannot be signed by what everybody knows
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "Ed25519",
    "EdDSA",
)
_ANSWER_SECONDS: Final = 10.0
_KNOWN_FOR_SECONDS: Final = 3_600.0  # metadata and keys
_KEYS_AGAIN_SECONDS: Final = 30.0  # between two looks for a key that is not known
_LEEWAY_SECONDS: Final = 60  # between two clocks
_MOST_BYTES: Final = 2**20
_LONGEST_SUBJECT: Final = 255  # characters (OpenID Connect Core 1.0, section 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Provider:
    authorization: str
    token: str
    methods: tuple[str, ...]  # by which we may show who we are
    keys: KeySet
    read_at: float  # time.monotonic()


class SingleSignOn:
    """The site's single sign-on, found by its issuer."""

    def __init__(self, settings: OidcSettings, public_url: str) -> None:
        """Ask nobody yet: the page starts while the single sign-on is away.

        Raises:
            SettingsError: the secret cannot be read, or others may read it; or the authority cannot be read.
        """
        self._settings = settings
        self._return = public_url + RETURN_PATH
        file = settings.client_secret_file
        self._secret = read_secret(file, "web.oidc.client_secret_file") if file else None
        try:
            self._tls = ssl.create_default_context(cafile=settings.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise SettingsError(f"web.oidc.ca_file: {settings.ca_file}: {error.strerror or error}") from error
        self._lock = threading.Lock()
        self._provider: _Provider | None = None

    def begin(self) -> Departure:
        """Return where the browser has to go to log in.

        Raises:
            SignOnAwayError: the single sign-on does not answer.
        """
        state, browser = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        provider = self._known()
        with self._client(provider) as client:
            address, _ = client.create_authorization_url(
                provider.authorization, state=state, nonce=_nonce(browser), code_verifier=_verifier(browser)
            )
        return Departure(address=address, state=state, browser=browser)

    def finish(self, code: str, browser: str) -> Arrival:
        """Return who has logged in, from the code that came back and what the browser holds in its cookie.

        Raises:
            SignOnError: the code or the token is not good.
            SignOnAwayError: the single sign-on does not answer.
        """
        provider = self._known()
        try:
            with self._client(provider) as client:
                answer: Mapping[str, Any] = client.fetch_token(
                    provider.token, code=code, code_verifier=_verifier(browser), grant_type="authorization_code"
                )
        except AuthlibBaseError as error:
            raise SignOnError(f"the code was refused: {error.error}") from error
        except (httpx.HTTPError, ValueError) as error:
            raise SignOnAwayError(f"no token: {type(error).__name__}") from error
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise SignOnError("the answer has no ID token")
        return self._arrival(self._claims(token, _nonce(browser)))

    def _claims(self, token: str, nonce: str) -> Mapping[str, Any]:
        """Return the claims of an ID token, checked as OpenID Connect Core 1.0 section 3.1.3.7 says."""
        try:
            try:
                read = jwt.decode(token, self._known().keys, algorithms=_ALGORITHMS)
            except (InvalidKeyIdError, ValueError):  # they have a new key
                read = jwt.decode(token, self._with_new_keys().keys, algorithms=_ALGORITHMS)
            client = self._settings.client_id
            jwt.JWTClaimsRegistry(
                leeway=_LEEWAY_SECONDS,
                iss={"essential": True, "value": self._settings.issuer},
                sub={"essential": True},
                aud={"essential": True, "value": client},
                exp={"essential": True},
                iat={"essential": True},
                nonce={"essential": True, "value": nonce},
            ).validate(read.claims)
        except (JoseError, ValueError, TypeError) as error:
            raise SignOnError(f"the ID token is not good: {error}") from error
        claims: Mapping[str, Any] = read.claims
        audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        if client not in audience or claims.get("azp", client) != client or (len(audience) > 1 and "azp" not in claims):
            raise SignOnError("the ID token is for somebody else")
        return claims

    def _arrival(self, claims: Mapping[str, Any]) -> Arrival:
        subject, name = claims["sub"], claims.get(self._settings.name_claim)
        if not isinstance(subject, str) or not 1 <= len(subject) <= _LONGEST_SUBJECT:
            raise SignOnError("the ID token names nobody")
        if not isinstance(name, str):
            raise SignOnError(f"the ID token has no claim {self._settings.name_claim}: see web.oidc.name_claim")
        given = claims.get(self._settings.groups_claim, [])
        groups = given if isinstance(given, list) else [given]
        return Arrival(
            subject=subject,
            name=name,
            groups=tuple(group.lstrip("/") for group in groups if isinstance(group, str)),  # Keycloak writes paths
        )

    def _client(self, provider: _Provider) -> OAuth2Client:
        return OAuth2Client(
            self._settings.client_id,
            self._secret,
            token_endpoint_auth_method=_method(provider.methods) if self._secret else "none",
            scope=" ".join(self._settings.scopes),
            redirect_uri=self._return,
            code_challenge_method="S256",
            verify=self._tls,
            timeout=_ANSWER_SECONDS,
        )

    def _known(self) -> _Provider:
        with self._lock:
            if self._provider is None or time.monotonic() > self._provider.read_at + _KNOWN_FOR_SECONDS:
                self._provider = self._read()
            return self._provider

    def _with_new_keys(self) -> _Provider:
        with self._lock:
            if self._provider is None or time.monotonic() > self._provider.read_at + _KEYS_AGAIN_SECONDS:
                self._provider = self._read()
            return self._provider

    def _read(self) -> _Provider:
        issuer = self._settings.issuer
        try:
            with httpx.Client(verify=self._tls, timeout=_ANSWER_SECONDS) as client:
                metadata = _object(client, issuer.rstrip("/") + _DISCOVERY)
                if metadata.get("issuer") != issuer:
                    raise SignOnAwayError(f"it calls itself {metadata.get('issuer')!r}: see web.oidc.issuer")
                keys = KeySet.import_key_set(_object(client, _address(metadata, "jwks_uri")))  # type: ignore[arg-type]
        except (httpx.HTTPError, httpx.InvalidURL, JoseError, ValueError, TypeError, KeyError) as error:
            raise SignOnAwayError(f"{type(error).__name__}: {error}") from error
        methods = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        return _Provider(
            authorization=_address(metadata, "authorization_endpoint"),
            token=_address(metadata, "token_endpoint"),
            methods=tuple(methods) if isinstance(methods, list) else (),
            keys=keys,
            read_at=time.monotonic(),
        )


def _object(client: httpx.Client, address: str) -> Mapping[str, Any]:
    with client.stream("GET", address) as answer:
        answer.raise_for_status()
        received = bytearray()
        for part in answer.iter_bytes():
            received += part
            if len(received) > _MOST_BYTES:
                raise SignOnAwayError(f"{address}: more than {_MOST_BYTES} bytes")
    found = httpx.Response(200, content=bytes(received)).json()
    if not isinstance(found, dict):
        raise SignOnAwayError(f"{address}: not an object of JSON")
    return found


def _address(metadata: Mapping[str, Any], name: str) -> str:
    found = metadata.get(name)
    if not isinstance(found, str) or not is_safe_address(found):
        raise SignOnAwayError(f"its {name} is not an address that begins with https://")
    return found


def _method(methods: tuple[str, ...]) -> str:
    return "client_secret_post" if methods and "client_secret_basic" not in methods else "client_secret_basic"


def _verifier(browser: str) -> str:
    """Return PKCE's secret: made of what the browser holds, it need not be kept."""
    return _derived("verifier", browser)


def _nonce(browser: str) -> str:
    return _derived("nonce", browser)


def _derived(what: str, browser: str) -> str:
    made = hashlib.sha256(f"{what} {browser}".encode()).digest()
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode("ascii")
