"""Every setting of the node, in one typed tree.

The values come from a TOML file, then from environment variables `SCP_NODE_<SECTION>__<KEY>`; the environment wins.
Nothing else in the node reads the environment or a settings file. `load_settings` makes the paths of a file absolute.
"""

from __future__ import annotations

import ipaddress
import os
import re
import zoneinfo
from pathlib import Path
from typing import Annotated, Final, Literal, Self, get_args
from urllib.parse import urlsplit

from pneumonia_model.precision import Precision
from pneumonia_model.shipped import SHIPPED_BUNDLE
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

ENVIRONMENT_PREFIX: Final = "SCP_NODE_"
CONFIG_VARIABLE: Final = "SCP_NODE_CONFIG"
DEFAULT_FILE: Final = Path("scp_node.toml")
SrSopClass = Literal["1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.22"]
COMPREHENSIVE_3D_SR: Final[SrSopClass] = "1.2.840.10008.5.1.4.1.1.88.34"  # PS3.4 Table B.5-1
COMPREHENSIVE_SR: Final[SrSopClass] = "1.2.840.10008.5.1.4.1.1.88.33"
ENHANCED_SR: Final[SrSopClass] = "1.2.840.10008.5.1.4.1.1.88.22"


PixelGate = Literal["refuse", "note", "off"]
TlsVersion = Literal["1.2", "1.3"]
ObjectWord = Literal["report", "overlay", "text", "presentation-state", "segmentation", "key-object"]
EVERY_OBJECT: Final[tuple[ObjectWord, ...]] = get_args(ObjectWord)


_SHARED_LIMITS: Final = ("max_associations", "max_associations_per_address", "failed_connections_per_minute")
_PASSWORD: Final = re.compile(r"[^/]+://[^/@:]*:[^/@]*@")  # of an SQLAlchemy URL


class SettingsError(ValueError):
    """A setting is unknown, wrong or unreadable; the message names the key and what is allowed."""


def ae_title(value: str) -> str:
    """Return an AE title without the spaces around it.

    Raises:
        ValueError: it is not one by PS3.5 Table 6.2-1.
    """
    if not 1 <= len(value.strip()) <= 16 or "\\" in value or not value.isascii() or not value.isprintable():
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
    return value.strip()


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError as error:
        raise ValueError("give an IP address or a network in CIDR form, such as 10.1.2.0/24") from error
    return value


def _path(value: Path) -> Path:
    if "\0" in str(value):
        raise ValueError("a path holds no NUL character")
    return value


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


def _optional_path(value: Path | None) -> Path | None:
    return None if value is None else _path(value)


def _named(value: object) -> object:
    if value == "":
        raise ValueError("name a folder")
    return value


def _shipped_if_empty(value: object) -> object:
    return SHIPPED_BUNDLE if value == "" else value


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_safe_address(url: str) -> bool:
    """Return whether `url` is an https address, or an http address of this machine."""
    parts = urlsplit(url)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    )


def peer_certificate(value: str) -> str:
    """Return what is expected of a certificate: empty, a name or an address in it, or "sha256:" and its digest.

    Raises:
        ValueError: it is something else.
    """
    value = value.strip().lower()
    if not value.startswith("sha256:"):
        if value and not re.fullmatch(r"[a-z0-9_.:-]+", value):
            raise ValueError('give a name or an address of the certificate, or "sha256:" and its SHA-256')
        return value
    digest = value.removeprefix("sha256:").replace(":", "")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError('"sha256:" is followed by 64 hexadecimal digits')
    return f"sha256:{digest}"


def _refuse_half_a_pair(certificate: Path | None, key: Path | None) -> None:
    if (certificate is None) != (key is None):
        raise ValueError("certificate and key belong together: give both or none")


AeTitle = Annotated[str, AfterValidator(ae_title)]
PeerCertificate = Annotated[str, AfterValidator(peer_certificate)]
OptionalPath = Annotated[Path | None, BeforeValidator(_none_if_empty), AfterValidator(_optional_path)]
Port = Annotated[int, Field(ge=0, le=65535)]
PositiveSeconds = Annotated[float, Field(gt=0, le=86_400)]


