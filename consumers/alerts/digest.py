"""The daily digest of alerts as one e-mail: dropped as a file, and handed to a mail server if there is one.

Decides how it reads. The same alerts of the same day make the same message with the same Message-ID, so that a second
one, after a crash between mail and mark, is known for what it is.
"""

from __future__ import annotations

import os
import smtplib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import structlog

from schemas import codesets
from schemas.clock import SHANGHAI
from schemas.envelope import derived_id

Alert = Mapping[str, Any]
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Where the digest goes. ``directory`` None: no file; ``smtp`` "": no mail server (``host:port``)."""

    directory: Path | None
    smtp: str
    sender: str
    receivers: tuple[str, ...]
    timeout_s: float = 10.0


def message(box: Mailbox, alerts: Sequence[Alert], slot: int, first: object) -> EmailMessage:
    """The digest of ``alerts`` (records of ``oversight.alert.v1``, oldest first) of the moment ``slot``, epoch ms.

    ``first``: id of the first statement in it; with the moment it names the digest.
    """
    day = datetime.fromtimestamp(slot / 1000, SHANGHAI)
    mail = EmailMessage(policy=SMTP)
    mail["Subject"] = f"政务服务效能监察摘要 {day:%Y-%m-%d}：{len(alerts)} 条"
    mail["From"], mail["To"] = box.sender, ", ".join(box.receivers)
    mail["Date"] = day
    mail["Message-ID"] = f"<{derived_id('digest', slot, first, *box.receivers)}@govbus>"
    mail.set_content(_text(alerts), cte="base64")
    return mail


def _text(alerts: Sequence[Alert]) -> str:
    counts = Counter((codesets.alert_name(a["kind_code"], a["colour_code"]), ACTIONS[a["event_type"]]) for a in alerts)
    head = "；".join(f"{kind}{action} {n} 条" for (kind, action), n in sorted(counts.items()))
    return f"{head}\n\n" + "\n".join(map(_line, alerts)) + "\n"


def _line(alert: Alert) -> str:
    department = codesets.name(codesets.DEPARTMENTS, alert["department"])
    at = datetime.fromtimestamp(alert["issued_at"] / 1000, SHANGHAI)
    return f"{at:%m-%d %H:%M} {department} {ACTIONS[alert['event_type']]} {alert['summary']}"


ACTIONS = {"alert.issued": "发出", "alert.revoked": "撤销", "alert.retracted": "收回"}


def send(box: Mailbox, mail: EmailMessage, slot: int) -> None:
    """Drop the file, whole or not at all, and hand the mail to the server; raises ``OSError`` or ``SMTPException``."""
    if box.directory is not None:
        day = datetime.fromtimestamp(slot / 1000, SHANGHAI)
        _drop(box.directory, f"digest-{day:%Y%m%d-%H%M}-{mail['Message-ID'][1:9]}.eml", bytes(mail))
    if box.smtp:
        host, _, port = box.smtp.rpartition(":")
        with smtplib.SMTP(host, int(port), timeout=box.timeout_s) as server:
            refused = server.send_message(mail, box.sender, list(box.receivers))  # raises only if all are
        if refused:
            codes = sorted({code for code, _ in refused.values()})
            log.warning("digest.refused", receivers=len(refused), of=len(box.receivers), codes=codes)


def _drop(directory: Path, name: str, content: bytes) -> None:
    """Write the file under another name and rename it, so that nobody ever reads half of it."""
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = directory / f".{name}.part"
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(directory / name)
