"""One way of speaking to Kafka, in the words of its three clients, and what an operator is told to look at."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import faust
import pytest
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from schemas import access
from schemas.access import Access

NAMED = {"mechanism": "SCRAM-SHA-512", "user": "govbus", "password": "never-to-be-shown"}


def aiokafka(ours: Access) -> dict[str, Any]:
    """What Faust makes of our credentials."""
    return dict(credentials_to_aiokafka_auth(ours.faust()))


def test_who_sets_nothing_speaks_plaintext() -> None:
    assert access.current() == Access()
    assert Access().confluent() == {"security.protocol": "PLAINTEXT"}
    assert Access().kafka_python() == {"security_protocol": "PLAINTEXT"}
    assert aiokafka(Access()) == {"security_protocol": "PLAINTEXT"}
    assert not Access().guarded


def test_user_and_password_go_to_every_client() -> None:
    ours = Access("SASL_PLAINTEXT", **NAMED)  # type: ignore[arg-type]
    assert ours.confluent() == {
        "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "govbus",
        "sasl.password": "never-to-be-shown",
    }  # fmt: skip
    wanted = {
        "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": "govbus",
        "sasl_plain_password": "never-to-be-shown",
    }  # fmt: skip
    assert ours.kafka_python() == wanted
    assert aiokafka(ours) == {**wanted, "ssl_context": None}
    assert "never-to-be-shown" not in repr(ours) + repr(ours.faust())


def test_files_go_to_every_client_and_the_host_s_name_is_always_compared(authority: Any) -> None:
    town = authority("town")
    certificate, key = town.certificate("ours")
    ours = Access("SSL", town.ca, certificate, key)
    assert ours.confluent() == {
        "security.protocol": "SSL", "ssl.endpoint.identification.algorithm": "https",
        "ssl.ca.location": str(town.ca), "ssl.certificate.location": str(certificate), "ssl.key.location": str(key),
    }  # fmt: skip
    for told in (ours.kafka_python(), aiokafka(ours)):
        context = told.pop("ssl_context")
        assert told == {"security_protocol": "SSL"}
        assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
        assert [dict(part[0] for part in ca["subject"]) for ca in context.get_ca_certs()] == [{"commonName": "town"}]


def test_without_a_file_the_system_s_authorities_hold() -> None:
    ours = Access("SASL_SSL", **NAMED)  # type: ignore[arg-type]
    assert ours.confluent()["ssl.ca.location"] == "probe"
    assert ours.kafka_python()["ssl_context"].verify_mode == ssl.CERT_REQUIRED
    assert aiokafka(ours)["security_protocol"] == "SASL_SSL"


def test_a_key_with_a_passphrase_asks_no_terminal(authority: Any) -> None:
    certificate, key = authority("town").certificate("hidden", passphrase=b"secret")
    with pytest.raises(ValueError, match="the key is encrypted"):
        Access("SSL", None, certificate, key).context()


def test_the_worker_s_faust_is_given_what_this_process_uses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sqlalchemy as sa

    from streams.app import create_app

    monkeypatch.setattr(access, "_current", Access("SASL_PLAINTEXT", **NAMED))  # type: ignore[arg-type]
    app = create_app("localhost:1", sa.create_engine("postgresql+psycopg://"), [], tmp_path)
    found = app.conf.broker_credentials
    assert isinstance(found, faust.SASLCredentials)
    assert (found.username, found.password) == ("govbus", "never-to-be-shown")


@pytest.mark.parametrize(
    ("said", "look"),
    [
        ("ssl://a:1/bootstrap: SSL handshake failed: certificate verify failed: broker certificate could not be "
         "verified, verify that ssl.ca.location is correctly configured", "GOVBUS_KAFKA_CA"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer certificate",
         "GOVBUS_KAFKA_CA"),
        ("certificate verify failed: IP address mismatch, certificate is not valid for '127.0.0.2'", "GOVBUS_KAFKA, "),
        ("certificate verify failed: certificate has expired", "the brokers' own certificates"),
        ("SASL authentication error: SaslAuthenticateRequest failed: Local: Broker handle destroyed", ""),
        ("SASL authentication error: Authentication failed during authentication due to invalid credentials with SASL "
         "mechanism SCRAM-SHA-512", "GOVBUS_KAFKA_USER, GOVBUS_KAFKA_PASSWORD"),
        ('Unable connect to "a:1": [Error 58] SaslAuthenticationFailed: Authentication failed',
         "GOVBUS_KAFKA_USER, GOVBUS_KAFKA_PASSWORD"),
        ("Connect to ipv4#127.0.0.1:9 failed: Connection refused", ""),
        ("1/1 brokers are down", ""),
    ],
)  # fmt: skip
def test_what_a_client_says_names_the_settings_to_look_at(said: str, look: str) -> None:
    assert access.mend(said)[: len(look) or None] == look