class Section(BaseModel):
    """One table of the file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeSettings(Section):
    """Who this node is."""

    ae_title: AeTitle = Field("PNEUMONIA", description="Our AE title: what the PACS calls.")
    data_dir: Annotated[Path, BeforeValidator(_named), AfterValidator(_path)] = Field(
        Path("var"),
        description="Folder for received images, the database and our identity. Relative: to this file's folder.",
    )
    manufacturer: str = Field(
        "scp-node open-source project", max_length=64, description="Manufacturer (0008,0070) of our reports."
    )
    model_name: str = Field("scp-node", max_length=64, description="Manufacturer's Model Name (0008,1090).")
    silent_seconds: float = Field(
        30.0, ge=2, le=3_600, description="A role that shows no sign of life for this long is killed and started again."
    )
    restart_cap_seconds: PositiveSeconds = Field(
        30.0, description="Longest pause before a role that died is started again; the first is 0.2 s, then doubled."
    )


class ListenTlsSettings(Section):
    """Associations by TLS, on a port of their own (PS3.15 B.12). Needs a certificate; `scp-node tls init` makes one."""

    certificate: OptionalPath = Field(
        None, description="PEM file with our certificate and those that it comes from. Empty: no TLS."
    )
    key: OptionalPath = Field(None, description="PEM file with its private key, which nobody else may read.")
    ca_file: OptionalPath = Field(
        None, description="PEM file with the authorities of the certificates of peers, or these themselves."
    )
    client_certificate: Literal["required", "optional", "none"] = Field(
        "required", description="Whether a peer has to show a certificate, may, or is not asked."
    )
    host: str = Field("", description="Address to listen on. Empty: that of [listen].")
    port: Port = Field(2762, description="TCP port; 0 takes a free one.")
    versions: list[TlsVersion] = Field(["1.2", "1.3"], min_length=1, description="Versions of TLS that are spoken.")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        _refuse_half_a_pair(self.certificate, self.key)
        if self.certificate and self.client_certificate != "none" and self.ca_file is None:
            raise ValueError(
                'ca_file: name the authority of the peers\' certificates, or set client_certificate = "none"'
            )
        return self


class ListenSettings(Section):
    """Where and how associations are accepted."""

    host: str = Field("127.0.0.1", description="Address to listen on. Anything but a loopback address needs [[peers]].")
    port: Port = Field(11112, description="TCP port; 0 takes a free one.")
    processes: int = Field(
        1,
        ge=1,
        le=4,
        description="Processes that accept associations on the same ports, each with its part of these limits.",
    )
    max_associations: int = Field(64, ge=1, le=512, description="Associations served at the same time.")
    max_associations_per_address: int = Field(
        48, ge=1, le=512, description="Of these, associations of one address: the others keep the rest."
    )
    failed_connections_per_minute: int = Field(
        120,
        ge=0,
        description="Connections of one address that may come to nothing (no association, or one that ends before a "
        "request is answered). More are closed at once. 0: any number.",
    )
    max_pdu_bytes: int = Field(131_072, ge=4_096, le=1_048_576, description="Largest P-DATA PDU that we accept.")
    acse_timeout_seconds: PositiveSeconds = Field(5.0, description="Longest wait for an association request.")
    dimse_timeout_seconds: PositiveSeconds = Field(30.0, description="Longest wait inside one DIMSE message.")
    network_timeout_seconds: PositiveSeconds = Field(60.0, description="Longest idle time of an association.")
    max_instance_mib: int = Field(256, ge=1, le=2_048, description="Largest instance accepted, MiB.")
    low_water_mib: int = Field(
        512, ge=0, description="Refuse to store (0xA700) while less than this is free on the disk, MiB."
    )
    tls: ListenTlsSettings = ListenTlsSettings()

    @model_validator(mode="after")
    def _can_be_shared(self) -> Self:
        if self.processes == 1:
            return self
        if self.port == 0 or (self.tls.certificate and self.tls.port == 0):
            raise ValueError("processes: with port = 0 each would take another port; name it, or set processes to 1")
        for name in _SHARED_LIMITS:
            if 0 < getattr(self, name) < self.processes:
                raise ValueError(f"processes: {self.processes} cannot share {name} = {getattr(self, name)}")
        return self

    def of_one_process(self) -> Self:
        """Return the settings with the part of the limits that each of the processes keeps."""
        return self.model_copy(update={name: getattr(self, name) // self.processes for name in _SHARED_LIMITS})

    @property
    def tls_host(self) -> str:
        """Return the address on which TLS is listened for."""
        return self.tls.host or self.host


class PeerSettings(Section):
    """Who may send to us."""

    ae_title: Annotated[str, AfterValidator(lambda v: v if v == "*" else ae_title(v))] = Field(
        "*", description='Calling AE title, exact case; "*" is any.'
    )
    address: Annotated[str, AfterValidator(_network)] = Field(description="IP address or network (CIDR) of the sender.")
    ends_by_closing: bool = Field(
        default=False,
        description="It closes its connections without A-RELEASE: that ends a transfer, and interrupts none.",
    )
    certificate: PeerCertificate = Field(
        "",
        description='It has to come by TLS with this certificate: a name or an address in it, or "sha256:" and its '
        "SHA-256. Empty: any, or none.",
    )


class DestinationTlsSettings(Section):
    """TLS to this destination (PS3.15 B.12)."""

    enabled: bool = Field(default=False, description="Speak TLS to it.")
    ca_file: OptionalPath = Field(
        None,
        description="PEM file with the authority of its certificate, or this itself. Empty: this machine's "
        "authorities.",
    )
    peer_certificate: PeerCertificate = Field(
        "", description='Name or address in its certificate, or "sha256:" and its SHA-256. Empty: host.'
    )
    certificate: OptionalPath = Field(
        None, description="PEM file with the certificate that we show. Empty: none is shown."
    )
    key: OptionalPath = Field(None, description="PEM file with its private key, which nobody else may read.")
    versions: list[TlsVersion] = Field(["1.2", "1.3"], min_length=1, description="Versions of TLS that are spoken.")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        _refuse_half_a_pair(self.certificate, self.key)
        return self


class DestinationSettings(Section):
    """A Storage SCP that receives our reports."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,32}$", description="Our name for it, in audit and commands.")
    ae_title: AeTitle = Field(description="Its AE title.")
    host: str = Field(min_length=1, description="Its address.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(104, description="Its port.")
    commitment: bool = Field(
        default=True,
        description="Ask it to commit itself to what it was sent (Storage Commitment), where it offers that.",
    )
    find: bool = Field(
        default=False, description="Else look by C-FIND whether it shows what it was sent: where it promises nothing."
    )
    accepts: list[ObjectWord] = Field(
        default_factory=lambda: list(EVERY_OBJECT),
        description="The kinds of object it gets, of those that [report] makes; the report is always one of them.",
    )
    associations: int = Field(
        2,
        ge=1,
        le=8,
        description="The most that are open to it at a time for sending; those beside the first only while much waits.",
    )
    tls: DestinationTlsSettings = DestinationTlsSettings()

    @model_validator(mode="after")
    def _gets_a_whole(self) -> Self:
        if "report" not in self.accepts:
            raise ValueError('accepts: "report" is missing; every destination gets the report')
        if "key-object" in self.accepts and "overlay" not in self.accepts:
            raise ValueError('accepts: "key-object" needs "overlay", since it names the pictures')
        return self


class RoutingSettings(Section):
    """Which destinations get the report of a study."""

    reply_to: Literal["all", "sender"] | list[str] = Field(
        "all",
        description='"all" destinations, "sender" (the destination whose AE title sent the study), or a list of names.',
    )
    stat_calling_ae: list[AeTitle] = Field(
        default_factory=list, description="Calling AE titles whose images are urgent: analysed and reported first."
    )


class StudySettings(Section):
    """When a study is reported."""

    quiet_seconds: float = Field(
        10.0, ge=0, le=3_600, description="A study is reported when nothing more arrived for this long."
    )
    version_seconds: float = Field(
        30.0, ge=0, le=3_600, description="Least time between two versions of a report that is not urgent."
    )


class RetentionSettings(Section):
    """How long originals are kept."""

    days: float = Field(
        0.0,
        ge=0,
        le=36_500,
        description="Remove an image this many days after it came, once analysis, report and delivery are done or "
        "discarded; results and reports stay. 0: keep all.",
    )


class DatabaseSettings(Section):
    """Where results, work and audit are kept."""

    url: str = Field(
        "",
        repr=False,  # it may hold a password
        description="SQLAlchemy URL, such as postgresql+psycopg://user@host/scp_node. Empty: SQLite in data_dir. "
        "A relative sqlite:/// path: to this file's folder.",
    )
    password_file: OptionalPath = Field(
        None,
        description="File with the password of the database's user, mode 0600. Relative: to this file's folder. Empty: "
        "as url says, or libpq's own ways.",
    )
    upgrade_at_start: bool = Field(default=True, description="Bring the schema up to date when `serve` starts.")

    @property
    def url_has_password(self) -> bool:
        """Return whether a password stands in the URL."""
        return _PASSWORD.match(self.url) is not None

    @model_validator(mode="after")
    def _has_one_password(self) -> Self:
        if self.password_file and not self.url.startswith("postgresql"):
            raise ValueError("password_file: SQLite has no password; give the url of a PostgreSQL database")
        if self.password_file and self.url_has_password:
            raise ValueError("password_file: url holds a password as well; take it out there")
        return self


class WorkSettings(Section):
    """How work is claimed, in every queue: images, reports, deliveries and commitments."""

    lease_seconds: float = Field(
        15.0, ge=2, le=3_600, description="A process that is silent for this long loses its work to another."
    )
    max_attempts: int = Field(
        3,
        ge=2,
        le=20,
        description="Tries before an image or a report ends as failed; the first may fail for another image of its "
        "batch.",
    )


class InferenceSettings(Section):
    """The model and where it runs."""

    bundle: Annotated[Path, BeforeValidator(_shipped_if_empty), AfterValidator(_path)] = Field(
        SHIPPED_BUNDLE,
        description="Folder of the model bundle to serve. Relative: to this file's folder. Empty: the one that comes "
        "with this program.",
    )
    shadow_bundle: OptionalPath = Field(
        None,
        description="Folder of a second bundle on trial, run after all other work and never reported. Empty: none.",
    )
    operating_point: str = Field(
        "", description="Name of one of the bundle's operating points (`scp-node model show`). Empty: its default."
    )
    grey_zone: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="Probabilities this close to the threshold are reported as undetermined; 0: none, else 0.000001 "
        "or more.",
    )
    backend: Literal["auto", "onnxruntime", "torch"] = Field(
        "auto", description='"auto" is torch where CUDA works, else onnxruntime.'
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the network runs.")
    precision: Precision = Field(
        "float32",
        description="Numbers of the network: float32, bfloat16 (needs torch), tf32 or float16 (torch on CUDA).",
    )
    batch_size: int = Field(16, ge=1, le=256, description="Most images in one forward pass.")
    threads: int = Field(0, ge=0, le=256, description="CPU threads of the network; 0 takes the backend's default.")
    batch_seconds: PositiveSeconds = Field(
        120.0, description="Longest time that the network may take for one batch before the worker counts as hung."
    )
    acknowledge_demonstration: bool = Field(
        default=False,
        description="Set true to let a demonstration model send reports to an address other than loopback.",
    )


class AnalysisSettings(Section):
    """The intended use: what gets a score at all."""

    modalities: list[str] = Field(["CR", "DX"], min_length=1, description="Modality (0008,0060) values analysed.")
    minimum_age: int = Field(18, ge=0, le=150, description="Youngest patient analysed, years. A missing age passes.")
    minimum_pixels: int = Field(256, ge=32, le=8_192, description="Smallest side of an image, pixels.")
    maximum_pixels: int = Field(8_192, ge=256, le=8_192, description="Largest side of an image, pixels.")
    pixel_gate: PixelGate = Field(
        "refuse",
        description="A picture unlike a frontal chest film: no score, a score with a note, or not looked for.",
    )
    decoder_processes: int = Field(2, ge=1, le=64, description="Images read at the same time, each in its own process.")
    decoder_memory_mib: int = Field(
        1_536, ge=512, description="By how much such a process may grow for one image, MiB; beyond it the image fails."
    )
    decode_seconds: PositiveSeconds = Field(
        60.0, description="Longest time that reading one image may take before it fails."
    )
    confine_decoders: bool = Field(
        default=True,
        description="Take network, other programs and writing of files from these processes, where the kernel can.",
    )


class ReportSettings(Section):
    """The Structured Report."""

    sop_classes: list[SrSopClass] = Field(
        default=[COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR, ENHANCED_SR],
        min_length=1,
        description="SOP classes offered to a destination, best first: Comprehensive 3D, Comprehensive, Enhanced SR.",
    )
    series_number: int = Field(9100, ge=1, le=2_147_483_647, description="Series Number (0020,0011) of our reports.")
    series_description: str = Field(
        "AI PNEUMONIA report",
        min_length=1,
        max_length=40,
        description="Series Description (0008,103E); version follows.",
    )
    overlay: Literal["none", "positive", "all"] = Field(
        "positive",
        description="Which films get a picture with the result and the activation map, as Secondary Capture.",
    )
    text_sr: bool = Field(
        default=False, description="Send a Basic Text SR as well, for a PACS that shows no other Structured Report."
    )
    presentation_state: bool = Field(
        default=False, description="Send the outlines of regions as a Grayscale Softcopy Presentation State."
    )
    attention_region: bool = Field(
        default=False, description="Outline the activation map in it, too, as AI attention region: no finding."
    )
    segmentation: bool = Field(default=False, description="Send the regions as a Segmentation.")
    key_object: bool = Field(
        default=False, description="Send a Key Object Selection of the positive films and their pictures."
    )
    flag_only: bool = Field(
        default=False, description="Send no picture and no location, whatever else is set: the result alone."
    )
    processes: int = Field(0, ge=0, le=64, description="Processes that make reports; 0: one for every four processors.")

    @property
    def process_count(self) -> int:
        """Return how many processes make reports on this machine."""
        return self.processes or max(1, len(os.sched_getaffinity(0)) // 4)


class DeliverySettings(Section):
    """How reports are sent, and sent again."""

    connect_seconds: PositiveSeconds = Field(
        10.0, description="Longest wait for an association with a destination; part of send_seconds."
    )
    send_seconds: PositiveSeconds = Field(
        25.0, description="Longest time for one object, from connecting to the last response, second tries included."
    )
    keep_open_seconds: PositiveSeconds = Field(
        5.0, description="An idle association to a destination is kept this long."
    )
    retry_first_seconds: PositiveSeconds = Field(10.0, description="Pause before the first retry; doubles each time.")
    retry_cap_seconds: PositiveSeconds = Field(900.0, description="Longest pause between retries.")
    retry_for_hours: float = Field(168.0, gt=0, description="A report that cannot be delivered for this long is dead.")
    permanent_attempts: int = Field(3, ge=1, le=20, description="Tries after a status that says no for good.")
    unanswered_attempts: int = Field(
        8, ge=1, le=100, description="Tries of an object that gets no response while the destination takes others."
    )
    breaker_failures: int = Field(
        3, ge=1, le=100, description="Failures in a row after which a destination is paused and only probed by C-ECHO."
    )
    probe_seconds: PositiveSeconds = Field(
        60.0, description="Longest pause between two such probes; doubles up to this from retry_first_seconds."
    )
    commit_after_seconds: float = Field(
        10.0, ge=0, le=86_400, description="How long after a delivery its destination is asked whether it has it."
    )
    commit_answer_seconds: PositiveSeconds = Field(
        5.0, description="How long that association stays open for the answer; a later one comes on another."
    )
    commit_wait_seconds: PositiveSeconds = Field(
        3_600.0, description="How long the answer may take before it is asked for again."
    )
    commit_attempts: int = Field(
        4, ge=1, le=20, description="How often it is asked for one object, which is sent again where it is missing."
    )


GivenRole = Literal["", "viewer", "reader", "admin"]  # "": none, the person is refused


class OidcSettings(Section):
    """Login by the site's single sign-on (OpenID Connect). Needs the extra "oidc", and web.public_url."""

    issuer: str = Field(
        "",
        description='Its address, such as "https://login.hospital.example/realms/staff". Empty: none.',
    )
    client_id: str = Field("scp-node", min_length=1, max_length=255, description="Our name there.")
    client_secret_file: OptionalPath = Field(
        None,
        description="File with our secret there, mode 0600. Relative: to this file's folder. Empty: a public client.",
    )
    ca_file: OptionalPath = Field(
        None,
        description="PEM file with the authority of its certificate. Relative: to this file's folder. Empty: this "
        "machine's authorities.",
    )
    scopes: list[str] = Field(["openid", "profile"], min_length=1, description="What is asked for; openid is one.")
    name_claim: str = Field("preferred_username", min_length=1, description="Claim of the ID token with the name.")
    groups_claim: str = Field("groups", description="Claim with the groups: web.admin_groups and the two after it.")
    default_role: GivenRole = Field("", description='Role of who is in none of those groups. "": they are refused.')
    label: str = Field("Single sign-on", min_length=1, max_length=64, description="Its name on the login page.")

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if self.issuer and not is_safe_address(self.issuer):
            raise ValueError("issuer: give an address that begins with https://")
        if "openid" not in self.scopes:
            raise ValueError('scopes: "openid" is missing')
        return self


class WebSettings(Section):
    """The web page for audit, feedback and watching the model."""

    enabled: bool = Field(default=True, description="Serve it: the role web of `serve`.")
    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Anything but a loopback address needs a certificate or trusted_proxies.",
    )
    port: Port = Field(8080, description="TCP port; 0 takes a free one.")
    certificate: OptionalPath = Field(
        None, description="PEM file with our certificate and its chain: HTTPS. Relative: to this file's folder."
    )
    key: OptionalPath = Field(
        None, description="PEM file with its private key, which nobody else may read. Relative: to this file's folder."
    )
    public_url: str = Field(
        "",
        pattern=r"^(https?://[A-Za-z0-9.:\[\]-]+)?$",
        description='Address by which browsers know the page, such as "https://ai.hospital.example". Empty: host and '
        "port as they are asked for.",
    )
    trusted_proxies: list[Annotated[str, AfterValidator(_network)]] = Field(
        default_factory=list,
        description="Addresses or networks of reverse proxies that end HTTPS before us: their X-Forwarded-For counts.",
    )
    header: str = Field(
        "",
        pattern=r"^[A-Za-z0-9-]{0,64}$",
        description="Header in which a trusted proxy names the person that it has logged in, such as X-Remote-User. "
        "Needs public_url. Empty: none.",
    )
    header_role: GivenRole = Field(
        "viewer", description='Role of persons whom that header names for the first time. "": they are refused.'
    )
    groups_header: str = Field(
        "",
        pattern=r"^[A-Za-z0-9-]{0,64}$",
        description="Header in which the proxy names their groups, with commas between. Empty: roles are given here.",
    )
    admin_groups: list[str] = Field(
        default_factory=list, description="Groups, of that header or of the single sign-on, whose members are admins."
    )
    reader_groups: list[str] = Field(default_factory=list, description="Groups whose members are readers.")
    viewer_groups: list[str] = Field(default_factory=list, description="Groups whose members are viewers.")
    local_login: bool = Field(
        default=True, description="Let people log in by a password that is kept here. Links of `user link` always work."
    )
    session_hours: float = Field(12.0, gt=0, le=168, description="A login ends after this long.")
    idle_minutes: float = Field(30.0, ge=1, le=1_440, description="A login ends when nothing was asked for this long.")
    viewer_url: str = Field(
        "",
        max_length=500,
        description="Link to a study in the site's viewer, with {study_uid}, {accession} or {patient_id} in it. "
        "Empty: none.",
    )
    sample_positive: int = Field(
        5,
        ge=0,
        le=1_000,
        description="Positive studies of each day that readers are asked to read: the reading sample.",
    )
    sample_negative: int = Field(10, ge=0, le=1_000, description="Negative studies of each day in it.")
    sample_days: int = Field(28, ge=1, le=3_650, description="How many days back readers are asked.")
    late_minutes: float = Field(
        15.0, gt=0, le=10_080, description="What waits for longer than this is shown as a problem."
    )
    metrics_from: list[Annotated[str, AfterValidator(_network)]] = Field(
        default_factory=lambda: ["127.0.0.0/8", "::1"],
        description="Addresses or networks that may read /metrics without a token: if they ask directly, never by what "
        "a proxy says of them. With trusted_proxies the default is none.",
    )
    time_zone: str = Field("", description='Zone of the times shown, such as "Europe/Berlin". Empty: this machine\'s.')
    oidc: OidcSettings = OidcSettings()

    @property
    def address(self) -> str:
        """Return the address by which browsers know the page."""
        if self.public_url:
            return self.public_url
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}"

    @field_validator("viewer_url")
    @classmethod
    def _is_web_address(cls, value: str) -> str:
        if value and not value.startswith(("https://", "http://")):
            raise ValueError("give an address that begins with https:// or http://")
        rest = re.sub(r"\{(study_uid|accession|patient_id)\}", "", value)
        if "{" in rest or "}" in rest:
            raise ValueError("the only placeholders are {study_uid}, {accession} and {patient_id}")
        return value

    @field_validator("time_zone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        if value and value not in zoneinfo.available_timezones():
            raise ValueError('not a zone of the IANA database, such as "Europe/Berlin"')
        return value

    @property
    def metrics_networks(self) -> list[str]:
        """Return who may read the metrics without a token.

        Behind a proxy on this machine everybody seems to come from here: then the default does not hold.
        """
        is_default = "metrics_from" not in self.model_fields_set
        return [] if is_default and self.trusted_proxies else self.metrics_from

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        _refuse_half_a_pair(self.certificate, self.key)
        if not is_loopback(self.host) and self.certificate is None and not self.trusted_proxies:
            raise ValueError(
                f"host: {self.host} is reachable from outside, and passwords must not travel in the clear: set "
                "certificate and key, or list the proxy that ends HTTPS in trusted_proxies"
            )
        if not is_loopback(self.host) and self.public_url.startswith("http://"):
            raise ValueError("public_url: give the https:// address; passwords must not travel in the clear")
        if self.header and not self.trusted_proxies:
            raise ValueError("header: anybody could send it; list the proxy that sets it in trusted_proxies")
        if self.header and not self.public_url:
            raise ValueError("header: set public_url as well, so that no other name leads here")
        if self.groups_header and not self.header:
            raise ValueError("groups_header: set header as well, which names the person")
        if self.oidc.issuer and not self.public_url:
            raise ValueError("oidc.issuer: set web.public_url as well: the single sign-on leads back to it")
        if not (self.local_login or self.header or self.oidc.issuer):
            raise ValueError("local_login: nobody could log in; set header or oidc.issuer first")
        return self


class CollectorTlsSettings(DestinationTlsSettings):
    """TLS to the collector (RFC 5425)."""

    enabled: bool = Field(default=True, description="Speak TLS to it. Only one on this machine may go without.")


class AuditMessagesSettings(Section):
    """A copy of the audit trail for the site's collector: DICOM audit messages (PS3.15 A.5) by syslog."""

    host: str = Field("", description="Its address: a syslog server, RFC 5424. Empty: none gets any.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(6514, description="Its port.")
    patient_names: bool = Field(
        default=False, description="Tell it the names of patients beside their Patient ID and Study Instance UID."
    )
    tls: CollectorTlsSettings = CollectorTlsSettings()

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if self.host and not self.tls.enabled and not is_loopback(self.host):
            raise ValueError(
                f"tls.enabled: {self.host} is another machine, and messages name patients: speak TLS to it"
            )
        return self


class LogSettings(Section):
    """The log, on standard error."""

    format: Literal["json", "console"] = Field("console", description="One JSON object a line, or text for people.")
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level written.")


_LOOPBACK_PEERS: Final = [PeerSettings(ae_title="*", address="127.0.0.0/8"), PeerSettings(ae_title="*", address="::1")]


class Settings(BaseSettings):
    """The whole tree; build it with `load_settings`."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__"
    )

    node: NodeSettings = NodeSettings()
    listen: ListenSettings = ListenSettings()
    peers: list[PeerSettings] = Field(
        default_factory=lambda: list(_LOOPBACK_PEERS),
        description="Who may send to us. Default: any AE title, from a loopback address only.",
    )
    destinations: list[DestinationSettings] = Field(
        default_factory=list, description="Storage SCPs that receive our reports. Default: none."
    )
    routing: RoutingSettings = RoutingSettings()
    study: StudySettings = StudySettings()
    retention: RetentionSettings = RetentionSettings()
    database: DatabaseSettings = DatabaseSettings()
    work: WorkSettings = WorkSettings()
    inference: InferenceSettings = InferenceSettings()
    analysis: AnalysisSettings = AnalysisSettings()
    report: ReportSettings = ReportSettings()
    delivery: DeliverySettings = DeliverySettings()
    web: WebSettings = WebSettings()
    audit_messages: AuditMessagesSettings = AuditMessagesSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, which arrives as initial values."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _names_agree(self) -> Settings:
        names = [destination.name for destination in self.destinations]
        if len(names) != len(set(names)):
            raise ValueError("destinations: two have the same name")
        if isinstance(self.routing.reply_to, list):
            unknown = sorted(set(self.routing.reply_to) - set(names))
            if unknown:
                raise ValueError(f"routing.reply_to: no [[destinations]] entry is named {', '.join(unknown)}")
        wide = [] if is_loopback(self.listen.host) else [f"listen.host: {self.listen.host}"]
        if self.listen.tls.certificate and not is_loopback(self.listen.tls_host):
            wide.append(f"listen.tls.host: {self.listen.tls_host}")
        if wide and "peers" not in self.model_fields_set:
            raise ValueError(f"{wide[0]} is reachable from outside; list who may send in [[peers]] first")
        return self

    @model_validator(mode="after")
    def _certificates_are_asked_for(self) -> Settings:
        tls = self.listen.tls
        if any(peer.certificate for peer in self.peers) and (not tls.certificate or tls.client_certificate == "none"):
            raise ValueError(
                "peers: one has to show a certificate, and none is asked for: see listen.tls.certificate and "
                "listen.tls.client_certificate"
            )
        if tls.certificate and tls.port == self.listen.port != 0 and self.listen.tls_host == self.listen.host:
            raise ValueError("listen.tls.port: it is that of [listen]; TLS has a port of its own")
        return self

    @property
    def database_url(self) -> str:
        """Return the SQLAlchemy URL; without a setting, that of an SQLite file in the data folder."""
        return self.database.url or f"sqlite:///{self.node.data_dir / 'ledger.sqlite3'}"
