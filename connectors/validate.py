"""Decides whether a row may become an event: every fault of the row at once, each naming its field, rule and
mend.

A ``Validator`` is compiled once per topic from the contract and the code sets. It normalises (identifiers to
capitals, times to epoch ms UTC with the text kept, department aliases to the stable code) and reads no clock
and no database. It never puts a value into a fault: the value may be personal.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from connectors import identifiers, times
from connectors.identifiers import Identifier
from schemas import bounds, codesets, contracts
from schemas.errors import Fault
from schemas.topics import BEHAVIOUR, CALENDAR, CASE, INBOUND, ITEM, LICENCE, RATING, RESOURCE, Topic
from streams.rules import calendar, catalogue, define, index

FUTURE_MS = 10 * calendar.MINUTE_MS  # DOMAIN narrative 53: ten minutes ahead is a wrong clock
EARLIEST_MS = times.moment(
    "2000-01-01 00:00:00"
)  # narrative 53: 1970 and its like are a clock that was never set
EARLIEST_STOCK_MS = times.moment(
    "1990-01-01 00:00:00"
)  # licences of the stock are older than the systems (DOMAIN §6.5)
DEADLINES = frozenset({"verify_by", "due_at"})  # lie ahead; every other moment of an event tells the past
LAST_ASSESSMENT = 2  # DOMAIN §5.6.1: one rating and one re-rating
SET_BY_THE_BUS = frozenset({"received_at"})
FILLED = frozenset({"event_id", "region", "department", "occurred_text"}) | SET_BY_THE_BUS
INT_RANGE = (-(2**31), 2**31 - 1)
LONG_RANGE = (-(2**63), 2**63 - 1)
FORMATS: Mapping[str, tuple[str, Callable[[str], Identifier]]] = {
    "item_code": ("bad_item_code", identifiers.check_item_code),
    "licence_id": ("bad_licence_id", identifiers.check_licence_id),
    "type_code": ("bad_format", identifiers.check_licence_type),
    "issuer_code": ("bad_uscc", identifiers.check_issuer),
    "provider_code": ("bad_uscc", identifiers.check_uscc),
    "resource_code": ("bad_format", identifiers.check_resource_code),
    "supervision_item_code": ("bad_format", identifiers.check_supervision_item),
    "checklist_code": ("bad_format", identifiers.check_checklist),
}
PERSON_TYPES: Mapping[str, tuple[str, Callable[[str], Identifier]]] = {  # GA/T 2000.156
    "111": ("bad_citizen_id", identifiers.check_citizen_id),
    "001": ("bad_uscc", identifiers.check_uscc),
}
REFUSALS = frozenset({"case.not_accepted", "case.returned", "case.transferred", "case.voided", "resource.refused"})
PERSON_SET = "gat2000.156"
# govbus.limit-unit -> comparable unit and factor; a month is 30 days (DOMAIN §2.5)
SAME_UNIT: Mapping[str, tuple[str, float]] = {
    "1": ("working day", 1),
    "2": ("day", 1),
    "5": ("day", 30),
    "3": ("minute", 60),
    "4": ("minute", 1),
}
CONDITIONAL = {"2": "a condition", "3": "a legal basis"}  # govbus.share-type, DOMAIN §7.3
EXTENSION = "EXTEND"  # govbus.special-kind
QUOTES = "put the value in quotes; in a sheet, which keeps 15 digits, format the column as text and fill it in again"
ON_THE_SPOT = ("gbt39046.case-kind", "1")
OPERATIONS = {"rating.given": "I", "rating.corrected": "U", "rating.withdrawn": "D"}  # DOMAIN §3.4, §5.6.6


class Wrong(ValueError):
    """One value breaks one rule; becomes a ``Fault`` once the field is known."""

    def __init__(self, reason: str, text: str, mend: str = "") -> None:
        super().__init__(text)
        self.reason, self.text, self.mend = reason, text, mend


@dataclass(slots=True)
class Finding:
    """What became of one row: the normalised record (all defaults filled in), its faults, its notes."""

    record: dict[str, Any]
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def fault(self, reason: str, name: str, text: str, mend: str = "") -> None:
        """Add a fault."""
        self.faults.append(Fault(reason, name, text, mend))


Check = Callable[[Any], Any]
Rule = Callable[[Finding], None]


# --- one field: its type ------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if type(value) is not str:
        raise Wrong("wrong_type", "must be text", QUOTES)
    if "\x00" in value:
        raise Wrong("bad_format", "holds the character U+0000", "remove it")
    if not (value.isascii() or _encodes(value)):
        raise Wrong("bad_format", "is not Unicode: it holds half a character", "export it as UTF-8 again")
    return value


def _encodes(text: str) -> bool:
    """False with half of a pair (a surrogate), which JSON can write and nothing can store."""
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def _boolean(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise Wrong("wrong_type", "must be true or false")


def _double(value: Any) -> float:
    with contextlib.suppress(OverflowError):  # a whole number of JSON has as many digits as it likes
        if type(value) in (int, float) and math.isfinite(number := float(value)):
            return number
    raise Wrong("wrong_type", "must be a finite number", "send digits, without quotes")


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    raise Wrong("wrong_type", "must be bytes")


def _integer(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is int and low <= value <= high:
            return value
        raise Wrong("wrong_type", f"must be a whole number from {low} to {high}")

    return check


def _moment(value: Any) -> int:
    if not isinstance(value, (int, str, datetime)) or isinstance(value, bool):
        raise Wrong("wrong_type", "must be a time", times.MENDS)
    try:
        moment = times.moment(value)
    except ValueError:
        raise Wrong("bad_format", "is not a time that exists in a known format", times.MENDS) from None
    if not bounds.FIRST_MS <= moment <= bounds.LAST_MS:
        raise Wrong("bad_event_time", "lies outside the years 1900 to 9999", "set the sender's clock")
    return moment


def _day(nullable: bool) -> Check:
    def check(value: Any) -> Any:
        try:
            day = times.day(value)
        except ValueError:
            raise Wrong("bad_format", "is not a day that exists", "send yyyy-MM-dd") from None
        if day is None and not nullable:
            raise Wrong("bad_format", "must be a day, not 长期", "send yyyy-MM-dd")
        return day

    return check


def _nullable(check: Check) -> Check:
    return lambda value: None if value is None or value == "" else check(value)


def _array(items: Check) -> Check:
    def check(value: Any) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise Wrong("wrong_type", "must be a list")
        return [_at(place, items, item) for place, item in enumerate(value)]

    return check


def _at(place: object, check: Check, value: Any) -> Any:
    try:
        return check(value)
    except Wrong as wrong:
        raise Wrong(wrong.reason, f"at {place}: {wrong.text}", wrong.mend) from None


def _record(schema: Mapping[str, Any]) -> Check:
    checks = {f["name"]: _check_of(f) for f in schema["fields"]}
    defaults = {f["name"]: _default(f) for f in schema["fields"] if "default" in f}
    required = checks.keys() - defaults.keys()

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise Wrong("wrong_type", "must be an object")
        if unknown := sorted(set(map(str, value)) - checks.keys()):
            raise Wrong("unknown_field", f"{len(unknown)} field(s) are not in the contract")
        if missing := sorted(required - value.keys()):
            raise Wrong("missing_field", f"lacks {', '.join(missing)}")
        return defaults | {name: _at(name, checks[name], item) for name, item in value.items()}

    return check


def _codes(set_id: str) -> Check:
    known = frozenset(codesets.load(set_id).values)

    def check(value: Any) -> str:
        if _text(value) in known or value == "":
            return value  # type: ignore[no-any-return]
        raise Wrong("unknown_code", f"is not a code of {set_id}", "look the code up in schemas/codesets")

    return check


def _enum(symbols: Iterable[str]) -> Check:
    known = frozenset(symbols)

    def check(value: Any) -> str:
        if _text(value) in known:
            return value  # type: ignore[no-any-return]
        raise Wrong("unknown_code", f"must be one of {', '.join(sorted(known))}")

    return check


def _check_of(spec: Mapping[str, Any]) -> Check:
    """The check of one field (or of a list's items, given as ``{"type": …}``)."""
    kind = spec["type"]
    if isinstance(kind, list):
        (inner,) = [k for k in kind if k != "null"]
        return _nullable(_plain({**spec, "type": inner}, nullable=True))
    return _plain(spec, nullable=False)


PRIMITIVES: Mapping[str, Check] = {
    "string": _text, "boolean": _boolean, "double": _double, "float": _double, "bytes": _bytes,
    "int": _integer(*INT_RANGE), "long": _integer(*LONG_RANGE),
}  # fmt: skip


def _plain(spec: Mapping[str, Any], nullable: bool) -> Check:
    kind = spec["type"]
    if spec.get("codeset") and kind == "string":
        return _codes(spec["codeset"])
    if isinstance(kind, str):
        return PRIMITIVES[kind]
    match kind.get("logicalType") or kind["type"]:
        case "timestamp-millis":
            return _moment
        case "date":
            return _day(nullable)
        case "array":
            return _array(_check_of({"type": kind["items"], "codeset": spec.get("codeset")}))
        case "record":
            return _record(kind)
        case "enum":
            return _enum(kind["symbols"])
    return _check_of({**spec, "type": kind["type"]})


# --- rules over several fields ------------------------------------------------------------------------------


def _identifier(name: str, reason: str, check: Callable[[str], Identifier]) -> Rule:
    def rule(finding: Finding) -> None:
        _apply_identifier(finding, name, reason, check)

    return rule


def _apply_identifier(finding: Finding, name: str, reason: str, check: Callable[[str], Identifier]) -> None:
    text = finding.record.get(name)
    if not text:
        return
    try:
        value, notes = check(text)
    except ValueError as error:
        finding.fault(reason, name, str(error), "copy it again from the document")
        return
    finding.record[name] = value
    finding.notes.extend(f"{name}: {note}" for note in notes)


def _person(name: str) -> Rule:
    """Identifier of a person or body, by its document type (GA/T 2000.156); of others only the capitals are certain."""

    def rule(finding: Finding) -> None:
        record = finding.record
        kind = record.get(f"{name}_type_code", "") if record.get(f"{name}_type_set") == PERSON_SET else ""
        _apply_identifier(finding, name, *PERSON_TYPES.get(kind, ("bad_format", identifiers.capitals)))

    return rule


def _code_pair(set_name: str, code_name: str, allowed: frozenset[str] | None) -> Rule:
    """A code whose set the sender names: a known set that the field allows, a code of that set. Left out or empty is
    the same, and never is a code bare (DOMAIN, rule 1); a set may be alone, as a constant column of an export is.
    """

    def rule(finding: Finding) -> None:
        record, told = finding.record, {f.field for f in finding.faults}
        if code_name in told or (set_name in told and set_name not in record):
            return
        set_id, code = record.get(set_name), record.get(code_name)
        if not (set_id or code):
            return
        if not set_id or (allowed is not None and set_id not in allowed) or not _is_set(set_id):
            sets = f": use {', '.join(sorted(allowed))}" if allowed else ""
            finding.fault(
                "bad_code_set",
                set_name,
                "does not name a code set known for this field",
                f"name the set{sets}",
            )
        elif code and not codesets.known(set_id, code):
            finding.fault("unknown_code", code_name, f"is not a code of the set that {set_name} names")

    return rule


@lru_cache(maxsize=1024)
def _is_set(set_id: str) -> bool:
    try:
        codesets.load(set_id)
    except (KeyError, LookupError, FileNotFoundError, ValueError):
        return False
    return True


def _refusal_has_reason(finding: Finding) -> None:
    """Administrative Licensing Law art. 38 and 55, DOMAIN §3.4 and narrative 20: whoever does not grant what was
    applied for gives a reason; so does a refusal to share (§7.4). An annulment of one event is no decision.
    """
    record = finding.record
    result_set, result = record.get("result_set"), record.get("result_code")
    refused = record.get("event_type") in REFUSALS and not record.get("corrects_event_id")
    if record.get("event_type") == "case.decided" and result_set in codesets.ids():
        refused = str(result) in codesets.load(str(result_set)).reasoned
    if refused and not record.get("reason", "").strip():
        finding.fault("missing_reason", "reason", "a refusal must give its reason", "state the reason in words")


def _decided_has_result(finding: Finding) -> None:
    """DOMAIN §3.4: a decision says what it is; without a result a denial would look like a grant."""
    record = finding.record
    told = record.get("result_code") or any(f.field == "result_code" for f in finding.faults)
    if record.get("event_type") == "case.decided" and not told:
        finding.fault("missing_field", "result_code", "a decision must tell its result",
                      "name the code set in result_set and the result in result_code")  # fmt: skip


def _correction_names_event_and_time(finding: Finding) -> None:
    """DOMAIN §3.4: a correction moves one event in time; without either it would be taken and change nothing."""
    if finding.record.get("event_type") != "case.corrected":
        return
    for name in ("corrects_event_id", "corrected_at"):
        if not finding.record.get(name) and not any(f.field == name for f in finding.faults):
            finding.fault("missing_field", name, "a correction must tell which event happened when",
                          "to correct anything but the time, send case.voided with corrects_event_id, and the event "
                          "anew with the next event_no")  # fmt: skip


def _extension_is_no_special_procedure(finding: Finding) -> None:
    """DOMAIN §3.1, §3.3: 延长审批 is exchanged as a special procedure, yet raises the limit and pauses nothing."""
    record = finding.record
    special = record.get("event_type") in ("case.special_started", "case.special_ended")
    if special and record.get("special_kind_code") == EXTENSION:
        finding.fault("rule_failed", "special_kind_code", "an extension does not pause the clock",
                      "send case.extended with extension_limit and extension_unit_code")  # fmt: skip


def _special_ends_after_its_start(finding: Finding) -> None:
    """DOMAIN §3.3, §3.6: a pause ends when it began at the earliest; an end that tells no time is when it occurred."""
    record = finding.record
    occurred = record.get("occurred_at") if record.get("event_type") == "case.special_ended" else None
    start, end = record.get("special_started_at"), record.get("special_ended_at") or occurred
    if start is not None and end is not None and end < start:
        finding.fault("bad_event_time", "special_started_at", "lies after the end of the special procedure",
                      "correct either time")  # fmt: skip


def _reported_after_check(finding: Finding) -> None:
    """DOMAIN §8.1 and narrative 47: a behaviour is not reported before it happened."""
    reported, occurred = finding.record.get("reported_at"), finding.record.get("occurred_at")
    if reported is not None and occurred is not None and reported < occurred:
        finding.fault("report_before_check", "reported_at", "lies before occurred_at, the time of the check")


def _promise_within_statute(finding: Finding) -> None:
    """DOMAIN §2.5 and narrative 30: the promised limit is at most the statutory one; compared in one unit
    only.
    """
    record = finding.record
    promise, statutory = record.get("promise_limit"), record.get("statutory_limit")
    unit, factor = SAME_UNIT.get(record.get("promise_unit_code", ""), ("", 0.0))
    other, other_factor = SAME_UNIT.get(record.get("statutory_unit_code", ""), ("", 0.0))
    if promise is None or statutory is None or unit != other:
        return
    if promise * factor > statutory * other_factor:
        finding.fault(
            "rule_failed", "promise_limit", "is longer than statutory_limit", "correct either limit"
        )


def _steps_within_promise(finding: Finding) -> None:
    """DOMAIN §2.5: the limits of the steps sum up to the promise at most; compared in one unit only."""
    record = finding.record
    unit, factor = SAME_UNIT.get(record.get("promise_unit_code", ""), ("", 0.0))
    steps = [(SAME_UNIT.get(s.get("step_unit_code", ""), ("", 0.0)), s) for s in record.get("steps") or ()]
    promise = record.get("promise_limit")
    if promise is None or not steps or any(other != unit for (other, _), _ in steps):
        return
    if sum(by * float(s.get("step_limit", 0)) for (_, by), s in steps) > promise * factor:
        finding.fault("rule_failed", "steps", "together they are longer than promise_limit", "correct the limits")


def _on_the_spot_within_a_day(finding: Finding) -> None:
    """DOMAIN §2.5: what is promised on the spot (即办件) is not promised in days."""
    record = finding.record
    unit, factor = SAME_UNIT.get(record.get("promise_unit_code", ""), ("", 0.0))
    promise = record.get("promise_limit")
    if (record.get("kind_set"), record.get("kind_code")) != ON_THE_SPOT or promise is None or unit == "minute":
        return
    if promise * factor >= 1:
        finding.fault("rule_failed", "promise_limit", "is a day or more, yet kind_code says on the spot (即办件)",
                      "correct the limit, or kind_code to 2 (承诺件)")  # fmt: skip


def _level_matches_code(finding: Finding) -> None:
    """DOMAIN §2.2: place 19 of an implementing code is the level of the body."""
    code, level = finding.record.get("item_code", ""), finding.record.get("body_level_code", "")
    if level and len(code) in identifiers.ITEM_LENGTHS and code[18] != level:
        finding.fault("bad_item_code", "item_code", "place 19 (the level) differs from body_level_code")


def _assessment_number(finding: Finding) -> None:
    """DOMAIN §5.6.1 and narrative 36: one rating and one re-rating per service."""
    number = finding.record.get("assess_no")
    if number is not None and not 1 <= number <= LAST_ASSESSMENT:
        finding.fault("assess_number_exceeded", "assess_no", f"must be 1 to {LAST_ASSESSMENT}")


def _operation_of_the_event(finding: Finding) -> None:
    """DOMAIN §5.6.6: what a rating's event is says its operation, filled in where it is left out. The processor
    looks at the operation alone: a withdrawal that says I withdraws nothing.
    """
    record = finding.record
    event = record.get("event_type", "")
    if event not in OPERATIONS or "operation" in {f.field for f in finding.faults}:
        return
    record["operation"] = record.get("operation") or OPERATIONS[event]
    if record["operation"] != OPERATIONS[event]:
        finding.fault("rule_failed", "operation", f"is not {OPERATIONS[event]}, which {event} means",
                      "leave it out, or correct event_type")  # fmt: skip


def _tags_match_level(finding: Finding) -> None:
    """DOMAIN §5.4: the first digit of a detail tag is the level, 5 best."""
    record = finding.record
    tags, set_id, code = record.get("tags"), record.get("satisfaction_set"), record.get("satisfaction_code")
    if not tags or not set_id or not code or not _is_set(set_id):
        return
    score = codesets.canonical(set_id, code)
    if score is not None and any(not tag.startswith(score) for tag in tags):
        finding.fault("tag_level_mismatch", "tags", "a tag belongs to another level of satisfaction")


def _says_what_its_identifier_says(finding: Finding) -> None:
    """DOMAIN §6.2: a licence identifier names type, issuer and version. A region code may stand for the issuer, and
    stock may have got its identifier from another body (§6.5): nothing to compare then.
    """
    record = finding.record
    names = ("type_code", "issuer_code", "licence_version")
    if not record.get("licence_id") or {"licence_id", *names} & {f.field for f in finding.faults}:
        return
    named = dict(zip(names, identifiers.licence_parts(record["licence_id"]), strict=True))
    lengths = {len(str(named["issuer_code"])), len(record.get("issuer_code", ""))}
    if lengths != {identifiers.USCC_LENGTH} or record.get("origin_code") == index.STOCK:
        del named["issuer_code"]
    if differing := [name for name, said in named.items() if record.get(name, said) != said]:
        finding.fault("bad_licence_id", "licence_id", f"names another {', '.join(differing)}",
                      "copy both again from the document")  # fmt: skip


def _version_from_one(finding: Finding) -> None:
    """DOMAIN §6.2: the first version of a licence is 001."""
    if finding.record.get("licence_version", 1) < 1:
        finding.fault("bad_format", "licence_version", "must be 1 or more")


def _valid_from_to(finding: Finding) -> None:
    """DOMAIN §6.3: validity has a first and a last day."""
    first, last = finding.record.get("valid_from_on"), finding.record.get("valid_to_on")
    if first is not None and last is not None and last < first:
        finding.fault("rule_failed", "valid_to_on", "lies before valid_from_on", "correct either day")


def _family(finding: Finding) -> None:
    """The family is ``type_code/issuer_code/licence_no``; filled in where it is left out."""
    record = finding.record
    parts = [record.get(name) for name in ("type_code", "issuer_code", "licence_no")]
    if not all(parts):
        return
    family = "/".join(map(str, parts))
    if record.setdefault("family", family).upper() != family.upper():
        finding.fault("bad_format", "family", "is not type_code/issuer_code/licence_no", "leave it out")
    record["family"] = family


def _issued_by_the_sender(finding: Finding) -> None:
    """DOMAIN §1.3, §7.1: of the licences of a department only it and the data authority tell. Issuers that are none
    (the province, other districts, former bodies) do not publish themselves.
    """
    issuer = codesets.bodies().get(finding.record.get("issuer_code", ""))
    if issuer and finding.record["department"] not in (issuer, catalogue.authority()):
        finding.fault("not_entitled", "issuer_code", "is another department, and only that one tells of its licences",
                      "correct it, or let the issuer publish the row")  # fmt: skip


def _shared_on_a_condition(finding: Finding) -> None:
    """DOMAIN §7.3: sharing on conditions says on which, and what is not shared by which law."""
    record = finding.record
    needed = CONDITIONAL.get(record.get("share_type_code", ""))
    if needed and record.get("event_type") in catalogue.DESCRIBES and not record.get("share_condition", "").strip():
        finding.fault("missing_field", "share_condition", f"share_type_code needs {needed}", "state it in words")


BUSINESS: Mapping[Topic, tuple[Rule, ...]] = {
    CASE: (
        _refusal_has_reason, _decided_has_result, _correction_names_event_and_time,
        _extension_is_no_special_procedure, _special_ends_after_its_start,
    ),
    BEHAVIOUR: (_reported_after_check,),
    ITEM: (_promise_within_statute, _steps_within_promise, _on_the_spot_within_a_day, _level_matches_code),
    RATING: (_operation_of_the_event, _assessment_number, _tags_match_level),
    LICENCE: (
        _version_from_one, _says_what_its_identifier_says, _valid_from_to, _family, _issued_by_the_sender,
    ),
    RESOURCE: (_shared_on_a_condition, _refusal_has_reason),
}


def _rating_fault(record: Mapping[str, Any]) -> Fault | None:
    from streams.rules import tally  # here: polars takes long to load, and only ratings need it

    wrong = tally.refusal(record)
    return None if wrong is None else Fault(*tally.FAULTS[wrong])


SOUND: Mapping[Topic, Callable[[Mapping[str, Any]], Fault | None]] = {
    CALENDAR: calendar.fault,
    ITEM: define.fault,
    RATING: _rating_fault,
}
"""What a processor refuses of a record that keeps its contract: better said here than in a dead letter."""
DERIVED: Mapping[Topic, frozenset[str]] = {LICENCE: frozenset({"family"})}


def filled_by_the_bus(topic: Topic) -> frozenset[str]:
    """Fields without a default that a row may leave out all the same: the publisher knows or derives them."""
    return FILLED | DERIVED.get(topic, frozenset())


# --- the validator of a topic -------------------------------------------------------------------------------


class Validator:
    """All rules of one inbound topic for one publishing department; ``region`` is GB/T 2260."""

    def __init__(self, topic: Topic, department: str, region: str) -> None:
        self.topic, self.department, self.region = topic, department, region
        self._fields = contracts.field_specs(topic)
        self._checks = {name: _check_of(f) for name, f in self._fields.items()}
        self._checks |= {"event_id": _text, "department": _department, "region": _region}
        self._checks["event_type"] = _event_type(
            topic.name, frozenset(self._fields["event_type"]["event_types"])
        )
        self._defaults = {n: _default(f) for n, f in self._fields.items() if "default" in f}
        filled = filled_by_the_bus(topic)
        self._required = tuple(n for n in self._fields if n not in self._defaults and n not in filled)
        self._moments = tuple(n for n in bounds.moments(topic) if n not in SET_BY_THE_BUS)
        self._rules = (*_rules_of(self._fields), *BUSINESS.get(topic, ()))

    def check(self, row: Mapping[str, Any], received_at: int) -> Finding:
        """Every fault of ``row`` received at ``received_at`` (epoch ms UTC); without faults the record is
        whole.

        The record then has all its fields but ``event_id``, which the publisher derives.
        """
        finding = Finding({"region": self.region, "department": self.department})
        self._fields_of(row, finding)
        record = finding.record
        for name in self._required:
            if record.get(name, "") == "" and not any(f.field == name for f in finding.faults):
                finding.fault("missing_field", name, "is required")
        for rule in self._rules:
            rule(finding)
        self._names(finding)
        self._envelope(row, finding, received_at)
        finding.record = {**self._defaults, **record, "received_at": received_at}
        sound = SOUND.get(self.topic)
        if sound and not finding.faults and (fault := sound(finding.record)):
            finding.faults.append(fault)
        return finding

    def _fields_of(self, row: Mapping[str, Any], finding: Finding) -> None:
        checks, record = self._checks, finding.record
        for name, value in row.items():
            if name not in checks or name in SET_BY_THE_BUS:
                finding.fault("unknown_field", shown(name), *_unknown(name))
            elif value is not None:
                try:
                    record[name] = checks[name](value)
                except Wrong as wrong:
                    finding.fault(wrong.reason, name, wrong.text, wrong.mend)

    def _names(self, finding: Finding) -> None:
        """What names something can be kept in an index, and is not another name to the eye; each is told once."""
        finding.faults.extend(bounds.faults(self.topic, finding.record))
        told = {f.field for f in finding.faults} | DERIVED.get(self.topic, frozenset())
        finding.faults.extend(f for f in bounds.misnamed(self.topic, finding.record) if f.field not in told)

    def _envelope(self, row: Mapping[str, Any], finding: Finding, received_at: int) -> None:
        record = finding.record
        if record["department"] != self.department:
            finding.fault(
                "envelope_mismatch", "department", "is not the publishing department", "leave it out"
            )
        if not (record["region"].startswith(self.region) or self._is_nation_wide(record)):
            finding.fault("envelope_mismatch", "region", "is not a region of this publisher", "leave it out")
        if isinstance(text := row.get("occurred_at"), str):
            record["occurred_text"] = text
        elif isinstance(text, datetime):
            record["occurred_text"] = text.isoformat(sep=" ")
        elif not _is_time(record.setdefault("occurred_text", "")):
            finding.fault("bad_format", "occurred_text", "is not a time that exists in a known format", times.MENDS)
        self._times(finding, received_at)

    def _is_nation_wide(self, record: Mapping[str, Any]) -> bool:
        return self.topic is CALENDAR and record["region"] == calendar.NATION

    def _times(self, finding: Finding, received_at: int) -> None:
        """DOMAIN narrative 53: neither far in the future nor before there were systems to stamp it."""
        stock = finding.record.get("event_type") == "licence.backfilled"
        earliest = EARLIEST_STOCK_MS if stock else EARLIEST_MS
        for name in self._moments:
            value = finding.record.get(name)
            if value is None:
                continue
            if value - received_at >= FUTURE_MS and not _lies_ahead(name, finding.record):
                finding.fault(
                    "bad_event_time",
                    name,
                    "lies 10 minutes or more after its receipt",
                    "set the sender's clock",
                )
            elif value < earliest:
                finding.fault(
                    "bad_event_time",
                    name,
                    f"lies before {1990 if stock else 2000}",
                    f"set the sender's clock; {times.MENDS}",
                )


def _is_time(text: object) -> bool:
    """Whether it is empty or a time as senders write it: it is published as it is."""
    try:
        if text:
            times.moment(text)
    except (ValueError, OverflowError):
        return False
    return True


def _lies_ahead(name: str, record: Mapping[str, Any]) -> bool:
    """Whether the moment may be in the future: a deadline, or the end that a start foretells."""
    return name in DEADLINES or (name == "special_ended_at" and record.get("event_type") == "case.special_started")


def _rules_of(fields: Mapping[str, Mapping[str, Any]]) -> Iterable[Rule]:
    """The rules that follow from which fields a contract has."""
    for name in fields:
        if name in FORMATS:
            yield _identifier(name, *FORMATS[name])
        if f"{name}_type_code" in fields:
            yield _person(name)
        if name.endswith("_set") and (code := f"{name.removesuffix('_set')}_code") in fields:
            allowed = fields[name].get("codesets")
            yield _code_pair(name, code, frozenset(allowed) if allowed else None)


def _default(spec: Mapping[str, Any]) -> Any:
    default = spec["default"]
    return [] if default == [] else default


def shown(name: object) -> str:
    """A field name that is safe to print: a row, or the first line of a file without a header, may hold a value where a
    name belongs, and a passport's number is letters and digits.
    """
    safe = r"(?!.*[0-9]{5})[A-Za-z_][A-Za-z0-9_]{0,63}"
    return name if isinstance(name, str) and re.fullmatch(safe, name) else "?"


def _unknown(name: object) -> tuple[str, str]:
    if name in SET_BY_THE_BUS:
        return "is set by the bus when it takes the event", "leave it out"
    return "is not in the contract", "see schemas/avro for the names"


@lru_cache(maxsize=1)
def _departments() -> Mapping[str, str]:
    """Stable code of every department by code, name and alias (DOMAIN §1.3)."""
    known = codesets.departments()
    return {text: code for code, d in known.items() for text in (code, d.name, *d.aliases)}


def department_code(text: str) -> str | None:
    """The stable code of a department given by its code, name or an alias; None if it is not known."""
    return _departments().get(text.strip())


def _department(value: Any) -> str:
    if code := department_code(_text(value)):
        return code
    raise Wrong(
        "unknown_department", "is no department's code, name or alias", "see the code set govbus.department"
    )


def is_region(text: str) -> bool:
    """Whether it is a GB/T 2260 code of 6 digits, or 9 with the township's 3, which are not published as a list (DOMAIN
    §1.2).
    """
    listed = re.fullmatch(r"[0-9]{6}([0-9]{3})?", text) and codesets.known("gbt2260.region", text[:6])
    return bool(listed) or text == calendar.NATION


def _region(value: Any) -> str:
    if is_region(text := _text(value)):
        return text
    raise Wrong(
        "unknown_code", "is not a region code of gbt2260.region", "send 6 digits, or 9 with the township"
    )


def _event_type(topic_name: str, known: frozenset[str]) -> Check:
    def check(value: Any) -> str:
        if _text(value) in known:
            return value  # type: ignore[no-any-return]
        raise Wrong(
            "unknown_code", f"is not an event type of {topic_name}", f"use one of {', '.join(sorted(known))}"
        )

    return check


@lru_cache(maxsize=512)
def validator(topic: Topic, department: str, region: str) -> Validator:
    """The compiled validator, once per topic, department and region; ``topic`` must be inbound."""
    if topic not in INBOUND:
        raise ValueError(f"{topic.name} is not a topic that departments publish to")
    return Validator(topic, department, region)
