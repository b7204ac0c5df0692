"""How this process speaks to Kafka: encrypted or not, and as whom, in the words of each of its three clients.

Decides nothing but that, and which settings an operator looks at when Kafka does not let us in. The composition root
sets it once (``use``); until then it is PLAINTEXT, which is what the local stack and every rig speaks.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from schemas.errors import Misconfigured

Security = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
ANSWER_S = 3.0
"""How long Kafka is asked why it does not let us in."""
AGAIN_S = 1.0
"""How long to wait before it is asked once more: a broker that is just ending may say what sounds like a refusal."""
MENDS: Mapping[str, str] = {
    r"mismatch|not valid for": "GOVBUS_KAFKA, which must name the hosts as their certificates do",
    r"certificate (has expired|is not yet valid)": "the brokers' own certificates",
    r"certificate verify failed": "GOVBUS_KAFKA_CA",
    r"certificate required|bad certificate|unknown ca\b|certificate unknown|certificate expired":
        "GOVBUS_KAFKA_CERTIFICATE, GOVBUS_KAFKA_CERTIFICATE_KEY",
    r"current SASL state|wrong version number|record layer failure": "GOVBUS_KAFKA_SECURITY",
    r"mechanism handshake failed|UnsupportedSaslMechanism": "GOVBUS_KAFKA_SASL_MECHANISM",
    r"SASL authentication error: (?!Sasl\w+ failed)|SaslAuthenticationFailed":
        "GOVBUS_KAFKA_USER, GOVBUS_KAFKA_PASSWORD",
}  # fmt: skip
"""What to look at, by what the clients say; the first that is found holds."""
GUESSES: Mapping[str, str] = {
    r"Disconnected: .* in state (APIVERSION_QUERY|SSL_HANDSHAKE|UP)": "GOVBUS_KAFKA_SECURITY"
}
"""Likewise, of what a broker that ends, or a wire before it, brings about too."""
AWAY = r"Connect to .* failed|Failed to resolve"


class Denied(Misconfigured):
    """Kafka answers and does not let us in: a certificate, a password or the protocol is wrong."""


@dataclass(frozen=True, slots=True)
class Access:
    """One way of being let in. Files hold PEM; ``ca`` None: the certificate authorities of the system.

    Where anything is encrypted, the host's name is compared with its certificate; nothing turns that off.
    """

    security: Security = "PLAINTEXT"
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    mechanism: Mechanism | None = None
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def encrypted(self) -> bool:
        """Whether this is TLS."""
        return self.security in ("SSL", "SASL_SSL")

    @property
    def guarded(self) -> bool:
        """Whether Kafka could refuse us."""
        return self.security != "PLAINTEXT"

    @property
    def named(self) -> bool:
        """Whether a user and a password are sent."""
        return self.security in ("SASL_PLAINTEXT", "SASL_SSL")

    def confluent(self) -> dict[str, Any]:
        """What confluent-kafka is told beside ``bootstrap.servers``."""
        told: dict[str, Any] = {"security.protocol": self.security}
        if self.encrypted:
            told |= {"ssl.endpoint.identification.algorithm": "https", "ssl.ca.location": str(self.ca or "probe")}
        if self.encrypted and self.certificate and self.key:
            told |= {"ssl.certificate.location": str(self.certificate), "ssl.key.location": str(self.key)}
        if self.named:
            told |= {"sasl.mechanism": self.mechanism, "sasl.username": self.user, "sasl.password": self.password}
        return told

    def kafka_python(self) -> dict[str, Any]:
        """What kafka-python is told beside ``bootstrap_servers``."""
        told: dict[str, Any] = {"security_protocol": self.security}
        if self.encrypted:
            told["ssl_context"] = self.context()
        if self.named:
            told |= {"sasl_mechanism": self.mechanism, "sasl_plain_username": self.user,
                     "sasl_plain_password": self.password}  # fmt: skip
        return told

    def faust(self) -> Any:
        """Faust's ``broker_credentials``, which it hands to aiokafka."""
        import faust

        context = self.context() if self.encrypted else None
        if self.named:
            return faust.SASLCredentials(
                username=self.user, password=self.password, mechanism=self.mechanism, ssl_context=context
            )
        return faust.SSLCredentials(context) if context else None

    def context(self) -> ssl.SSLContext:
        """TLS that knows the authorities and our certificate; raises ``OSError`` (``ssl.SSLError`` is one) or
        ``ValueError`` for a file that does not serve.
        """
        return _context(self.ca, self.certificate, self.key)


