"""Kafka's jars: which (``kafka.lock.toml``), where they are kept, and that they are the locked ones.

No jar is used whose SHA-256 differs from the lock file's. Remade by ``python -m connectors.local.jars``.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from schemas.errors import Misconfigured, Retryable

LOCK = Path(__file__).with_name("kafka.lock.toml")
KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
BESIDE = ("org.apache.kafka:kafka-tools:4.3.1", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4")
"""What a Kafka download has beside the broker: console tools and logging, which here need nothing more."""
Progress = Callable[[int, int], None]
"""Told (jars fetched, jars to fetch)."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked artifact of a Maven repository; ``sha256`` in hex."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinate(self) -> str:
        """``group:artifact:version``."""
        return f"{self.group}:{self.artifact}:{self.version}"

    def path(self, cache: Path) -> Path:
        """Where the jar lies under a cache directory."""
        return cache / f"{self.artifact}-{self.version}.jar"


def locked_jars(lock: Path = LOCK) -> list[Jar]:
    """The jars of a lock file in classpath order; raises ``Misconfigured`` if one has no SHA-256."""
    entries = tomllib.loads(lock.read_text())["dependencies"]
    unpinned = [e["artifactId"] for e in entries if not e.get("sha256")]
    if unpinned:
        raise Misconfigured(*(f"{lock.name}: {name} has no sha256" for name in unpinned))
    return [Jar(e["groupId"], e["artifactId"], e["version"], e["sha256"]) for e in entries]


def cache_dir() -> Path:
    """The user's cache, shared by every installation of this user (XDG_CACHE_HOME on Linux)."""
    return platformdirs.user_cache_path("govbus") / "jars"


def classpath(cache: Path | None = None, lock: Path = LOCK, progress: Progress | None = None) -> str:
    """Java class path of the locked jars: missing ones are fetched, every one is verified now.

    Raises ``Misconfigured`` naming each jar that is not the locked one, ``Retryable`` if it cannot be had.
    """
    cache = cache or cache_dir()
    jars = locked_jars(lock)
    missing = [jar for jar in jars if not jar.path(cache).exists()]
    if missing:
        _fetch_all(missing, cache, progress)
    wrong = [jar for jar in jars if sha256(jar.path(cache)) != jar.sha256]
    if wrong:
        raise Misconfigured(*(_refusal(jar, jar.path(cache)) for jar in wrong))
    return os.pathsep.join(str(jar.path(cache)) for jar in jars)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _refusal(jar: Jar, path: Path) -> str:
    found = f"{path} has another SHA-256 than {jar.sha256}"
    return f"{jar.coordinate} is not the locked jar: {found}; delete it to fetch it anew"


def _fetch_all(jars: Sequence[Jar], cache: Path, progress: Progress | None) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    done = 0
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda jar: _fetch(jar, cache), jars):
            done += 1
            if progress:
                progress(done, len(jars))


def _fetch(jar: Jar, cache: Path) -> None:
    """Fetches a jar beside its place, verifies it, then moves it there: a half-fetched jar is never seen."""
    from jgo.maven import MavenContext

    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as directory:
        context = MavenContext(repo_cache=Path(directory), timeout=60)
        try:
            fetched = context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
            raise Retryable(f"cannot fetch {jar.coordinate}: {error}") from error
        if sha256(fetched) != jar.sha256:
            raise Misconfigured(
                f"{jar.coordinate} as fetched is not the locked jar: SHA-256 differs from {jar.sha256}"
            )
        fetched.replace(jar.path(cache))


def relock(lock: Path = LOCK) -> None:
    """Resolves Kafka anew and rewrites the lock file; for whoever changes ``KAFKA``, never at run time."""
    from jgo.env import LockedDependency
    from jgo.maven import MavenContext

    context = MavenContext()
    wanted = [context.create_dependency(KAFKA)]
    inputs, needed = context.resolver.resolve(wanted)
    found = [*inputs, *needed, *(context.create_dependency(coordinate) for coordinate in BESIDE)]
    lines = [_HEAD]
    for dependency in found:
        entry = LockedDependency.from_dependency(dependency).to_dict()
        lines += ["[[dependencies]]", *(f'{key} = "{entry[key]}"' for key in _KEYS), ""]
    lock.write_text("\n".join(lines))


_KEYS = ("groupId", "artifactId", "version", "packaging", "sha256")
_HEAD = f"""\
# Every jar of the local Kafka with its SHA-256, as resolved by jgo: {KAFKA} and what it needs,
# {" and ".join(BESIDE)}.
# Made by `python -m connectors.local.jars`; verified before every start; not edited by hand.
"""

if __name__ == "__main__":
    relock()
