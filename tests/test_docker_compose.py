"""What can be checked of docker-compose.yml and the Dockerfile without a container engine."""

from __future__ import annotations

import base64
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from connectors.local.jars import locked_jars
from connectors.validate import filled_by_the_bus
from govbus.cli import build
from govbus.settings import Settings
from schemas import examples
from schemas.contracts import contract
from schemas.topics import RATING

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docker-compose.yml"
KAFKAS = ("kafka-1", "kafka-2", "kafka-3")
GOVBUS = ("worker", "relay", "alerts", "desk", "directory", "delivery", "push", "province")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(yaml.safe_load(COMPOSE.read_text())["services"])


def check_against_specification(path: Path) -> subprocess.CompletedProcess[str]:
    """Validates a file against the Compose Specification's JSON schema, which check-jsonschema carries."""
    command = [
        str(Path(sys.executable).with_name("check-jsonschema")),
        "--builtin-schema",
        "vendor.compose-spec",
    ]
    return subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)


def test_the_compose_file_is_valid_by_the_published_specification() -> None:
    done = check_against_specification(COMPOSE)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("right", "wrong"), [("image:", "imagee:"), ("interval: 15s", "interval: [15]")])
def test_the_check_against_the_specification_refuses_a_broken_file(
    tmp_path: Path, right: str, wrong: str
) -> None:
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(COMPOSE.read_text().replace(right, wrong, 1))
    assert check_against_specification(broken).returncode == 1


def test_every_govbus_service_runs_a_command_that_exists(services: dict[str, Any]) -> None:
    known = typer.main.get_command(build())
    for name in GOVBUS:
        command, *options = services[name]["command"]
        found = known.commands[command]  # type: ignore[attr-defined]
        spelled = {option for parameter in found.params for option in parameter.opts}
        assert {o for o in options if o.startswith("--")} <= spelled, name


def test_the_init_job_runs_commands_that_exist(services: dict[str, Any]) -> None:
    known = typer.main.get_command(build()).commands  # type: ignore[attr-defined]
    steps = [step.split() for step in services["init"]["entrypoint"][2].split("&&")]
    assert [step[0] for step in steps] == ["govbus"] * 3
    for _, group, sub, *options in steps:
        spelled = {option for parameter in known[group].commands[sub].params for option in parameter.opts}
        assert {o for o in options if o.startswith("--")} <= spelled, sub
    assert steps[-1][1:4] == ["calendar", "load", "--shipped"]


def test_one_service_builds_the_image_and_the_others_wait_for_it(services: dict[str, Any]) -> None:
    """Every service with a build of its own would be built at once, into the same tag."""
    assert [name for name, service in services.items() if "build" in service] == ["init"]
    assert {services[name]["image"] for name in ("init", *GOVBUS)} == {"govbus:local"}
    for name in GOVBUS:
        assert services[name]["pull_policy"] == "never", name
        assert services[name]["depends_on"]["init"] == {"condition": "service_completed_successfully"}, name


def test_the_images_are_the_versions_that_the_tests_run(services: dict[str, Any]) -> None:
    kafka = next(jar.version for jar in locked_jars() if jar.artifact == "kafka_2.13")
    assert {services[name]["image"] for name in KAFKAS} == {f"apache/kafka:{kafka}"}
    assert services["postgres"]["image"] == services["province-postgres"]["image"] == "postgres:18"


def test_three_brokers_vote_and_two_copies_must_exist(services: dict[str, Any]) -> None:
    for number, name in enumerate(KAFKAS, start=1):
        environment = services[name]["environment"]
        assert environment["KAFKA_NODE_ID"] == number
        assert environment["KAFKA_ADVERTISED_LISTENERS"] == f"CLIENT://{name}:9092"
        assert environment["KAFKA_CONTROLLER_QUORUM_VOTERS"] == "1@kafka-1:9093,2@kafka-2:9093,3@kafka-3:9093"
        assert environment["KAFKA_MIN_INSYNC_REPLICAS"] == 2
        assert environment["KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR"] == 3
        assert len(base64.urlsafe_b64decode(environment["CLUSTER_ID"] + "==")) == 16
    assert services["worker"]["environment"]["GOVBUS_REPLICATION"] == 3


