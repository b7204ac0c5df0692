"""What the READMEs tell people to type works: every command is run, on one demonstration."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from govbus.cli import build

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README.zh-CN.md")
SUPERVISE, PROVINCE = "docs/supervise.zh-CN.md", "docs/province.md"
ENDLESS = "govbus alerts watch"
BLOCK = re.compile(r"```console\n(.*?)```", re.S)
QUOTED = re.compile(r"`govbus ([a-z]+)(?: ([a-z]+))?[^`]*`")
GOVBUS = ".venv/bin/govbus "
SETTLE_S = 300.0
ALERT_S = 90.0


def typed(readme: str) -> list[str]:
    """The lines of all console blocks."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    return [line for block in BLOCK.findall(text) for line in block.splitlines()]


def recipe(target: str) -> str:
    """The last command that ``make target`` would run."""
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ARGS")  # this test itself runs under make
    env = {name: value for name, value in os.environ.items() if name not in outer}
    told = subprocess.run(["make", "-n", target], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return told.stdout.splitlines()[-1]


class Demo:
    """A demonstration that stays; ``run`` is another terminal beside it."""

    def __init__(self, home: Path) -> None:
        self.env = {**os.environ, "GOVBUS_HOME": str(home), "COLUMNS": "200"}
        self.report = home / "report.json"
        self.said = home / "said.txt"

    def start(self, command: str) -> None:
        words = [*shlex.split(command), "--cases", "60", "--json", str(self.report)]
        with self.said.open("w") as out:
            self.process = subprocess.Popen(
                words, cwd=ROOT, env=self.env, stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )
        self._wait("running; Ctrl-C ends it")

    def _wait(self, words: str) -> None:
        end = time.monotonic() + SETTLE_S
        while words not in self.said.read_text():
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < end, self.said.read_text()
            time.sleep(0.2)

    def run(self, command: str, seconds: float = 0.0) -> str:
        """What ``command`` prints; it is tried again for so many ``seconds`` until its exit code is 0."""
        end = time.monotonic() + seconds
        while True:
            done = subprocess.run(
                shlex.split(command), cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=180
            )
            if done.returncode == 0:
                return done.stdout
            assert time.monotonic() < end, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
            time.sleep(0.5)

    def stop(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """``make demo``, small, in a home of its own, left running."""
    home = tmp_path_factory.mktemp("demo")
    for directory in (home, *home.parents[:2]):
        directory.chmod(0o711)  # PostgreSQL's own user must be able to enter
    running = Demo(home)
    command = recipe("demo")
    assert command.startswith(GOVBUS.strip())
    try:
        running.start(shlex.join([*_govbus(), *shlex.split(command)[1:]]))
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()
        subprocess.run([*_govbus(), "down"], env=running.env, check=False, capture_output=True)


def _govbus() -> list[str]:
    return [sys.executable, "-m", "govbus.cli"]


@pytest.mark.stack
def test_make_demo_proves_a_small_district_and_says_how_to_look_around(demo: Demo) -> None:
    report: dict[str, Any] = json.loads(demo.report.read_text())
    assert report["ok"] is True
    assert report["reconcile"]["equal"] is True
    assert report["faults"] == report["faults_expected"]
    assert report["latency_ms"]["samples"] > 0
    assert "govbus alerts watch" in demo.said.read_text()


@pytest.mark.stack
def test_every_command_of_following_one_event_shows_it(demo: Demo) -> None:
    lines = [line for line in typed("README.md") if line.startswith(GOVBUS)]
    said = {}
    for line in lines:
        words = shlex.split(line)[1:]
        said[words[0]] = demo.run(shlex.join([*_govbus(), *words]), ALERT_S)
    assert "kafka-1" in said["status"]
    assert "1 rows: 1 new" in said["publish"]
    assert "差评" in said["alerts"]
    assert "非常不满意" in said["alerts"]
    assert "区住建局" in said["rollup"]
    assert "equal" in said["reconcile"]
    again = demo.run(shlex.join([*_govbus(), *shlex.split(lines[1])[1:]]))
    assert "1 rows: 1 same" in again


@pytest.mark.stack
def test_every_command_of_the_supervisors_manual_works_on_the_demo(demo: Demo) -> None:
    lines = [line.partition("#")[0].strip() for line in typed(SUPERVISE)]
    assert len(lines) >= 9
    for line in lines:
        if line != ENDLESS:
            told = CliRunner().invoke(build(), shlex.split(line)[1:], env=demo.env)
            assert (told.exit_code, bool(told.stdout)) == (0, True), f"{line}\n{told.output}"


@pytest.mark.stack
def test_every_address_of_the_provinces_manual_answers(demo: Demo) -> None:
    at = json.loads((demo.report.parent / "province" / "address.json").read_text())["url"]
    lines = [shlex.split(line) for line in typed(PROVINCE)]
    assert {words[0] for words in lines} == {"curl"}
    answers = [httpx.get(words[1].replace("http://127.0.0.1:8430", at), timeout=30) for words in lines]
    assert [answer.status_code for answer in answers] == [200] * 4
    districts, province = (answer.json()["rows"] for answer in answers[2:])
    assert len(districts) > len(province) == 1


@pytest.mark.stack
def test_what_the_demo_offers_to_look_at_works_and_ctrl_c_ends_it_well(demo: Demo) -> None:
    watched = demo.run(shlex.join([*_govbus(), "alerts", "watch", "--since", "beginning", "--count", "2"]))
    assert len(watched.splitlines()) == 2
    listed = demo.run(shlex.join([*_govbus(), "alerts", "list", "--json"])).splitlines()
    assert {json.loads(line)["kind"] for line in listed} >= {"CARD", "HANDLING"}, "nobody follows the cards"
    assert "项" in demo.run(shlex.join([*_govbus(), "directory", "search", "业务"]))
    assert "malformed_avro" in demo.run(shlex.join([*_govbus(), "dlq", "list"]))
    assert demo.stop() == 0
    left = subprocess.run([*_govbus(), "status", "--json"], env=demo.env, capture_output=True, text=True, check=False)
    assert [part["running"] for part in json.loads(left.stdout)["parts"]] == [False, False], "what it started goes on"


def test_both_readmes_type_the_same_commands() -> None:
    assert typed("README.md") == typed("README.zh-CN.md")


@pytest.mark.parametrize("readme", READMES)
def test_every_make_target_of_the_readme_is_in_the_makefile(readme: str) -> None:
    named = {line.split()[1] for line in typed(readme) if line.startswith("make ")}
    assert named == {"demo", "test"}
    assert recipe("demo").split() == [".venv/bin/govbus", "demo"]
    assert ".venv/bin/pytest" in recipe("test").split()


@pytest.mark.parametrize("readme", READMES)
def test_every_govbus_command_of_the_readme_answers_to_help(readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    named = {tuple(filter(None, match)) for match in QUOTED.findall(text)}
    assert ("reconcile",) in named
    failed = [words for words in sorted(named) if CliRunner().invoke(build(), [*words, "--help"]).exit_code]
    assert failed == []
