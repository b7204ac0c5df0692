"""Contracts change only so that every version reads every other; each refusal names field, rule and mend."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from govbus.cli import build
from schemas import codec, contracts, evolution, examples
from schemas.codec import decode, encode
from schemas.contracts import contract, schema_id, version
from schemas.errors import Rejected
from schemas.evolution import compare, differing_values, example_faults, lint
from schemas.readable import from_json
from schemas.topics import ITEM, RATING, TOPICS, Topic

Json = dict[str, Any]
topics = pytest.mark.parametrize("topic", TOPICS, ids=lambda t: t.name)
COLOUR = {"type": "enum", "name": "Colour", "symbols": ["RED", "YELLOW"]}
ADDED: Json = {
    "name": "postal_route",
    "type": "string",
    "default": "",
    "doc": "Postal route of the paper (邮路).",
}


def field(schema: Json, name: str) -> Json:
    return next(f for f in schema["fields"] if f["name"] == name)


def changed(change: Callable[[Json], Any], topic: Topic = RATING) -> Json:
    schema = copy.deepcopy(contract(topic))
    change(schema)
    return schema


def without(name: str) -> Callable[[Json], None]:
    def change(schema: Json) -> None:
        schema["fields"] = [f for f in schema["fields"] if f["name"] != name]

    return change


def test_the_present_contracts_are_sound() -> None:
    assert evolution.check() == []


def test_the_command_says_so_and_exits_0() -> None:
    result = CliRunner().invoke(build(), ["schemas", "check", "--json"])

    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"ok": True, "findings": []}


def test_the_command_exits_1_and_names_field_rule_and_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    worse = changed(lambda s: field(s, "comment").pop("personal"))
    monkeypatch.setattr(evolution, "contract", lambda t: worse if t is RATING else contract(t))

    result = CliRunner().invoke(build(), ["schemas", "check", "--json"])

    assert result.exit_code == 1
    found = {(f["field"], f["rule"]): f["mend"] for f in json.loads(result.stdout)["findings"]}
    assert {("comment", "personal_changed"), ("comment", "unmarked_personal")} <= found.keys()
    assert all(found.values())


COMPATIBLE: dict[str, Callable[[Json], Any]] = {
    "an added field with a default": lambda s: s["fields"].append(ADDED),
    "a removed field that had a default": without("window_name"),
    "another doc": lambda s: field(s, "comment").update(doc="What the citizen wrote (文字评价)."),
    "other order": lambda s: s["fields"].reverse(),
}


@pytest.mark.parametrize("change", COMPATIBLE.values(), ids=COMPATIBLE)
def test_a_compatible_change_passes_and_values_survive_both_ways(change: Callable[[Json], Any]) -> None:
    old, new = contract(RATING), changed(change)
    stored = [decode(encode(RATING, r)) for r in examples.load(RATING).values()]

    assert compare("t", old, new) == []
    assert compare("t", new, old) == []
    assert differing_values("t", old, new, stored) == []
    kept = [{"postal_route": "A7", **r} for r in stored]
    assert differing_values("t", new, old, kept) == []


INCOMPATIBLE: dict[str, tuple[Callable[[Json], Any], str, str]] = {
    "an added field without default": (
        lambda s: s["fields"].append({k: v for k, v in ADDED.items() if k != "default"}),
        "postal_route",
        "missing_default",
    ),
    "a removed field without default": (without("case_no"), "case_no", "missing_default"),
    "another type": (lambda s: field(s, "service_no").update(type="string"), "service_no", "avro_"),
    "a wider type, which old readers cannot read": (
        lambda s: field(s, "service_no").update(type="long"),
        "service_no",
        "avro_",
    ),
    "a date that was an instant": (
        lambda s: field(s, "occurred_at").update(type="long"),
        "occurred_at",
        "logical_type_changed",
    ),
    "a personal mark taken away": (
        lambda s: field(s, "comment").pop("personal"),
        "comment",
        "personal_changed",
    ),
    "a personal mark put on": (
        lambda s: field(s, "window_name").update(personal=True),
        "window_name",
        "personal_changed",
    ),
    "another fixed code set": (
        lambda s: field(s, "operation").update(codeset="govbus.finding"),
        "operation",
        "codeset_changed",
    ),
    "another choice of code sets": (
        lambda s: field(s, "satisfaction_set")["codesets"].pop(),
        "satisfaction_set",
        "codesets_changed",
    ),
}


@pytest.mark.parametrize(("change", "where", "rule"), INCOMPATIBLE.values(), ids=INCOMPATIBLE)
def test_an_incompatible_change_is_refused_in_both_directions(
    change: Callable[[Json], Any], where: str, rule: str
) -> None:
    old, new = contract(RATING), changed(change)

    for pair in ((old, new), (new, old)):
        found = compare("t", *pair)
        assert any(f.field == where and f.rule.startswith(rule) and f.mend for f in found), found


@pytest.mark.parametrize("symbols", [["RED", "YELLOW", "GREEN"], ["RED"], ["YELLOW", "RED"]])
def test_an_enum_neither_grows_nor_shrinks_nor_turns(symbols: list[str]) -> None:
    old, new = ({**contract(RATING), "fields": [{"name": "c", "type": {**COLOUR, "symbols": s}}]} for s in
                (COLOUR["symbols"], symbols))  # fmt: skip

    assert ("c", "enum_changed") in {(f.field, f.rule) for f in compare("t", old, new)}


def test_a_change_deep_inside_an_array_is_found() -> None:
    def change(schema: Json) -> None:
        field(schema, "elements")["type"]["items"]["fields"][2]["type"] = "bytes"

    found = compare("t", contract(ITEM), changed(change, ITEM))

    assert "elements.digest" in {f.field for f in found}


def lone(type_: Any, **attributes: Any) -> Json:
    one = {"name": "thing", "type": type_, "doc": "A thing (东西), no unit.", **attributes}
    return {"type": "record", "name": "T", "fields": [one]}


UNSOUND: dict[str, tuple[Json, str]] = {
    "no doc": (lone("string", doc=""), "missing_doc"),
    "a doc too short to explain": (lone("string", doc="thing"), "missing_doc"),
    "a recursive type": (lone(["null", "T"]), "recursive_type"),
    "recursion through an array": (lone({"type": "array", "items": "T"}), "recursive_type"),
    "items of null": (lone({"type": "array", "items": "null"}), "zero_width_items"),
    "items of empty records": (
        lone({"type": "array", "items": {"type": "record", "name": "E", "fields": []}}),
        "zero_width_items",
    ),
    "a nullable enum": (lone(["null", COLOUR]), "unread_union"),
    "a union of three": (lone(["null", "string", "int"]), "unread_union"),
    "a map": (lone({"type": "map", "values": "string"}), "unread_map"),
    "a default of another type": (lone("int", default="1"), "bad_default"),
    "a set nobody knows": (lone("string", codeset="govbus.nothing"), "unknown_codeset"),
}


@pytest.mark.parametrize(("schema", "rule"), UNSOUND.values(), ids=UNSOUND)
def test_an_unsound_contract_is_refused(schema: Json, rule: str) -> None:
    assert [(f.field.split(".")[0], f.rule) for f in lint("t", schema)] == [("thing", rule)]


@pytest.mark.parametrize(
    "name", ["applicant_name", "caller_phone", "holder_id", "email", "home_address", "comment"]
)
def test_a_field_named_like_personal_data_must_be_marked(name: str) -> None:
    def rules(**marks: Any) -> list[str]:
        return [f.rule for f in lint("t", lone("string", **{"name": name, **marks}))]

    assert rules() == ["unmarked_personal"]
    assert rules(personal=True) == rules(masked=True) == []


def test_a_code_must_say_its_set() -> None:
    assert [f.rule for f in lint("t", lone("string", name="colour_code"))] == ["code_without_set"]
    assert lint("t", lone("string", name="colour_code", codeset="govbus.card-colour")) == []


@topics
def test_golden_values_are_read_to_the_value_they_were_written_with(topic: Topic) -> None:
    path = contracts.golden_path(topic, version(topic)).with_suffix(".values.json")
    golden = json.loads(path.read_text(encoding="utf-8"))

    assert len(golden) >= 3
    for stored in golden.values():
        record = from_json(topic, stored["value"])
        assert decode(bytes.fromhex(stored["hex"]), topic) == record
        assert encode(topic, record).hex() == stored["hex"]


def test_a_golden_value_that_reads_otherwise_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def spoiled(topic: Topic, number: int) -> Path:
        real = contracts.golden_path(topic, number)
        copied = tmp_path / topic.name / real.name
        copied.parent.mkdir(exist_ok=True)
        copied.write_text(real.read_text(encoding="utf-8"), encoding="utf-8")
        values = real.with_suffix(".values.json").read_text(encoding="utf-8")
        copied.with_suffix(".values.json").write_text(values.replace("测试丙", "测试丁"), encoding="utf-8")
        return copied

    monkeypatch.setattr(evolution, "golden_path", spoiled)

    assert ("rater_name", "value_changed") in {(f.field, f.rule) for f in evolution.check()}


def test_a_published_version_may_not_change_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    grown = changed(lambda s: s["fields"].append(ADDED))
    monkeypatch.setattr(evolution, "contract", lambda t: grown if t is RATING else contract(t))

    found = [f for f in evolution.check() if f.topic == RATING.name]

    assert [f.rule for f in found] == ["changed_in_place"]
    assert "1003" in found[0].mend


@pytest.fixture
def second_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Topic:
    """Ratings at version 2, which adds a field; version 1 frozen as it is."""
    grown = changed(lambda s: s["fields"].append(ADDED))
    path = tmp_path / "service.rating.v1.avsc"
    path.write_text(json.dumps(grown), encoding="utf-8")
    newer = replace(RATING, schema_id=schema_id(RATING, 2))
    monkeypatch.setattr(Topic, "contract", property(lambda t: path if t.name == RATING.name else None))
    monkeypatch.setattr(contracts, "TOPICS", (newer,))
    for cached in (contracts.contract, contracts.written_by, codec._codec):
        cached.cache_clear()
    return newer


@pytest.fixture(autouse=True)
def _fresh_caches() -> Any:
    yield
    for cached in (contracts.contract, contracts.written_by, codec._codec):
        cached.cache_clear()


def test_a_value_of_the_first_version_is_read_as_the_second(second_version: Topic) -> None:
    golden = json.loads((contracts.GOLDEN / RATING.name / "1.values.json").read_text(encoding="utf-8"))
    stored = golden["named-bad-rating-with-text"]

    record = decode(bytes.fromhex(stored["hex"]), second_version)

    assert record == from_json(RATING, stored["value"]) | {"postal_route": ""}
    assert encode(second_version, record)[:5] == b"\x00\x00\x00\x03\xeb"
    assert decode(encode(second_version, record | {"postal_route": "A7"}))["postal_route"] == "A7"


def test_a_spoiled_value_of_an_older_version_is_refused_all_the_same(second_version: Topic) -> None:
    golden = json.loads((contracts.GOLDEN / RATING.name / "1.values.json").read_text(encoding="utf-8"))
    value = bytes.fromhex(golden["named-bad-rating-with-text"]["hex"])

    with pytest.raises(Rejected, match="not_canonical"):
        decode(value + b"\x00", second_version)


def test_a_file_that_no_topic_owns_is_an_orphan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "service.nothing.v1.avsc").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(evolution, "AVRO", tmp_path)
    examples_home = tmp_path / "examples"
    (examples_home / "service.nothing.v1").mkdir(parents=True)
    monkeypatch.setattr(examples, "HERE", examples_home)

    orphans = [f.topic for f in evolution._orphans()]

    assert orphans == ["service.nothing.v1.avsc", "service.nothing.v1"]


MISLEADING: dict[str, tuple[Json, str]] = {
    "a code of another set": ({"satisfaction_code": "9"}, "satisfaction_set"),
    "a set that is not allowed": ({"channel_set": "gat2000.156", "channel_code": "111"}, "channel_set"),
    "a tag nobody knows": ({"tags": ["999"]}, "tag_set"),
    "an unknown department": ({"department": "HS-NOBODY"}, "event_id"),
    "an event of another topic": ({"event_type": "case.accepted"}, "event_type"),
    "a wrong type": ({"service_no": "1"}, "service_no"),
}


@pytest.mark.parametrize(("spoil", "where"), MISLEADING.values(), ids=MISLEADING)
def test_an_example_that_would_mislead_is_found(spoil: Json, where: str) -> None:
    example = examples.load(RATING)["named-bad-rating-with-text"]

    assert list(example_faults(RATING, "e", example)) == []
    assert f"e:{where}" in {f.field for f in example_faults(RATING, "e", example | spoil)}