def test_every_lasting_service_has_a_health_check_and_comes_back(services: dict[str, Any]) -> None:
    lasting = {name: service for name, service in services.items() if name != "init"}
    assert all(service["healthcheck"]["test"] for service in lasting.values())
    assert all(service["restart"] == "unless-stopped" for service in lasting.values())


def test_the_health_check_of_the_processes_is_a_command_that_exists(services: dict[str, Any]) -> None:
    _, program, name, *options = services["worker"]["healthcheck"]["test"]
    known = typer.main.get_command(build()).commands[name]  # type: ignore[attr-defined]
    assert (program, options) == ("govbus", ["--alive"])
    assert {option for parameter in known.params for option in parameter.opts} >= set(options)


def test_data_lives_in_named_volumes(services: dict[str, Any]) -> None:
    named = set(yaml.safe_load(COMPOSE.read_text())["volumes"])
    keepers = (*KAFKAS, "postgres", "province-postgres", "province")
    assert {services[name]["volumes"][0].split(":")[0] for name in keepers} == named


def test_nothing_is_published_on_the_host_and_no_password_is_written_down(services: dict[str, Any]) -> None:
    assert not any("ports" in service for service in services.values())
    passwords = [
        services["worker"]["environment"]["PGPASSWORD"],
        services["postgres"]["environment"]["POSTGRES_PASSWORD"],
    ]
    assert all(password.startswith("${GOVBUS_DB_PASSWORD:?") for password in passwords)


def test_a_password_may_hold_any_character(services: dict[str, Any]) -> None:
    """In a URL an @ of the password would begin the host, which is shown."""
    urls = [v for s in services.values() for k, v in s.get("environment", {}).items() if k.endswith("DATABASE_URL")]
    assert len(urls) > 5
    assert not any("$" in url for url in urls)


def test_what_the_containers_are_told_are_settings(services: dict[str, Any]) -> None:
    told = {name for s in services.values() for name in s.get("environment", {}) if name.startswith("GOVBUS_")}
    assert told > {"GOVBUS_KAFKA", "GOVBUS_WEBHOOKS", "GOVBUS_PROVINCE_PUBLIC_KEY"}
    assert {name.removeprefix("GOVBUS_").lower() for name in told} <= set(Settings.model_fields)


def test_every_setting_of_the_processes_can_be_told_to_a_container(services: dict[str, Any]) -> None:
    """Left out: how another Kafka is spoken to, what one container has to itself, tests and simulations."""
    own = ("kafka_", "home", "worker_name", "clock", "failpoint", "webhook_loopback")
    told = {name for s in services.values() for name in s.get("environment", {}) if name.startswith("GOVBUS_")}
    settings = {name for name in Settings.model_fields if not name.startswith(own)}
    assert settings == {name.removeprefix("GOVBUS_").lower() for name in told}
    for name in ("worker", "relay", "alerts", "desk", "push", "delivery"):
        assert {"GOVBUS_LOG_LEVEL", "GOVBUS_TIMER_SETTLE_MS"} <= set(services[name]["environment"]), name


@pytest.mark.parametrize("line", [line for line in COMPOSE.read_text().splitlines() if " publish " in line])
def test_the_example_of_the_head_publishes(line: str, tmp_path: Path) -> None:
    words = shlex.split(line.removeprefix("#"))
    told = words[words.index("relay") + 1 :]
    assert f"$PWD:{Path(told[2]).parent}:ro" in words
    required = {f["name"] for f in contract(RATING)["fields"] if "default" not in f} - filled_by_the_bus(RATING)
    whole = next(iter(examples.load(RATING).values()))
    rating = {name: str(value) for name, value in whole.items() if name in required}
    (tmp_path / "ratings.csv").write_text(",".join(rating) + "\n" + ",".join(rating.values()) + "\n")
    done = CliRunner().invoke(build(), [*told[:2], str(tmp_path / "ratings.csv"), *told[3:], "--json"])
    assert done.exit_code == 0, done.output


def test_everything_that_the_image_copies_exists() -> None:
    copies = [
        line.split()[1:-1]
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY")
    ]
    sources = [source for parts in copies if not parts[0].startswith("--from") for source in parts]
    assert "schemas" in sources
    assert all((ROOT / source).exists() for source in sources)
