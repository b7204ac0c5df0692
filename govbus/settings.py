"""Every setting of govbus, typed, with its default; the only reader of the environment (prefix ``GOVBUS_``)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from schemas import codesets
from schemas.access import Access, Mechanism, Security
from schemas.errors import Misconfigured


def _tried_as_a_header(address: str) -> str:
    """What the digest's header does not take would end the process that sends it, so the header is asked now."""
    from email.message import EmailMessage
    from email.policy import SMTP

    mail = EmailMessage(policy=SMTP)
    try:
        mail["To"] = address
        (found,) = mail["To"].addresses
        sound = not mail["To"].defects and found.addr_spec.isascii()
    except Exception:  # the library's parser fails in many ways
        sound = False
    if not sound:
        raise ValueError("must be one mail address, name@host")
    return address


MailAddress = Annotated[str, AfterValidator(_tried_as_a_header)]


class WebhookSettings(BaseModel):
    """One subscriber that is called over HTTPS; an empty list of kinds, colours or departments means all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    url: str
    secret: SecretStr = Field(min_length=16)
    """What both sides sign with (HMAC-SHA-256)."""
    kinds: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    departments: tuple[str, ...] = ()

    @field_validator("kinds", "colours", "departments")
    @classmethod
    def _may_come(cls, codes: tuple[str, ...], asked: ValidationInfo) -> tuple[str, ...]:
        """What no alert can be would never be told."""
        code_set = SUBSCRIBED[str(asked.field_name)]
        if unknown := [code for code in codes if not codesets.known(code_set, code)]:
            raise ValueError(f"{', '.join(unknown)}: no code of {code_set}")
        return codes


SUBSCRIBED = {
    "kinds": "govbus.alert-kind", "colours": "govbus.card-colour", "departments": codesets.DEPARTMENTS,
}  # fmt: skip
TLS = ("kafka_ca", "kafka_certificate", "kafka_certificate_key")
SASL = ("kafka_sasl_mechanism", "kafka_user", "kafka_password")
DATABASE = r"postgresql\+psycopg://([^/@:]+(:[^/@:]*)?@)?(\[[0-9A-Fa-f:.]+\]|[^/@:?]*)(:\d{1,5})?/[^/?]+(\?.*)?"
PLATFORM = r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[!\"$->@-~]*)?"


class Settings(BaseSettings):
    """Settings of one installation. Durations are in seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="GOVBUS_", frozen=True, extra="ignore")

    kafka: str = ""
    """Bootstrap servers, ``host:port[,host:port]``; empty: the local stack."""
    kafka_security: Security = "PLAINTEXT"
    """How that Kafka is spoken to: with TLS (``SSL``), with user and password (``SASL_PLAINTEXT``), or with both."""
    kafka_ca: Path | None = None
    """PEM file of the certificate authorities that sign its certificates; none: the system's."""
    kafka_certificate: Path | None = None
    """PEM file of our own certificate, where Kafka asks for one (mutual TLS)."""
    kafka_certificate_key: Path | None = None
    """PEM file of its key, without passphrase."""
    kafka_sasl_mechanism: Mechanism | None = None
    kafka_user: str = ""
    kafka_password: SecretStr = SecretStr("")
    database_url: str = ""
    """SQLAlchemy URL of PostgreSQL (``postgresql+psycopg://…``); empty: the local stack."""
    home: Path = Path(".govbus")
    """Where the local stack keeps its data, logs and state."""
    region: str = Field(default="430903", pattern=r"^\d{6}(\d{3})?$")
    """Region code (GB/T 2260) of the district that owns this bus."""
    clock: Literal["wall", "watermark"] = "wall"
    """What timers take for now: the wall clock, or the events' own ``received_at`` watermark (simulation)."""
    timer_settle_ms: int = 200
    """How long after a due time the timer waits for evidence that is still on its way, in milliseconds."""
    worker_name: str = ""
    """Name of this worker in its group, unlike any other's; empty: a restart waits for the session timeout."""
    province_url: str = ""
    """Base URL of the province's platform; empty: the local stack's."""
    province_database_url: str = ""
    """Database of the province's own process; empty: the local stack's. Only ``govbus province`` reads it."""
    province_public_key: str = ""
    """Hex Ed25519 public key that the province signs receipts with, by comma before its former ones; empty: the local
    stack's."""
    replication: int = 0
    """Replication factor that ``topics apply`` asks for; 0: as many as there are brokers, three at most."""
    webhooks: tuple[WebhookSettings, ...] = ()
    """Who is called about alerts, as a JSON list; see docs/alerts.md."""
    webhook_hosts: tuple[str, ...] = ()
    """The hosts that may be called, as a JSON list; any other is refused."""
    webhook_loopback: bool = False
    """For tests: lets webhooks go to this machine, over plain HTTP too."""
    webhook_attempts: int = Field(default=250, ge=1, le=1000)
    """So often a delivery is tried before it is given up and shown as dead: 250 take ten days, as the waits between
    them are an hour at most.
    """
    webhook_timeout: float = Field(default=10.0, gt=0, le=60)
    delivery_max_age_hours: float = Field(default=240.0, gt=0)
    """Alerts older than this when they are read are not delivered: a first start or a replay would send the history.
    Ten days: what is issued on the eve of the longest public holiday (nine days) is, where all stood still over it.
    """
    digest_dir: Path | None = None
    """Where the daily digest is dropped as an .eml file; none: no file."""
    digest_at: str = Field(default="08:30", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    """When the digest is made, Asia/Shanghai."""
    digest_to: tuple[MailAddress, ...] = ()
    """Who receives the digest, as a JSON list."""
    digest_from: MailAddress = "govbus@localhost"
    smtp: str = Field(default="", pattern=r"^$|^[A-Za-z0-9.-]+:\d{1,5}$")
    """``host:port`` of a mail server that takes the digest; empty: only the file."""
    quiet_from: str = Field(default="", pattern=r"^$|^([01]\d|2[0-3]):[0-5]\d$")
    """Quiet hours begin, Asia/Shanghai; empty: none. They hold digests and ``quiet_holds``, never a red card."""
    quiet_to: str = Field(default="", pattern=r"^$|^([01]\d|2[0-3]):[0-5]\d$")
    quiet_holds: tuple[Literal["YELLOW", "NONE"], ...] = ("YELLOW",)
    """Colours of alerts that wait for the end of the quiet hours."""
    failpoint: str = ""
    """For the fault rig: the place (``streams.store.failpoints``), ``name[:n][@later]``, at which the process dies."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("database_url", "province_database_url")
    @classmethod
    def _names_a_database(cls, url: str) -> str:
        """PostgreSQL alone, whose usual ``postgresql://`` is taken too. The value may hold a password: never told."""
        driven = re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)
        if driven and not re.fullmatch(DATABASE, driven):  # a second @ would show half of the password as a host
            raise ValueError("must be postgresql://user:password@host:port/database; in a password write %40 for @, "
                             "%2F for /, %3A for :")  # fmt: skip
        return driven

    @field_validator("province_url")
    @classmethod
    def _names_a_platform(cls, url: str) -> str:
        """What no request can go to would end the push, or let it wait for ever. The value is never told."""
        if url and not (re.fullmatch(PLATFORM, url) and _split(url) and _taken_by_httpx(url)):
            raise ValueError("must be http:// or https:// with a host, as https://host:port/path: no user, password, "
                             "query or fragment, the port up to 65535")  # fmt: skip
        return url

    @field_validator("province_public_key")
    @classmethod
    def _is_a_key(cls, keys: str) -> str:
        """A digit too few would make every receipt look as if somebody else had signed it."""
        if keys and not all(re.fullmatch(r"\s*[0-9A-Fa-f]{64}\s*", key) for key in keys.split(",")):
            raise ValueError("must be 64 hex digits (Ed25519), and so each former key behind a comma; ask the province")
        return keys

    @field_validator("kafka")
    @classmethod
    def _names_brokers(cls, servers: str) -> str:
        if servers and not all(re.fullmatch(r".+:\d{1,5}", server) for server in servers.split(",")):
            raise ValueError("must be host:port[,host:port…]")
        return servers

    @field_validator("kafka_ca", "kafka_certificate", "kafka_certificate_key", "kafka_sasl_mechanism", mode="before")
    @classmethod
    def _may_be_empty(cls, value: object) -> object:
        return value or None

    @field_validator("smtp")
    @classmethod
    def _can_be_called(cls, server: str) -> str:
        if server and _split(f"smtp://{server}") is None:
            raise ValueError("must be host:port, the port up to 65535, at most 63 characters between dots")
        return server

    def kafka_access(self) -> Access:
        """How a process with these settings speaks to Kafka."""
        return Access(
            self.kafka_security, self.kafka_ca, self.kafka_certificate, self.kafka_certificate_key,
            self.kafka_sasl_mechanism, self.kafka_user, self.kafka_password.get_secret_value(),
        )  # fmt: skip


