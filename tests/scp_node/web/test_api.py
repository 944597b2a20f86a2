"""The API is asked what its description allows, and what it forbids: it may refuse, and never fails."""

from __future__ import annotations

from collections import Counter
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import schemathesis
from httpx2 import Response
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from schemathesis.core.result import Ok
from sqlalchemy import Engine

from scp_node.ledger import PersonRole
from tests.scp_node.ledger.projecting import followed, header
from tests.scp_node.ledger_node import Node
from tests.scp_node.web.site import TESTER, Page, page_before

if TYPE_CHECKING:
    from schemathesis import Case

EXAMPLES: Final = 10  # of each operation, in each mode
BOUNDED: Final = settings(
    max_examples=EXAMPLES,
    derandomize=True,  # the same requests in each run
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def ask(page: Page, case: Case[Any], token: str) -> Response:
    """Send the request of a case as a script does."""
    request = case.as_transport_kwargs()
    request.pop("cookies", None)
    if isinstance(request.get("data"), str | bytes):
        request["content"] = request.pop("data")
    request["headers"] = {**request.pop("headers"), "Authorization": f"Bearer {token}"}
    return page.client.request(**request)


def test_no_request_is_answered_by_a_fault_of_the_program(sqlite_engine: Engine, tmp_path: Path) -> None:

    node = Node(sqlite_engine)
    for number, name in enumerate(("Doe^Jane", "Иванова^Мария", "<script>^")):
        node.receive(str(number), study=f"1.2.{number}", accession=f"A{number}", header=header(name))
    node.analyse()
    followed(node)
    statuses: Counter[tuple[str, int]] = Counter()
    with page_before(node, tmp_path) as page:
        page.add("script", PersonRole.ADMIN)
        token = page.site.ledger.people.make_token("script", "test", actor=TESTER)
        described = schemathesis.openapi.from_dict(
            page.get("/api/openapi.json", headers={"authorization": f"Bearer {token}"}).json()
        )
        for found in described.get_all_operations():
            assert isinstance(found, Ok)
            operation = found.ok()
            for mode in schemathesis.GenerationMode:

                @BOUNDED
                @given(case=operation.as_strategy(generation_mode=mode))
                def asked(case: Case[Any]) -> None:
                    answer = ask(page, case, token)
                    assert answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR, answer.text
                    statuses[case.operation.label, answer.status_code] += 1

                asked()
    assert statuses.total() >= 2 * EXAMPLES
    assert HTTPStatus.OK in {status for _, status in statuses}
    assert HTTPStatus.UNAUTHORIZED not in {status for _, status in statuses}
