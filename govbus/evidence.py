"""A piece of an alert's evidence as a supervisor may read it: codes by their names, what somebody wrote masked as it is
when published, and of nobody a name or a number.

Decides what is shown; what is not named here is left out, so that no field is shown because a contract got it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from schemas import codesets
from schemas.clock import iso
from schemas.contracts import field_specs, personal_fields
from streams.rules import mask

if TYPE_CHECKING:
    from consumers.alerts.evidence import Piece
    from schemas.topics import Topic

SHOWN: Mapping[str, str] = {
    "item_code": "事项", "name": "事项名称", "step_name": "环节", "step_result_code": "环节结果",
    "acceptance_code": "受理方式", "verify_by": "核查期限", "verification_code": "核查结果",
    "responsible_code": "责任部门",
    "special_kind_code": "特别程序种类", "special_name": "特别程序", "special_started_at": "开始",
    "special_ended_at": "结束", "extension_limit": "延长", "extension_unit_code": "延长单位", "reason": "理由",
    "gap_list": "补正内容", "result_code": "结果", "corrects_event_id": "被更正事件", "corrected_at": "更正为",
    "satisfaction_code": "满意度", "channel_code": "渠道", "tags": "标签", "comment": "评价内容", "window_name": "窗口",
    "verify_result_code": "核实结果", "satisfied": "回访满意", "level_code": "督办级别", "closing_code": "办结方式",
    "note": "说明", "kind_code": "种类", "colour_code": "牌色", "summary": "监察结果",
}  # fmt: skip
"""Fields and what a supervisor calls them, in this order."""
WRITTEN = frozenset({"comment", "note"})
"""Personal fields that are text; any other is left out, and hidden where it stands in a text."""
WHOLE = frozenset({"item_code", "corrects_event_id"})
"""Texts that are codes and ids: nothing in them may be taken for a telephone number."""


def plain(piece: Piece) -> dict[str, Any]:
    """As JSON; ``content``: field by field what the event says."""
    record = piece.record
    return {
        "event_id": piece.id,
        "topic": piece.topic.name,
        "event_type": record["event_type"],
        "what": codesets.name("govbus.event-type", record["event_type"]),
        "department": record["department"],
        "occurred_at": iso(record["occurred_at"]),
        "received_at": iso(record["received_at"]),
        "receipt": piece.receipt,
        "content": _content(piece.topic, record),
    }


def line(told: Mapping[str, Any]) -> str:
    """What ``plain`` gives, for a terminal."""
    said = " ".join(f"{SHOWN[name]} {value}" for name, value in told["content"].items())
    department = codesets.name(codesets.DEPARTMENTS, told["department"])
    head = f"{_local(told['occurred_at'])} {told['event_id']} {told['topic']} {told['what']} {department}"
    receipt = f"回执 {told['receipt']}" if told["receipt"] else ""
    return " ".join(part for part in (head, said, receipt) if part)


def _content(topic: Topic, record: Mapping[str, Any]) -> dict[str, str]:
    specs, hidden = field_specs(topic), personal_fields(topic) - WRITTEN
    names = [str(record[name]) for name in sorted(hidden) if record.get(name)]
    given = [name for name in SHOWN if name in specs and record.get(name) not in (None, "", [])]
    return {name: _value(name, specs[name], record, names) for name in given}


def _value(name: str, spec: Mapping[str, Any], record: Mapping[str, Any], names: Sequence[str]) -> str:
    value = record[name]
    set_field = "tag_set" if name == "tags" else f"{name.removesuffix('_code')}_set"
    if code_set := spec.get("codeset") or record.get(set_field, ""):
        return "、".join(codesets.name(code_set, code) for code in (value if isinstance(value, list) else [value]))
    if isinstance(value, bool):
        return "是" if value else "否"
    if isinstance(value, int):
        return _local(iso(value))
    if isinstance(value, float):
        return f"{value:g}"
    return value if name in WHOLE else mask.free_text(value, names)


def _local(moment: str) -> str:
    return moment[:19].replace("T", " ")
