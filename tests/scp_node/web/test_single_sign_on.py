"""Login by a single sign-on: who comes from there, and every token that is not good."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from httpx2 import Response
from joserfc.jwk import ECKey, RSAKey

from scp_node.ledger import PersonRole
from scp_node.settings import OidcSettings, SettingsError
from scp_node.web import single_sign_on
from scp_node.web.ports import SignOnAwayError
from scp_node.web.single_sign_on import SingleSignOn
from tests.scp_node.ledger_node import Node, ledger_engine
from tests.scp_node.web.idp import SECRET, Provider, provider
from tests.scp_node.web.site import ORIGIN, PASSWORD, TESTER, Page, page_before

GROUPS: Final = {"admin_groups": ["ai-admins"], "viewer_groups": ["staff"]}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, Provider]]:
    folder = tmp_path_factory.mktemp("oidc")
    secret = folder / "secret"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o600)
    with provider() as idp, ledger_engine(folder / "ledger.sqlite3") as engine:
        oidc = {"issuer": idp.issuer, "client_secret_file": str(secret), "label": "Hospital login"}
        web = {"public_url": ORIGIN, "oidc": oidc, **GROUPS}
        with page_before(Node(engine), folder, web=web) as page:
            yield page, idp


@pytest.fixture
def site(opened: tuple[Page, Provider]) -> tuple[Page, Provider]:
    page, idp = opened
    page.client.cookies.clear()
    page.client.app.state.sign_on._provider = None  # type: ignore[attr-defined]
    idp.changes, idp.sign_with, idp.published = {}, ("ES256", idp.key), [idp.key]
    return opened


def come_back(page: Page, idp: Provider, **claims: Any) -> Response:
    """Log in there and come back; `claims` are those of the ID token."""
    there = page.get("/login/oidc?next=/persons?x=1")
    assert there.status_code == 303
    code, state = idp.log_in(there.headers["location"], **{"groups": ["staff"], **claims})
    return page.get(f"/login/oidc/back?{urlencode({'code': code, 'state': state})}")


def test_who_logs_in_there_is_logged_in_here_with_the_role_of_their_groups(site: tuple[Page, Provider]) -> None:
    page, idp = site
    assert "Hospital login" in page.get("/login").text
    answer = come_back(page, idp, groups=["/ai-admins", "others"])
    assert (answer.status_code, answer.headers["location"]) == (303, "/persons?x=1")
    assert page.get("/persons").status_code == 200
    person = page.site.ledger.people.named("ada")
    assert person
    assert (person.role, person.origin) == (PersonRole.ADMIN, "oidc")
    page.client.cookies.clear()
    come_back(page, idp, groups="staff")  # one group, as some write it: and taken out of the other
    assert page.get("/persons").status_code == 403


def test_who_is_in_no_group_is_refused_and_noted(site: tuple[Page, Provider]) -> None:
    page, idp = site
    answer = come_back(page, idp, groups=["others"], sub="subject-2", preferred_username="eve")
    assert (answer.status_code, "eve is in none of the groups" in answer.text) == (403, True)
    assert page.site.ledger.people.named("eve") is None
    assert page.events("web-login-failed")[-1]["by"] == "eve"
    assert come_back(page, idp, groups=None, sub="subject-2").status_code == 403


def test_a_local_name_is_not_taken_over(site: tuple[Page, Provider]) -> None:
    page, idp = site
    if page.site.ledger.people.named("root") is None:
        page.add("root", PersonRole.ADMIN)
    answer = come_back(page, idp, sub="subject-3", preferred_username="ROOT", groups=["ai-admins"])
    assert (answer.status_code, "root is somebody who does not log in by oidc" in answer.text) == (403, True)


def test_a_local_login_stays_for_admins(site: tuple[Page, Provider]) -> None:
    page, _ = site
    people = page.site.ledger.people
    if people.named("local") is None:
        page.add("local", PersonRole.ADMIN)
    assert page.client.post("/login", data={"name": "local", "password": PASSWORD}).status_code == 303


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another-client"},
        {"aud": ["scp-node", "another-client"]},  # without azp
        {"aud": ["scp-node", "another-client"], "azp": "another-client"},
        {"azp": "another-client"},
        {"aud": None},
        {"iss": "http://127.0.0.1:1"},
        {"exp": int(time.time()) - 120},
        {"exp": None},
        {"iat": None},
        {"iat": int(time.time()) + 3_600},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
        {"sub": 7},
        {"preferred_username": None},
        {"preferred_username": ["ada"]},
    ],
)
def test_a_token_with_wrong_claims_logs_nobody_in(site: tuple[Page, Provider], changes: dict[str, Any]) -> None:
    page, idp = site
    idp.changes = changes
    answer = come_back(page, idp)
    assert answer.status_code == 403
    assert "did not log you in" in answer.text
    assert page.get("/persons").status_code == 303  # to the login


@pytest.mark.parametrize("way", ["none", "confused", "another key", "another key of the same name"])
def test_a_token_that_they_did_not_sign_logs_nobody_in(site: tuple[Page, Provider], way: str) -> None:
    page, idp = site
    if way == "none":
        idp.sign_with = ("none", None)
    elif way == "confused":
        idp.confused()
    else:
        idp.sign_with = ("ES256", ECKey.generate_key("P-256", {"kid": "one" if "same" in way else "two"}))
    assert come_back(page, idp).status_code == 403
    assert page.get("/persons").status_code == 303


def test_a_new_key_of_theirs_is_asked_for(site: tuple[Page, Provider], monkeypatch: pytest.MonkeyPatch) -> None:
    page, idp = site
    assert come_back(page, idp).status_code == 303
    new = RSAKey.generate_key(2048, {"kid": "new", "use": "sig"})
    idp.published, idp.sign_with = [new], ("RS256", new)
    page.client.cookies.clear()
    monkeypatch.setattr(single_sign_on, "_KEYS_AGAIN_SECONDS", 0.0)
    assert come_back(page, idp).status_code == 303


def test_a_login_ends_where_it_was_begun_and_once(site: tuple[Page, Provider]) -> None:
    page, idp = site
    there = page.get("/login/oidc")
    code, state = idp.log_in(there.headers["location"], groups=["staff"])
    back = f"/login/oidc/back?{urlencode({'code': code, 'state': state})}"
    cookies = dict(page.client.cookies)
    page.client.cookies.clear()
    assert page.get(back).status_code == 400  # another browser: somebody else's login
    page.client.cookies.update(cookies)
    assert page.get("/login/oidc/back?code=the-code&state=made-up").status_code == 400
    page.client.cookies.update(cookies)
    assert page.get(back).status_code == 303
    page.client.cookies.update(cookies)
    assert page.get(back).status_code == 400


def test_what_comes_back_with_an_error_or_from_another_issuer_logs_nobody_in(site: tuple[Page, Provider]) -> None:
    page, idp = site
    for wrong in ({"error": "access_denied"}, {"code": "x", "iss": "https://evil.example"}, {"code": "wrong"}, {}):
        _, state = idp.log_in(page.get("/login/oidc").headers["location"])
        answer = page.get(f"/login/oidc/back?{urlencode({**wrong, 'state': state})}")
        assert (answer.status_code, "access_denied" in answer.text) == (403, False), wrong


def test_the_way_back_leads_nowhere_else(site: tuple[Page, Provider]) -> None:
    page, idp = site
    there = page.get("/login/oidc?next=//evil.example")
    code, state = idp.log_in(there.headers["location"], groups=["staff"])
    answer = page.get(f"/login/oidc/back?{urlencode({'code': code, 'state': state})}")
    assert answer.headers["location"] == "/studies"


def test_without_them_the_page_says_so_and_lives(tmp_path: Path) -> None:
    with ledger_engine(tmp_path / "ledger.sqlite3") as engine:
        web = {"public_url": ORIGIN, "oidc": {"issuer": "http://127.0.0.1:1"}}
        with page_before(Node(engine), tmp_path, web=web) as page:
            answer = page.get("/login/oidc")
            assert (answer.status_code, "does not answer" in answer.text) == (503, True)
            assert page.get("/login").status_code == 200


def test_their_metadata_has_to_be_theirs_and_by_https(site: tuple[Page, Provider]) -> None:
    _, idp = site
    evil = "http://evil.example"
    for changes in ({"issuer": evil}, {"token_endpoint": evil}, {"authorization_endpoint": evil}, {"jwks_uri": 7}):
        before = dict(idp.metadata)
        idp.metadata |= changes
        sign_on = SingleSignOn(OidcSettings(issuer=idp.issuer), ORIGIN)
        with pytest.raises(SignOnAwayError):
            sign_on.begin()
        idp.metadata = before


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    for mode, text, told in ((0o644, "x", "chmod 600"), (0o600, "", "is empty"), (None, "", "No such file")):
        file.unlink(missing_ok=True)
        if mode:
            file.write_text(text)
            file.chmod(mode)
        with pytest.raises(SettingsError, match=f"web.oidc.client_secret_file: .*{told}"):
            SingleSignOn(OidcSettings(issuer="https://idp.example", client_secret_file=file), ORIGIN)
    with pytest.raises(SettingsError, match=r"web\.oidc\.ca_file"):
        SingleSignOn(OidcSettings(issuer="https://idp.example", ca_file=tmp_path / "none"), ORIGIN)


def test_without_groups_in_the_settings_admins_give_the_roles(tmp_path: Path) -> None:
    with provider() as idp, ledger_engine(tmp_path / "ledger.sqlite3") as engine:
        secret = tmp_path / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        oidc = {"issuer": idp.issuer, "default_role": "viewer", "client_secret_file": str(secret)}
        web = {"public_url": ORIGIN, "oidc": oidc}
        with page_before(Node(engine), tmp_path, web=web) as page:
            assert come_back(page, idp).status_code == 303
            page.site.ledger.people.change_role("ada", PersonRole.ADMIN, actor=TESTER)
            page.client.cookies.clear()
            come_back(page, idp)
            assert page.get("/persons").status_code == 200
