"""What dies is started again and named; what is misconfigured is not; nothing outlives the supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from connectors.local.process import Identity, wait_until
from govbus.supervisor import Child, Ended, Supervisor, why
from schemas.errors import Retryable

SLEEP = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)")


def _exits(code: int) -> tuple[str, ...]:
    return (sys.executable, "-c", f"print('bye'); raise SystemExit({code})")


def test_a_killed_child_is_started_again_and_its_signal_is_named(tmp_path: Path) -> None:
    told: list[Ended] = []
    with Supervisor([Child("worker", SLEEP)], tmp_path, on_end=told.append, backoff=(0.05, 1.0)) as running:
        running.wait_ready(60)
        first = running.pid("worker")
        assert first
        os.kill(first, signal.SIGKILL)
        assert wait_until(lambda: running.pid("worker") not in (None, first), 60)
    assert (told[0].name, told[0].pid, told[0].code) == ("worker", first, -9)
    assert "killed by SIGKILL; restarting in 0.1 s" in str(told[0])


def test_a_child_that_keeps_failing_is_started_ever_more_slowly_and_says_its_exit_code(
    tmp_path: Path,
) -> None:
    ends: list[Ended] = []
    with Supervisor([Child("relay", _exits(70))], tmp_path, on_end=ends.append, backoff=(0.05, 0.2)):
        assert wait_until(lambda: len(ends) >= 4, 60)
    assert [ended.restart_in for ended in ends[:4]] == [0.05, 0.1, 0.2, 0.2]
    assert "exit code 70, internal error" in str(ends[0])
    assert ends[0].said == "bye"


def test_a_misconfigured_child_is_not_started_again(tmp_path: Path) -> None:
    ends: list[Ended] = []
    with Supervisor([Child("push", _exits(78))], tmp_path, on_end=ends.append, backoff=(0.01, 0.01)):
        assert wait_until(lambda: len(ends) == 1, 60)
        assert not wait_until(lambda: len(ends) > 1, 0.5)
    assert "misconfigured; not restarted" in str(ends[0])


def test_a_child_that_ends_by_itself_is_started_again(tmp_path: Path) -> None:
    ends: list[Ended] = []
    with Supervisor([Child("consume", _exits(0))], tmp_path, on_end=ends.append, backoff=(0.01, 0.01)):
        assert wait_until(lambda: len(ends) >= 2, 60)
    assert "by itself" in str(ends[0])


def test_each_child_writes_to_a_log_of_its_own(tmp_path: Path) -> None:
    says_who = "import os, time; print(os.environ['WHO'], flush=True); time.sleep(60)"
    one = Child("one", (sys.executable, "-c", says_who), env={"WHO": "first"})
    children = [one, Child("two", SLEEP)]
    with Supervisor(children, tmp_path) as running:
        assert wait_until(
            lambda: running.log("two").exists() and running.log("two").read_text() == "up\n", 60
        )
        assert wait_until(lambda: running.log("one").read_text() == "first\n", 60)


def test_readiness_waits_for_the_childs_own_word_and_names_who_is_late(tmp_path: Path) -> None:
    asked: list[bool] = []

    def third_time() -> bool:
        asked.append(True)
        return len(asked) >= 3

    with Supervisor([Child("early", SLEEP, ready=third_time)], tmp_path) as running:
        running.wait_ready(60)
    assert len(asked) >= 3
    with (
        Supervisor([Child("late", SLEEP, ready=lambda: False)], tmp_path) as running,
        pytest.raises(Retryable, match="late is not ready"),
    ):
        running.wait_ready(0.5)


def test_stopping_asks_first_and_kills_who_does_not_listen(tmp_path: Path) -> None:
    polite = (
        "import signal, sys, time\ndef close(*_): print('closing', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, close)"
    )
    deaf = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)"
    rest = "\nprint('up', flush=True); time.sleep(60)"
    children = [
        Child("polite", (sys.executable, "-c", polite + rest)),
        Child("deaf", (sys.executable, "-c", deaf + rest)),
    ]
    ends: list[Ended] = []
    running = Supervisor(children, tmp_path, on_end=ends.append, grace=1.0)
    running.start()
    assert wait_until(
        lambda: all(
            running.log(n).exists() and "up" in running.log(n).read_text() for n in ("polite", "deaf")
        ),
        60,
    )
    pids = [running.pid(child.name) for child in children]
    running.stop()
    assert running.log("polite").read_text() == "up\nclosing\n"
    assert all(pids)
    assert not any(psutil.pid_exists(pid) for pid in pids if pid)
    assert ends == []


NESTED = """
import sys
from pathlib import Path
from govbus.supervisor import Child, Supervisor
child = Child("inner", (sys.executable, "-c", "import time; time.sleep(60)"))
supervisor = Supervisor([child], Path(sys.argv[1]))
supervisor.start()
supervisor.wait_ready(60)
print(supervisor.pid("inner"), flush=True)
supervisor.run()
"""


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for the signal, as the kernel says."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_child_outlives_its_supervisor(tmp_path: Path, number: signal.Signals) -> None:
    outer = subprocess.Popen([sys.executable, "-c", NESTED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert outer.stdout is not None
    inner = Identity.of(int(outer.stdout.readline()))
    assert wait_until(lambda: catches(outer.pid, signal.SIGTERM), 60)
    outer.send_signal(number)
    assert outer.wait(60) == (-9 if number is signal.SIGKILL else 0)
    assert wait_until(lambda: not inner.alive(), 60)


def test_a_signal_that_comes_while_a_lock_is_held_ends_the_supervisor_too(
    tmp_path: Path, untimely: str
) -> None:
    outer = subprocess.Popen(
        [sys.executable, "-c", untimely + NESTED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert outer.stdout is not None
    inner = Identity.of(int(outer.stdout.readline()))
    assert wait_until(lambda: catches(outer.pid, signal.SIGTERM), 60)
    outer.send_signal(signal.SIGTERM)
    try:
        assert outer.wait(60) == 0
    finally:
        outer.kill()
    assert wait_until(lambda: not inner.alive(), 60)


def test_a_grown_log_is_set_aside_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("govbus.supervisor.LOG_LIMIT", 10)
    (tmp_path / "worker.log").write_text("x" * 11)
    with Supervisor([Child("worker", SLEEP)], tmp_path) as running:
        # the new log is opened after the old one was moved: between the two there is none
        assert wait_until(lambda: (tmp_path / "worker.log.1").exists() and running.log("worker").exists(), 60)
        assert wait_until(lambda: running.log("worker").read_text() == "up\n", 60)
    assert (tmp_path / "worker.log.1").read_text() == "x" * 11


def test_exit_codes_are_told_in_words() -> None:
    assert why(-15) == "killed by SIGTERM"
    assert why(-99) == "killed by signal 99"
    assert why(3) == "exit code 3"
