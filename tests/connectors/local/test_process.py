"""A pid alone proves nothing; a port in use is never taken; two holders of a lock take turns."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil

from connectors.local import process
from connectors.local.process import Identity


def test_a_recycled_pid_is_not_taken_for_ours() -> None:
    mine = Identity.of(os.getpid())
    assert mine.alive()
    assert not Identity(mine.pid, mine.started - 100).alive()


def test_a_process_that_ended_is_not_alive_even_before_it_is_reaped() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = Identity.of(child.pid)
    child.kill()
    assert process.wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE, 60)
    assert not identity.alive()
    child.wait()


def test_a_port_in_use_is_not_given_out_and_a_free_one_is_kept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        assert not process.port_is_free(port)
        other = process.free_port(port)
        assert other != port
    assert process.free_port(other) == other
    assert process.free_port(other, taken={other}) != other


def test_a_process_that_ignores_the_request_is_killed() -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)"
    child = subprocess.Popen([sys.executable, "-c", f"{deaf}; time.sleep(60)"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    process.stop(psutil.Process(child.pid), patience=0.3)
    assert child.wait(1) == -9


def test_a_half_written_state_file_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text('{"port": 12')
    assert process.read_state(path) == {}
    process.write_state(path, port=12)
    assert process.read_state(path) == {"port": 12}


def test_a_process_that_merely_has_our_file_open_is_not_taken_for_a_server() -> None:
    words = ["kafka.Kafka", "/somewhere/server.properties"]
    code = "print('up', flush=True); input()"
    editor, server = (
        subprocess.Popen([sys.executable, "-c", code, *seen], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for seen in (words[1:], words)
    )
    for child in (editor, server):
        assert child.stdout
        assert child.stdout.readline() == b"up\n"
    found = process.search_by_words(*words)
    for child in (editor, server):
        child.communicate(b"\n")
    assert found
    assert found.pid == server.pid


HOLD = """
import sys, time
from pathlib import Path
from connectors.local.process import locked
with locked(Path(sys.argv[1])), open(sys.argv[2], "a", buffering=1) as log:
    log.write("in\\n")
    time.sleep(0.2)
    log.write("out\\n")
"""


def test_two_holders_of_a_lock_take_turns(tmp_path: Path) -> None:
    order = tmp_path / "order"
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock"), str(order)]
    holders = [subprocess.Popen(command) for _ in range(2)]
    assert [holder.wait(20) for holder in holders] == [0, 0]
    assert order.read_text().split() == ["in", "out", "in", "out"]


def test_a_child_dies_with_its_parent() -> None:
    script = (
        "import subprocess, sys, time; from connectors.local.process import die_with_parent\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "child = subprocess.Popen(sleep, preexec_fn=die_with_parent)\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    identity = Identity.of(int(parent.stdout.readline()))
    assert identity.alive()
    parent.kill()
    parent.wait()
    assert process.wait_until(lambda: not identity.alive(), 60)
