"""A server of our own that is killed, crowded out, and found again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from connectors.local import postgres
from connectors.local.postgres import Postgres
from connectors.local.process import read_state, write_state
from schemas.errors import Retryable


@pytest.fixture(scope="module")
def own(stack_directory: Path) -> Iterator[tuple[Postgres, list[str]]]:
    said: list[str] = []
    server = Postgres(stack_directory / "own-postgres", tied=True, say=said.append)
    server.start()
    yield server, said
    server.stop()


def _run(url: str, *statements: str) -> object:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as tx:
        results = [tx.execute(sa.text(statement)) for statement in statements]
        return results[-1].scalar() if results[-1].returns_rows else None


def test_committed_rows_survive_kill_minus_nine(own: tuple[Postgres, list[str]]) -> None:
    server, _ = own
    url = server.create("survivor")
    _run(url, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
    killed = server.pid
    server.kill()
    assert not server.running()
    server.start()
    assert server.pid != killed
    assert _run(server.url("survivor"), "SELECT n FROM kept") == 7


def test_a_port_taken_meanwhile_is_left_alone_and_said(own: tuple[Postgres, list[str]]) -> None:
    server, said = own
    port = server.port
    server.stop()
    with socket.create_server(("127.0.0.1", port)):
        server.start()
        assert server.port != port
    assert said == [f"PostgreSQL: port {port} is in use, taking {server.port}"]
    assert _run(server.url("postgres"), "SELECT 1") == 1


def test_the_port_is_kept_over_a_restart(own: tuple[Postgres, list[str]]) -> None:
    server, _ = own
    port = server.port
    server.stop()
    server.start()
    assert server.port == port


def test_starting_a_running_server_changes_nothing(own: tuple[Postgres, list[str]]) -> None:
    server, _ = own
    before = server.pid
    Postgres(server.directory, tied=True).start()
    assert server.pid == before


def test_a_server_that_takes_no_connections_yet_gets_no_second_one_beside_it(own: tuple[Postgres, list[str]]) -> None:
    server, _ = own
    pid, noted = server.pid, read_state(server.directory / "state.json")
    assert pid
    os.kill(pid, signal.SIGSTOP)  # as if it were recovering
    try:
        with pytest.raises(Retryable, match=rf"PostgreSQL \({pid}\) runs and takes no connections after 1 s"):
            server.start(1)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert read_state(server.directory / "state.json") == noted
    server.start()
    assert server.pid == pid


def test_a_server_whose_state_file_was_lost_is_found_again(own: tuple[Postgres, list[str]]) -> None:
    server, _ = own
    before = server.pid
    (server.directory / "state.json").unlink()
    server.start()
    assert server.pid == before


def test_a_pid_file_that_names_a_stranger_does_not_keep_the_server_from_starting(
    own: tuple[Postgres, list[str]],
) -> None:
    server, _ = own
    pidfile = server.data / "postmaster.pid"
    lines = pidfile.read_text().splitlines()
    server.kill()
    pidfile.write_text("\n".join([str(psutil.Process().pid), *lines[1:]]))
    server.start()
    assert server.running()


def test_the_server_listens_on_loopback_alone_and_wants_a_password(own: tuple[Postgres, list[str]]) -> None:
    server, _ = own
    assert server.pid
    listening = [
        c.laddr.ip for c in psutil.Process(server.pid).net_connections("tcp") if c.status == "LISTEN"
    ]
    assert listening == ["127.0.0.1"]
    wrong = sa.make_url(server.url("postgres")).set(password="wrong")
    with pytest.raises(sa.exc.OperationalError, match="password authentication failed"):
        _run(wrong.render_as_string(hide_password=False), "SELECT 1")
    assert (server.directory / "password.govbus").stat().st_mode & 0o777 == 0o600


def test_durability_is_on(own: tuple[Postgres, list[str]]) -> None:
    server, _ = own
    assert _run(server.url("postgres"), "SHOW fsync") == "on"
    assert _run(server.url("postgres"), "SHOW synchronous_commit") == "on"


def test_the_province_cannot_read_the_districts_database(own: tuple[Postgres, list[str]]) -> None:
    server, _ = own
    server.create("district")
    province = server.create("theirs", role="theirs")
    assert _run(province, "SELECT current_user") == "theirs"
    with pytest.raises(sa.exc.OperationalError, match="permission denied for database"):
        _run(server.url("district", role="theirs"), "SELECT 1")


def test_a_half_made_data_directory_is_made_again(stack_directory: Path) -> None:
    server = Postgres(stack_directory / "half-postgres", tied=True)
    server.data.mkdir(parents=True)
    (server.data / "PG_VERSION").write_text("18\n")
    with server:
        assert _run(server.url("postgres"), "SELECT 1") == 1


def test_a_recycled_pid_in_the_state_file_is_not_taken_for_the_server(
    own: tuple[Postgres, list[str]],
) -> None:
    server, _ = own
    server.stop()
    state = read_state(server.directory / "state.json")
    stranger = {"pid": psutil.Process().pid, "started": 1.0}
    write_state(server.directory / "state.json", **{**state, "identity": stranger})
    assert not server.running()
    server.start()
    assert server.running()


def test_other_users_may_pass_through_a_closed_directory_but_not_list_it(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    inner = closed / "inner"
    inner.mkdir(parents=True, mode=0o700)
    closed.chmod(0o700)
    postgres._let_through(inner)
    assert [place.stat().st_mode & 0o777 for place in (closed, inner)] == [0o701, 0o701]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("useradd"), reason="only root makes the server's user")
def test_two_first_starts_at_once_make_the_servers_user_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "SYSTEM_USER", f"govbus-t{os.getpid()}")
    try:
        with ThreadPoolExecutor(4) as pool:
            given = {made.result().pw_uid for made in [pool.submit(postgres._system_user) for _ in range(4)]}
        assert given == {pwd.getpwnam(postgres.SYSTEM_USER).pw_uid}
    finally:
        subprocess.run(["userdel", postgres.SYSTEM_USER], check=False)
