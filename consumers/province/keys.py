"""The province's signing key and published address: files in its home, the key for its owner alone."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.errors import Misconfigured

KEY, ADDRESS = "signing.key", "address.json"


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs with Ed25519 (RFC 8032); keys and signatures leave as hexadecimal text."""

    private: Ed25519PrivateKey

    def sign(self, content: bytes) -> str:
        """The signature of ``content``."""
        return self.private.sign(content).hex()

    @property
    def public_key(self) -> str:
        """What receivers verify with."""
        raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        return self.private.public_key().public_bytes(*raw).hex()


def load(home: Path) -> Signer:
    """The key in ``home``, made at the first call (0600); raises ``Misconfigured`` if others may read it."""
    path = home / KEY
    if not path.exists():
        _make(path)
    if path.stat().st_mode & 0o077:
        raise Misconfigured(
            f"{path} may be read by others; chmod 600 it, or remove it and publish a new key, which districts name in "
            "GOVBUS_PROVINCE_PUBLIC_KEY before a comma and the former one"
        )
    return Signer(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text().strip())))


def _make(path: Path) -> None:
    """A fresh key; if another process makes one at the same moment, the first one stands."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = path.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(Ed25519PrivateKey.generate().private_bytes_raw().hex())
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(scratch, path)
    except FileExistsError:
        pass
    finally:
        scratch.unlink()


def publish(home: Path, url: str, public_key: str) -> None:
    """Write where the province listens and what it signs with; replaces the file in one step."""
    home.mkdir(parents=True, exist_ok=True)
    scratch = home / f"{ADDRESS}.{os.getpid()}"
    scratch.write_text(json.dumps({"url": url, "public_key": public_key, "pid": os.getpid()}))
    scratch.replace(home / ADDRESS)
