"""The filters of the list of studies as they stand in an address, so that Back and a bookmark show the same list."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Annotated, Final, Literal
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from scp_node.domain import Reason, Verdict
from scp_node.ledger import Key, StudyState, WorklistQuery
from scp_node.web.addresses import place_of, place_text

FIRST_KEY: Final = "0-0"  # behind every row
_PLACES: Final = frozenset({"older", "newer"})


def _given(value: object) -> object:
    """Return None for a field of a form that was left empty."""
    return None if isinstance(value, str) and not value.strip() else value


_Day = Annotated[Annotated[date, Field(ge=date(1970, 1, 2), le=date(2999, 12, 30))] | None, BeforeValidator(_given)]
_Word = Annotated[Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f]*$")] | None, BeforeValidator(_given)]
_Text = Annotated[Annotated[str, Field(max_length=200)] | None, BeforeValidator(_given)]


class Filters(BaseModel):
    """What an address selects. A parameter without a meaning is refused: a filter with a wrong name would show all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    q: Annotated[_Text, Field(description="Words of name, Patient ID and accession number, or a UID.")] = None
    since: Annotated[_Day, Field(description="First day of the newest image, in the site's time zone.")] = None
    until: Annotated[_Day, Field(description="Last day of the newest image.")] = None
    state: Annotated[StudyState | None, BeforeValidator(_given)] = None
    verdict: Annotated[Verdict | None, BeforeValidator(_given)] = None
    reason: Annotated[Reason | None, BeforeValidator(_given), Field(description="Why a film has no verdict.")] = None
    ae: Annotated[_Word, Field(description="AE title of the sender.")] = None
    model: Annotated[_Word, Field(description="Bundle, name-version.")] = None
    feedback: Annotated[Literal["any", "none", "agree", "disagree", "unsure"] | None, BeforeValidator(_given)] = None
    older: Annotated[_Word, Field(description="Key of a row: those behind it.")] = None
    newer: Annotated[_Word, Field(description="Key of a row: those before it.")] = None

    def query(self, zone: str) -> WorklistQuery:
        """Return what to ask of the ledger; days are those of the zone, "" is this machine's."""
        return WorklistQuery(
            since=None if self.since is None else _midnight(self.since, zone),
            until=None if self.until is None else _midnight(self.until + timedelta(days=1), zone),
            state=self.state,
            verdict=self.verdict,
            reason=self.reason,
            calling_ae=self.ae,
            bundle=self.model,
            feedback=self.feedback,
            search=self.q or "",
        )

    @property
    def chosen(self) -> dict[str, str]:
        """Return the filters that are set, without the place in the list."""
        given = self.model_dump(mode="json", exclude_none=True, include=set(Filters.model_fields) - _PLACES)
        return {name: str(value) for name, value in given.items()}

    def address(self, path: str, **place: str) -> str:
        """Return the address of `path` with these filters, at a place in the list."""
        values = {**self.chosen, **place}
        return f"{path}?{urlencode(values)}" if values else path


def key_text(key: Key) -> str:
    """Return a key as it stands in an address."""
    return place_text(key.newest_at, key.id)


def key_of(value: str | None) -> Key | None:
    """Return the key that an address names; None for one that nobody made."""
    place = place_of(value)
    return Key(newest_at=place[0], id=place[1]) if place else None


def _midnight(day: date, zone: str) -> datetime:
    start = datetime.combine(day, time.min)
    return start.replace(tzinfo=ZoneInfo(zone)) if zone else start.astimezone()
