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
from operator import itemgetter
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
    mail["Subject"] = f"政务服务效能监察摘要 {day:%Y-%m-%d}：{_counts(alerts).total()} 条"
    mail["From"], mail["To"] = box.sender, ", ".join(box.receivers)
    mail["Date"] = day
    mail["Message-ID"] = f"<{derived_id('digest', slot, first, *box.receivers)}@govbus>"
    mail.set_content(_text(alerts), cte="base64")
    return mail


def _text(alerts: Sequence[Alert]) -> str:
    head = "；".join(f"{kind}{action} {n} 条" for (kind, action), n in sorted(_counts(alerts).items()))
    return f"{head}\n\n" + "\n".join(_lines(alerts)) + "\n"


def _counts(alerts: Sequence[Alert]) -> Counter[tuple[str, str]]:
    """Of how many alerts of each kind each was said; one that was told anew (to another department, a rating that was
    corrected and stays bad) is still one.
    """
    said = {(codesets.alert_name(a["kind_code"], a["colour_code"]), a["event_type"], a["alert_id"]) for a in alerts}
    return Counter((kind, ACTIONS[event_type]) for kind, event_type, _ in said)


def _lines(alerts: Sequence[Alert]) -> list[str]:
    """A line a statement: red ones and bad ratings first, else in the order given."""
    last: dict[str, str] = {}
    lines = []
    for alert in alerts:
        anew = last.get(alert["alert_id"]) == alert["event_type"]
        last[alert["alert_id"]] = alert["event_type"]
        lines.append((_can_wait(alert), _line(alert, ANEW if anew else ACTIONS[alert["event_type"]])))
    return [line for _, line in sorted(lines, key=itemgetter(0))]


def _can_wait(alert: Alert) -> bool:
    return alert["kind_code"] != "BAD_RATING" and alert["colour_code"] not in ("RED", "RED_STATUTORY")


def _line(alert: Alert, action: str) -> str:
    department = codesets.name(codesets.DEPARTMENTS, alert["department"])
    at = datetime.fromtimestamp(alert["issued_at"] / 1000, SHANGHAI)
    return f"{at:%m-%d %H:%M} {department} {action} {alert['summary']}"


ANEW = "更新"
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
