"""Puts the pages together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from anyio import to_thread
from fastapi import FastAPI
from starlette.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

from scp_node import __version__
from scp_node.settings import SettingsError, WebSettings
from scp_node.truth_file import MOST_BYTES
from scp_node.web import errors
from scp_node.web.children import Examiner
from scp_node.web.films import Films
from scp_node.web.guard import MOST_FORM_BYTES, Guard
from scp_node.web.metrics import Collector
from scp_node.web.pages import (
    api,
    audit,
    doctor,
    feedback,
    feedback_api,
    health,
    login,
    metrics,
    model,
    persons,
    quality,
    sample,
    sessions,
    sign_on,
    studies,
    study,
    system,
    tokens,
)
from scp_node.web.ports import SignOn
from scp_node.web.rendering import STATIC
from scp_node.web.site import Site

_THREADS: Final = 8  # requests that ask the ledger at the same time: PostgreSQL's pool has ten connections
_PAGES: Final = (
    health,
    login,
    sign_on,
    studies,
    study,
    feedback,
    feedback_api,
    sample,
    quality,
    model,
    system,
    doctor,
    metrics,
    persons,
    sessions,
    tokens,
    audit,
    api,
)
_BEAT_SECONDS: Final = 1.0
_LARGE: Final = (feedback.IMPORT,)  # paths that take more than a form
_MOST_LARGE: Final = MOST_BYTES + MOST_FORM_BYTES  # a file, and the form around it


def create_application(site: Site, *, renew: Callable[[], None] = lambda: None) -> FastAPI:
    """Return the application; `renew` is called each second while its event loop lives.

    Raises:
        SettingsError: [web.oidc] cannot be used.
    """
    examiner = Examiner(site)
    films = Films(site.settings)

    async def beat() -> None:
        while True:
            renew()
            await asyncio.sleep(_BEAT_SECONDS)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = _THREADS
        beating = asyncio.create_task(beat())
        try:
            yield
        finally:
            beating.cancel()
            examiner.close()
            films.close()
            site.check.stop()

    app = FastAPI(
        title="scp-node",
        version=__version__,
        description="Results, feedback and state of a node. Research use only: not a medical device.",
        docs_url=None,  # their pages load from elsewhere
        redoc_url=None,
        openapi_url=None,  # `pages/api.py` shows it to who is logged in
        lifespan=lifespan,
    )
    app.state.site = site
    app.state.examiner = examiner
    app.state.films = films
    app.state.collector = Collector(site)
    app.state.sign_on = _sign_on(site.settings.web)
    errors.install(app)
    for page in _PAGES:
        app.include_router(page.router)
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_middleware(Guard, settings=site.settings.web, large=_LARGE, most_large=_MOST_LARGE)

    @app.get("/", include_in_schema=False)
    def start() -> RedirectResponse:
        return RedirectResponse(login.START)

    return app


def _sign_on(settings: WebSettings) -> SignOn | None:
    """Return the site's single sign-on; None where there is none.

    Raises:
        SettingsError: its secret cannot be read, or the extra "oidc" is not installed.
    """
    if not settings.oidc.issuer:
        return None
    try:
        from scp_node.web.single_sign_on import SingleSignOn  # noqa: PLC0415 - 20 MiB that most sites do not need
    except ModuleNotFoundError as error:
        raise SettingsError(f'web.oidc: {error.name} is missing: install "scp-node[oidc]"') from error
    return SingleSignOn(settings.oidc, settings.public_url)
