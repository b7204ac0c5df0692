"""Settings are refused as a whole, with every fault at once, and never show a secret."""

from __future__ import annotations

import json

import pytest

from govbus import settings
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


def test_a_webhook_with_everything_right_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOVBUS_WEBHOOKS", json.dumps([HOOK]))
    monkeypatch.setenv("GOVBUS_WEBHOOK_HOSTS", '["desk.example"]')
    (hook,) = settings.load().webhooks
    assert hook.secret.get_secret_value() == HOOK["secret"]
    assert HOOK["secret"] not in repr(settings.load())
