"""Only the locked jars are run; a wrong one is named and refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from connectors.local import jars
from schemas.errors import Misconfigured, Retryable


@pytest.fixture(scope="module")
def cached() -> Path:
    """The cache with every jar in it."""
    jars.classpath()
    return jars.cache_dir()


@pytest.fixture
def small_lock(tmp_path: Path, cached: Path) -> tuple[Path, Path]:
    """A lock file of two small jars and a cache that has both."""
    chosen = [jar for jar in jars.locked_jars() if jar.artifact in ("jopt-simple", "slf4j-api")]
    lock = tmp_path / "small.lock.toml"
    lock.write_text("".join(_entry(jar, jar.sha256) for jar in chosen))
    cache = tmp_path / "cache"
    cache.mkdir()
    for jar in chosen:
        shutil.copy(jar.path(cached), jar.path(cache))
    return lock, cache


def _entry(jar: jars.Jar, digest: str) -> str:
    names = f'groupId = "{jar.group}"\nartifactId = "{jar.artifact}"\nversion = "{jar.version}"\n'
    return f'[[dependencies]]\n{names}sha256 = "{digest}"\n'


def test_every_locked_jar_has_a_full_sha256_and_the_broker_is_among_them() -> None:
    locked = jars.locked_jars()
    assert {len(bytes.fromhex(jar.sha256)) for jar in locked} == {32}
    assert {"org.apache.kafka:kafka_2.13:4.3.1", "org.apache.kafka:kafka-tools:4.3.1"} <= {
        j.coordinate for j in locked
    }


def test_a_changed_jar_is_refused_by_name_before_use(small_lock: tuple[Path, Path]) -> None:
    lock, cache = small_lock
    victim = next(cache.glob("jopt-simple*.jar"))
    victim.write_bytes(victim.read_bytes() + b"\0")
    with pytest.raises(
        Misconfigured, match=r"net\.sf\.jopt-simple:jopt-simple:5\.0\.4 is not the locked jar"
    ):
        jars.classpath(cache, lock)


def test_every_changed_jar_is_named_at_once(small_lock: tuple[Path, Path]) -> None:
    lock, cache = small_lock
    for victim in cache.glob("*.jar"):
        victim.write_bytes(b"something else")
    with pytest.raises(Misconfigured) as refused:
        jars.classpath(cache, lock)
    assert len(refused.value.problems) == 2


def test_a_missing_jar_is_fetched_and_verified(small_lock: tuple[Path, Path]) -> None:
    lock, cache = small_lock
    next(cache.glob("jopt-simple*.jar")).unlink()
    seen: list[tuple[int, int]] = []
    path = jars.classpath(cache, lock, progress=lambda done, total: seen.append((done, total)))
    assert path.count(".jar") == 2
    assert seen == [(1, 1)]


def test_a_fetched_jar_that_is_not_the_locked_one_never_reaches_the_cache(
    tmp_path: Path,
) -> None:
    jar = next(jar for jar in jars.locked_jars() if jar.artifact == "jopt-simple")
    lock = tmp_path / "other.lock.toml"
    lock.write_text(_entry(jar, "0" * 64))
    with pytest.raises(Misconfigured, match="as fetched is not the locked jar"):
        jars.classpath(tmp_path / "cache", lock)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_jar_that_nobody_has_is_a_wait(tmp_path: Path) -> None:
    lock = tmp_path / "nobody.lock.toml"
    lock.write_text(_entry(jars.Jar("org.apache.kafka", "no-such-thing", "0", ""), "0" * 64))
    with pytest.raises(Retryable, match=r"cannot fetch org\.apache\.kafka:no-such-thing:0"):
        jars.classpath(tmp_path / "cache", lock)


def test_a_lock_without_a_digest_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "open.lock.toml"
    lock.write_text('[[dependencies]]\ngroupId = "a"\nartifactId = "b"\nversion = "1"\n')
    with pytest.raises(Misconfigured, match="b has no sha256"):
        jars.locked_jars(lock)