@cache
def _context(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca) if ca else None)
    if certificate:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    return context


def _no_passphrase() -> str:
    """OpenSSL would ask the terminal for it."""
    raise ValueError("the key is encrypted")


_current = Access()


def use(access: Access) -> None:
    """Speak to Kafka like this from now on."""
    global _current
    _current = access


def current() -> Access:
    """How this process speaks to Kafka."""
    return _current


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why Kafka at ``bootstrap`` does not let us in, in a client's words; ``sure``: it may not just be going away."""

    bootstrap: str
    said: str
    look: str
    sure: bool

    def __str__(self) -> str:
        return f"Kafka at {self.bootstrap} does not let us in: {self.said}; look at {self.look}"


def mend(said: str, signs: Mapping[str, str] = MENDS) -> str:
    """The settings to look at when a client says ``said``; empty if it does not speak of being let in."""
    return next((names for sign, names in signs.items() if re.search(sign, said, re.IGNORECASE)), "")


def refusal(bootstrap: str) -> Refusal | None:
    """Why Kafka does not let us in; None if it does, or if nobody answers."""
    if _refusal(bootstrap) is None:
        return None
    time.sleep(AGAIN_S)
    return _refusal(bootstrap)


def _refusal(bootstrap: str) -> Refusal | None:
    """Asks confluent-kafka, which alone has words for it, most of them in its log."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    heard = Heard()
    asked = {"bootstrap.servers": bootstrap, "log_level": 6, **current().confluent()}
    admin: Any = AdminClient(asked, logger=heard.logger)
    until = time.monotonic() + ANSWER_S
    while time.monotonic() < until:
        with suppress(KafkaException):
            admin.list_topics(timeout=0.25)
            return None
        admin.poll(0)
        for signs in (MENDS, GUESSES):
            if said := next((text for text in heard.lines if mend(text, signs)), ""):
                known = _certificate(said) or said
                return Refusal(bootstrap, known.partition(" (after ")[0], mend(known, signs), signs is MENDS)
        if heard.lines and all(re.search(AWAY, text) for text in heard.lines):
            return None
    return None


class Heard(logging.Handler):
    """What confluent-kafka tells of its connections."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.logger = logging.Logger(__name__)
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line without the names of the client and its thread."""
        if (text := record.getMessage()).startswith("FAIL "):
            self.lines.append(text.partition("]: ")[2])


def _certificate(said: str) -> str:
    """What is wrong with a broker's certificate, if that is said: confluent-kafka knows, but does not tell."""
    found = re.search(r"(\w+://\[?([^/]+?)\]?:(\d+))/.*certificate verify failed", said)
    if not found:
        return ""
    try:
        with socket.create_connection((found[2], int(found[3])), ANSWER_S) as wire:
            current().context().wrap_socket(wire, server_hostname=found[2])
    except ssl.SSLCertVerificationError as error:
        return f"{found[1]}: certificate verify failed: {error.verify_message.rstrip('.')}"
    except OSError:
        pass
    return ""


def ask(bootstrap: str) -> Refusal | None:
    """Raise ``Denied`` if Kafka could refuse us and does; returns what is no more than a guess."""
    found = refusal(bootstrap) if current().guarded else None
    if found and found.sure:
        raise Denied(str(found))
    return found
