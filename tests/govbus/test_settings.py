"""Settings are refused as a whole, with every fault at once, and never show a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from govbus import settings
from schemas.access import Access
from schemas.errors import Misconfigured

HOOK = {"name": "desk", "url": "https://desk.example/alerts", "secret": "sixteen-characters-at-least"}


def faults(monkeypatch: pytest.MonkeyPatch, **values: str) -> str:
    for name, value in values.items():
        monkeypatch.setenv(f"GOVBUS_{name}", value)
    with pytest.raises(Misconfigured) as caught:
        settings.load()
    return str(caught.value)


def test_every_fault_of_the_webhooks_is_told_at_once_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = [{**HOOK, "secret": "short"}, {**HOOK, "name": "No Spaces", "colour": "RED"}]
    told = faults(monkeypatch, WEBHOOKS=json.dumps(hooks), QUIET_FROM="25:00", DIGEST_AT="8")
    assert [line.removeprefix("- ").split(":")[0] for line in told.splitlines()] == [
        "GOVBUS_WEBHOOKS.0.SECRET", "GOVBUS_WEBHOOKS.1.NAME", "GOVBUS_WEBHOOKS.1.COLOUR", "GOVBUS_DIGEST_AT",
        "GOVBUS_QUIET_FROM",
    ]  # fmt: skip
    assert "'short'" not in told


def test_faults_between_settings_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = [{**HOOK, "url": "http://10.0.0.1/x"}, {**HOOK, "url": "https://u:p@desk.example/"}]
    told = faults(monkeypatch, WEBHOOKS=json.dumps(hooks), WEBHOOK_HOSTS='["desk.example"]', QUIET_FROM="22:00",
                  DIGEST_DIR="mail")  # fmt: skip
    for text in (
        "names must differ", "must begin with https://", "its host is not in GOVBUS_WEBHOOK_HOSTS",
        "must hold no user, password", "set GOVBUS_QUIET_TO too", "GOVBUS_DIGEST_TO",
    ):  # fmt: skip
        assert text in told
    assert "10.0.0.1" not in told


LONG = f"{'a' * 64}.example"


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("https://desk.example/预警", "percent-encode"),
        ("https://desk.example/x?name=预警", "percent-encode"),
        ("https://desk.example/a b", "percent-encode"),
        ("https://desk.example:99999/", "is no address"),
        ("https://[::1/x", "is no address"),
        (f"https://{LONG}/", "at most 63 characters"),
    ],
)
def test_an_address_that_could_never_be_called_is_refused(
    monkeypatch: pytest.MonkeyPatch, url: str, fault: str
) -> None:
    hosts = json.dumps(["desk.example", LONG])
    told = faults(monkeypatch, WEBHOOKS=json.dumps([{**HOOK, "url": url}]), WEBHOOK_HOSTS=hosts)
    assert told.startswith("- GOVBUS_WEBHOOKS.desk.url: ")
    assert fault in told
    assert url not in told


@pytest.mark.parametrize(
    "text", ["a@", "", "nobody", "desk@heshan\nBcc: all@heshan", "a@b, c@d", "预警@heshan", '"', "?:;'\""]
)
def test_a_mail_address_that_would_end_the_digest_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    told = faults(monkeypatch, DIGEST_TO=json.dumps(["leader@heshan", text]), DIGEST_FROM=text)
    assert [line.removeprefix("- ").split(":")[0] for line in told.splitlines()] == [
        "GOVBUS_DIGEST_TO.1", "GOVBUS_DIGEST_FROM"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "unknown"), [("kinds", "escalation"), ("colours", "red"), ("departments", "区住建局")]
)
def test_a_subscriber_of_what_no_alert_is_is_refused(monkeypatch: pytest.MonkeyPatch, what: str, unknown: str) -> None:
    told = faults(monkeypatch, WEBHOOKS=json.dumps([{**HOOK, what: [unknown]}]))
    assert told.startswith(f"- GOVBUS_WEBHOOKS.0.{what.upper()}: ")
    assert f"{unknown}: no code of govbus." in told


def test_a_digest_that_has_no_way_to_its_receivers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "GOVBUS_SMTP or GOVBUS_DIGEST_DIR" in faults(monkeypatch, DIGEST_TO='["leader@heshan"]')


def test_a_receiver_may_have_a_name_beside_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOVBUS_DIGEST_TO", '["leader@heshan", "监察科 <desk@heshan>"]')
    monkeypatch.setenv("GOVBUS_DIGEST_DIR", "mail")
    assert settings.load().digest_to == ("leader@heshan", "监察科 <desk@heshan>")


@pytest.mark.parametrize("server", ["mail.heshan:99999", f"{LONG}:25", "mail..heshan:25"])
def test_a_mail_server_that_could_never_be_called_is_refused(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    assert "GOVBUS_SMTP" in faults(monkeypatch, SMTP=server)


def test_a_webhook_with_everything_right_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOVBUS_WEBHOOKS", json.dumps([HOOK]))
    monkeypatch.setenv("GOVBUS_WEBHOOK_HOSTS", '["desk.example"]')
    (hook,) = settings.load().webhooks
    assert hook.secret.get_secret_value() == HOOK["secret"]
    assert HOOK["secret"] not in repr(settings.load())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://govbus:p@ssw0rd@db:5432/govbus", "postgresql://govbus:p@ss:w0rd@db/govbus",
        "postgresql://govbus:w0rd@db:port/govbus", "postgresql://govbus:w0/rd@db/govbus", "mysql://db/govbus",
        "postgresql://db",
    ],
)  # fmt: skip
def test_a_database_url_that_could_show_its_password_is_refused_without_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    told = faults(monkeypatch, DATABASE_URL=url)
    assert "GOVBUS_DATABASE_URL: " in told
    assert "%40" in told
    assert "w0" not in told


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://govbus:p%40ss@db:5432/govbus", "postgresql+psycopg://govbus@127.0.0.1:5432/govbus",
        "postgres://db/govbus?sslmode=verify-full&sslrootcert=/etc/ca.pem", "postgresql://u:p@[::1]:5432/govbus",
        "postgresql://govbus@/govbus?host=/run/postgresql",
    ],
)  # fmt: skip
def test_the_usual_database_urls_are_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GOVBUS_DATABASE_URL", url)
    assert settings.load().database_url.startswith("postgresql+psycopg://")


@pytest.mark.parametrize(
    "url",
    [
        "province.example:8430", "http://province.example:99999", "http://province.example:port", "http://:8430",
        "https://u:w0rd@province.example", "https://province.example/?token=w0rd", "https://province.example/#w0rd",
        "ftp://province.example", "http://10.0.0.256:8430", "http://[:::]", "http://pro vince", f"http://{LONG}",
    ],
)  # fmt: skip
def test_a_province_that_no_request_reaches_is_refused_without_its_address(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    told = faults(monkeypatch, PROVINCE_URL=url)
    assert "GOVBUS_PROVINCE_URL: " in told
    assert "must be http:// or https:// with a host" in told
    assert "w0rd" not in told


@pytest.mark.parametrize(
    "url", ["http://province:8430", "https://sheng.example.cn/hcp/", "http://127.0.0.1:8430", "http://[::1]:8430"]
)
def test_the_usual_addresses_of_a_province_are_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GOVBUS_PROVINCE_URL", url)
    assert settings.load().province_url == url


@pytest.mark.parametrize("keys", ["ab" * 31 + "a", "ab" * 33, "zz" * 32, "ab" * 32 + ",", f"{'ab' * 32},cd"])
def test_a_key_by_which_no_receipt_could_be_proven_is_refused(monkeypatch: pytest.MonkeyPatch, keys: str) -> None:
    told = faults(monkeypatch, PROVINCE_PUBLIC_KEY=keys)
    assert "GOVBUS_PROVINCE_PUBLIC_KEY: " in told
    assert "must be 64 hex digits" in told


def test_a_key_may_stand_before_its_former_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOVBUS_PROVINCE_PUBLIC_KEY", keys := f"{'ab' * 32}, {'CD' * 32}")
    assert settings.load().province_public_key == keys


PASSWORD = "never-to-be-shown"
SASL = {"KAFKA_SASL_MECHANISM": "SCRAM-SHA-512", "KAFKA_USER": "govbus", "KAFKA_PASSWORD": PASSWORD}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"KAFKA_SECURITY": "SASL_SSL"}, ["KAFKA_SASL_MECHANISM", "KAFKA_USER", "KAFKA_PASSWORD"]),
        ({"KAFKA_SECURITY": "SASL_PLAINTEXT", **SASL, "KAFKA_PASSWORD": ""}, ["KAFKA_PASSWORD"]),
        ({"KAFKA_SECURITY": "SASL_PLAINTEXT", **SASL, "KAFKA_CA": "ca.pem"}, ["KAFKA_CA"]),
        ({"KAFKA_SECURITY": "SSL", **SASL}, ["KAFKA_SASL_MECHANISM", "KAFKA_USER", "KAFKA_PASSWORD"]),
        ({"KAFKA_CERTIFICATE": "a", "KAFKA_CERTIFICATE_KEY": "b"}, ["KAFKA_CERTIFICATE", "KAFKA_CERTIFICATE_KEY"]),
        ({"KAFKA_SECURITY": "SSL", "KAFKA_CERTIFICATE": "a.pem"}, ["KAFKA_CERTIFICATE"]),
        ({"KAFKA_SECURITY": "SSL", "KAFKA_CERTIFICATE_KEY": "a.key"}, ["KAFKA_CERTIFICATE"]),
        ({"KAFKA_SECURITY": "SSL", "KAFKA_CA": "/nowhere/ca.pem"}, ["KAFKA_CA"]),
        ({"KAFKA_SECURITY": "SASL_SSL", **SASL, "KAFKA_USER": "a,b"}, ["KAFKA_USER"]),
        ({"KAFKA_SECURITY": "TLS"}, ["KAFKA_SECURITY"]),
        ({"KAFKA_SECURITY": "SASL_SSL", **SASL, "KAFKA_SASL_MECHANISM": "GSSAPI"}, ["KAFKA_SASL_MECHANISM"]),
        ({"KAFKA": "", "KAFKA_SECURITY": "SSL"}, ["KAFKA"]),
        ({"KAFKA": "", "KAFKA_PASSWORD": PASSWORD}, ["KAFKA"]),
    ],
)  # fmt: skip
def test_how_kafka_is_spoken_to_is_told_whole_or_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], told: list[str]
) -> None:
    text = faults(monkeypatch, **{"KAFKA": "kafka.town:9093", **given})
    assert [line.removeprefix("- GOVBUS_").split(":")[0] for line in text.splitlines()] == told
    assert PASSWORD not in text


def test_a_file_that_serves_for_no_tls_is_refused_at_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, authority: Any
) -> None:
    town = authority("town")
    (certificate, key), (_, another) = town.certificate("ours"), town.certificate("another")
    (hidden, encrypted), empty = town.certificate("hidden", passphrase=b"secret"), tmp_path / "empty.pem"
    empty.touch()
    rest = {"KAFKA": "kafka.town:9093", "KAFKA_SECURITY": "SSL"}
    for ca, ours, its, name, word in (
        (empty, certificate, key, "CA", "must hold certificates in PEM"),
        (tmp_path, certificate, key, "CA", "cannot be read: Is a directory"),
        (town.ca, certificate, tmp_path / "ours.key", "CERTIFICATE_KEY", "cannot be read: No such file"),
        (town.ca, certificate, another, "CERTIFICATE", "belong to its key"),
        (town.ca, key, certificate, "CERTIFICATE", "must be PEM"),
        (town.ca, hidden, encrypted, "CERTIFICATE", "the key is encrypted"),
    ):
        given = {"KAFKA_CA": str(ca), "KAFKA_CERTIFICATE": str(ours), "KAFKA_CERTIFICATE_KEY": str(its)}
        told = faults(monkeypatch, **rest, **given)
        assert told.startswith(f"- GOVBUS_KAFKA_{name}: {given[f'KAFKA_{name}']} ")
        assert word in told
    monkeypatch.setenv("GOVBUS_KAFKA_CERTIFICATE", str(certificate))
    monkeypatch.setenv("GOVBUS_KAFKA_CERTIFICATE_KEY", str(key))
    assert settings.load().kafka_access() == Access("SSL", town.ca, certificate, key)


def test_the_password_of_kafka_is_in_no_text_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"KAFKA": "kafka.town:9093", "KAFKA_SECURITY": "SASL_SSL", "KAFKA_CA": "", **SASL}.items():
        monkeypatch.setenv(f"GOVBUS_{name}", value)
    found = settings.load()
    assert found.kafka_access() == Access("SASL_SSL", None, None, None, "SCRAM-SHA-512", "govbus", PASSWORD)
    for text in (repr(found), str(found), found.model_dump_json(), repr(found.kafka_access())):
        assert PASSWORD not in text


def test_a_region_is_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "GOVBUS_REGION" in faults(monkeypatch, REGION="4309O3")


def test_the_operator_s_table_names_every_setting_and_no_other() -> None:
    told = (Path(__file__).parents[2] / "docs" / "operate.md").read_text().partition("## Settings")[2]
    named = {word.strip("`,").removeprefix("GOVBUS_").lower() for word in told.split() if word.startswith("`GOVBUS_")}
    assert named == set(settings.Settings.model_fields)


@pytest.mark.parametrize(("given", "found"), [(None, "watermark"), ("wall", "wall")])
def test_in_the_demo_s_home_time_is_the_demo_s_unless_somebody_says_otherwise(
    given: str | None, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOVBUS_HOME", str(tmp_path))
    assert settings.load().clock == "wall"
    (tmp_path / settings.DEMO).write_text("{}")
    if given:
        monkeypatch.setenv("GOVBUS_CLOCK", given)
    assert settings.load().clock == found
