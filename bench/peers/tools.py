"""Makes what a peer needs, once: a virtual environment from pinned hashed requirements, or a Maven build.

Kept under the tools' directory, named after what they were made from, so that a changed pin makes a new one.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.peers.protocol import NotRun

HERE = Path(__file__).parent
WHOLE = ".whole"
LONGEST_S = 900


def environment(tools: Path, name: str) -> Path:
    """The Python of the virtual environment of the peer ``name``; raises ``NotRun`` if it cannot be made."""
    requirements = HERE / name / "requirements.txt"
    place = tools / f"{name}-{_fingerprint([requirements])}"
    python = place / "bin" / "python"
    if not (place / WHOLE).exists():
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        venv.create(place, with_pip=True)
        words = ["-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", str(requirements)]
        _run([str(python), *words])
        (place / WHOLE).touch()
    return python


def jars(tools: Path, name: str) -> str:
    """The class path of the Maven project of the peer ``name``, built if need be; raises ``NotRun``."""
    project = HERE / name
    place = (tools / f"{name}-{_fingerprint([project / 'pom.xml', *project.rglob('*.java')])}").absolute()
    if not (place / WHOLE).exists():
        maven = program("mvn")
        program("javac")
        place.mkdir(parents=True, exist_ok=True)
        _run([maven, "-q", "-B", "-f", str(project / "pom.xml"), f"-Dpeer.build={place}", "package"])
        (place / WHOLE).touch()
    return f"{place / 'peer.jar'}:{place / 'lib'}/*"


def program(name: str) -> str:
    """Where ``name`` is on PATH; raises ``NotRun`` if it is not."""
    found = shutil.which(name)
    if not found:
        raise NotRun(f"there is no {name} on PATH")
    return found


def _fingerprint(files: Iterable[Path]) -> str:
    digest = hashlib.sha256(f"{platform.machine()} {sys.version_info[:2]}".encode())
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        raise NotRun(f"{Path(command[0]).name} did not end within {LONGEST_S} s") from None
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()[-3:]
        raise NotRun(f"{Path(command[0]).name} failed: {' | '.join(said)}")