DEMO = "demo.json"
"""In a home: what district is simulated there, whose time is that of its events."""


def load() -> Settings:
    """Settings from the environment; raises ``Misconfigured`` that lists every fault at once."""
    try:
        settings = Settings()
    except ValidationError as error:
        raise Misconfigured(
            *(f"GOVBUS_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors(include_input=False))
        ) from None
    except SettingsError as error:  # a list that is no JSON
        raise Misconfigured(str(error)) from None
    if faults := _together(settings):
        raise Misconfigured(*faults)
    if "clock" not in settings.model_fields_set and (settings.home / DEMO).exists():
        return settings.model_copy(update={"clock": "watermark"})
    return settings


def _together(settings: Settings) -> list[str]:
    """Faults between settings."""
    faults = _kafka_faults(settings)
    names = [hook.name for hook in settings.webhooks]
    if len(set(names)) < len(names) or "digest" in names:
        faults.append("GOVBUS_WEBHOOKS: names must differ, and none may be digest")
    for hook in settings.webhooks:
        faults += [f"GOVBUS_WEBHOOKS.{hook.name}.url: {fault}" for fault in _url_faults(hook.url, settings)]
    if bool(settings.quiet_from) != bool(settings.quiet_to):
        faults.append("GOVBUS_QUIET_FROM: set GOVBUS_QUIET_TO too, or neither")
    if (settings.digest_dir or settings.smtp) and not settings.digest_to:
        faults.append("GOVBUS_DIGEST_TO: a digest needs somebody who receives it")
    if settings.digest_to and not (settings.digest_dir or settings.smtp):
        faults.append("GOVBUS_DIGEST_TO: a digest needs a way to them: set GOVBUS_SMTP or GOVBUS_DIGEST_DIR")
    return faults


def _kafka_faults(settings: Settings) -> list[str]:
    """What is wrong with how Kafka is to be spoken to."""
    access, given = settings.kafka_access(), [name for name in (*TLS, *SASL) if getattr(settings, name)]
    if not settings.kafka and (access.guarded or given):
        names = ", ".join(map(_variable, ["kafka_security"] * access.guarded + given))
        return [f"GOVBUS_KAFKA: name the servers that {names} are for; the local stack speaks PLAINTEXT"]
    said = f"GOVBUS_KAFKA_SECURITY={access.security}"
    idle = (TLS if not access.encrypted else ()) + (SASL if not access.named else ())
    faults = [f"{_variable(n)}: {said} does not use it; change that, or unset this" for n in idle if n in given]
    faults += [f"{_variable(n)}: {said} needs it" for n in SASL if access.named and n not in given]
    if access.named and access.mechanism != "PLAIN" and re.search("[,=]", access.user):
        faults.append("GOVBUS_KAFKA_USER: may hold no comma and no = with SCRAM")  # kafka-python does not quote them
    if bool(access.certificate) != bool(access.key):
        faults.append("GOVBUS_KAFKA_CERTIFICATE: set GOVBUS_KAFKA_CERTIFICATE_KEY too, or neither")
    return faults or (_file_faults(access) if access.encrypted else [])


def _variable(name: str) -> str:
    return f"GOVBUS_{name.upper()}"


def _file_faults(access: Access) -> list[str]:
    """Which files of certificates and keys do not serve; shows their paths, never what they hold."""
    files = dict(zip(TLS, (access.ca, access.certificate, access.key), strict=True))
    if shut := [f"{_variable(n)}: {path} cannot be read: {why}" for n, path in files.items() if (why := _shut(path))]:
        return shut
    for name, part, wanted in (
        ("kafka_ca", replace(access, certificate=None), "must hold certificates in PEM"),
        ("kafka_certificate", access, "must be PEM and belong to its key, which has no passphrase"),
    ):
        try:
            part.context()
        except (OSError, ValueError) as error:
            return [f"{_variable(name)}: {files[name]} {wanted}: {getattr(error, 'reason', None) or error}"]
    return []


def _shut(path: Path | None) -> str:
    """Why a file cannot be read; empty if it can."""
    try:
        _ = path and path.read_bytes()
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def _url_faults(url: str, settings: Settings) -> list[str]:
    """What is wrong with a webhook's address; never shows the address, which may hold a token."""
    parts = _split(url)
    if parts is None:
        return ["is no address: look at brackets, port and host (at most 63 characters between dots)"]
    faults = []
    if parts.scheme != "https" and not (settings.webhook_loopback and parts.scheme == "http"):
        faults.append("must begin with https://")
    if not parts.hostname or parts.hostname not in settings.webhook_hosts:
        faults.append("its host is not in GOVBUS_WEBHOOK_HOSTS")
    if parts.username or parts.password or parts.fragment:
        faults.append("must hold no user, password or fragment")
    if not re.fullmatch("[!-~]*", parts.path + parts.query):
        faults.append("its path and query must be ASCII without spaces: percent-encode them")
    return faults


def _split(url: str) -> SplitResult | None:
    """The parts of an address; None if nothing could be called there: no such port, or a host that IDNA refuses."""
    try:
        parts = urlsplit(url)
        _ = parts.port, (parts.hostname or "").encode("idna")
    except ValueError:  # an error of encoding is one too
        return None
    return parts


def _taken_by_httpx(url: str) -> bool:
    """Whether the push's client would begin with it: not with a host such as 10.0.0.256."""
    import httpx

    try:
        httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return True
