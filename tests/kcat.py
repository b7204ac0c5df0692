"""Makes kcat available to the tests without anybody's hands; prints where it is. Run as a script by
``make kcat``.

Order: the one on PATH; as root, ``apt-get install``; else Debian's package and its libraries, downloaded
and unpacked beside the virtual environment. Says plainly what to do where none of these works.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PLACE = Path(sys.prefix) / "kcat"
WRAPPER = PLACE / "bin" / "kcat"
NOT_OURS = re.compile(r"^(libc6|libgcc-s1|libstdc\+\+6|libcrypt1|gcc-\d+-base)$")
"""Packages that every Debian has; a second copy of them would only clash."""
HELP = "the tests read topics with kcat: install it (apt or brew install kcat) and run make test again"


def main() -> int:
    """0 when kcat runs, else 1 with a message."""
    found = _working("kcat") or _working(str(WRAPPER)) or _by_install() or _by_unpacking()
    print(f"kcat: {found}" if found else HELP, file=sys.stdout if found else sys.stderr)
    return 0 if found else 1


def _working(command: str) -> str | None:
    path = shutil.which(command)
    return path if path and _run([path, "-V"]) else None


def _run(command: list[str], **options: object) -> bool:
    try:
        subprocess.run(command, check=True, capture_output=True, **options)  # type: ignore[call-overload]
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _by_install() -> str | None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return None
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "--no-install-recommends", "kcat"]
    if not _run(install, env=env):
        _run(["apt-get", "update"], env=env)
        _run(install, env=env)
    return _working("kcat")


def _by_unpacking() -> str | None:
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        return None
    (PLACE / "root").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        for package in _packages():
            _run(["apt-get", "download", package], cwd=directory)
        for archive in Path(directory).glob("*.deb"):
            _run(["dpkg", "-x", str(archive), str(PLACE / "root")])
    _write_wrapper()
    return _working(str(WRAPPER))


def _packages() -> list[str]:
    """kcat and every library it needs that a plain system may lack."""
    command = [
        "apt-cache",
        "depends",
        "--recurse",
        "--no-recommends",
        "--no-suggests",
        "--no-conflicts",
        "--no-breaks",
    ]
    command += ["--no-replaces", "--no-enhances", "kcat"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    names = {
        line.strip() for line in done.stdout.splitlines() if line and not line.startswith((" ", "<", "|"))
    }
    return sorted(name for name in names if not NOT_OURS.match(name)) or ["kcat"]


def _write_wrapper() -> None:
    root = PLACE / "root"
    libraries = sorted({str(path.parent) for path in root.rglob("lib*.so*")})
    WRAPPER.parent.mkdir(parents=True, exist_ok=True)
    WRAPPER.write_text(
        f'#!/bin/sh\nLD_LIBRARY_PATH="{":".join(libraries)}" exec "{root}/usr/bin/kcat" "$@"\n'
    )
    WRAPPER.chmod(0o755)


if __name__ == "__main__":
    sys.exit(main())
