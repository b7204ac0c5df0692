"""How contracts may change. Decides whether the present contracts are sound and compatible with every frozen
version.

Compatibility is full and transitive: whatever any version wrote, every other version reads, in both
directions, since departments upgrade when they can. On top of Avro's own rules stand ours, each finding
naming field, rule and mend. It changes nothing; ``freeze`` alone writes, and only a version that was never
frozen before.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import avro.compatibility
import avro.errors
import avro.schema
import fastavro

from schemas import codesets, contracts, examples
from schemas.codec import decode, encode, without_instants
from schemas.contracts import contract, golden_path, schema_id, version
from schemas.envelope import event_id
from schemas.errors import Rejected
from schemas.readable import from_json, to_json
from schemas.topics import AVRO, TOPICS, Topic

Json = Mapping[str, Any]
MEANING = ("codeset", "codesets", "identifier", "personal", "masked")
PERSONAL = re.compile(
    r"^(applicant|holder|rater|handler|actor|subject|caller|user|contact|legal|agent|person|citizen)"
    r"_(name|id|phone|mobile|address|email)$|(^|_)(phone|mobile|telephone|address|email|id_card|comment)$"
)
SIMPLE = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason why a contract may not stand: where, which rule, how to mend it."""

    topic: str
    field: str
    rule: str
    text: str
    mend: str


def check() -> list[Finding]:
    """Everything wrong with the present contracts, their goldens and their examples."""
    found = [*_orphans()]
    for topic in TOPICS:
        found += lint(topic.name, contract(topic))
        found += _versions(topic)
        found += _examples(topic)
    return found


def lint(topic: str, schema: Json) -> list[Finding]:
    """What one contract may not contain, whatever came before."""
    found = list(_recursion(topic, schema, ()))
    if found:
        return found
    for path, field in _fields(schema):
        found += _lint_field(topic, path, field, {f["name"] for f in schema["fields"]})
    return found


def compare(topic: str, old: Json, new: Json) -> list[Finding]:
    """Why readers and writers of ``old`` and ``new`` would not understand each other."""
    return [*_avro_rules(topic, old, new), *_own_rules(topic, old, new)]


def differing_values(topic: str, writer: Json, reader: Json, values: Sequence[Json]) -> list[Finding]:
    """Fields whose value changes when ``writer`` encodes ``values`` and ``reader`` reads them."""
    written, seen = (fastavro.parse_schema(without_instants(dict(s))) for s in (writer, reader))
    both = {f["name"] for f in writer["fields"]} & {f["name"] for f in reader["fields"]}
    found = []
    for value in values:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, written, dict(value))
        buffer.seek(0)
        got: Any = fastavro.schemaless_reader(buffer, written, seen)
        wrong = sorted(name for name in both if got[name] != value[name])
        found += [
            Finding(topic, n, "value_changed", "another value is read", "undo the change") for n in wrong
        ]
    return found


def freeze(topic: Topic) -> bool:
    """Store the present version and its examples' values as golden copies; False if it is frozen already."""
    path = golden_path(topic, version(topic))
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(topic.contract.read_text(encoding="utf-8"), encoding="utf-8")
    values = {name: encode(topic, record) for name, record in examples.load(topic).items()}
    golden = {n: {"hex": v.hex(), "value": to_json(topic, decode(v, topic))} for n, v in values.items()}
    text = json.dumps(golden, ensure_ascii=False, indent=2) + "\n"
    path.with_suffix(".values.json").write_text(text, encoding="utf-8")
    return True


# --- versions -----------------------------------------------------------------------------------------------


def _versions(topic: Topic) -> Iterator[Finding]:
    """The present contract against every frozen version, contracts and values."""
    for number in range(1, version(topic) + 1):
        path = golden_path(topic, number)
        if not path.exists():
            yield Finding(
                topic.name, "", "not_frozen", f"version {number} has no golden copy", "schemas freeze"
            )
            continue
        old = json.loads(path.read_text(encoding="utf-8"))
        if number == version(topic) and without_docs(old) != without_docs(contract(topic)):
            mend = f"raise schema_id to {schema_id(topic, number + 1)} and freeze, or undo the change"
            yield Finding(
                topic.name, "", "changed_in_place", f"version {number} was published otherwise", mend
            )
        broken = compare(topic.name, old, contract(topic))
        yield from broken or _golden_values(topic, number, old)


def _golden_values(topic: Topic, number: int, old: Json) -> Iterator[Finding]:
    """Golden bytes still decode to golden values, and present examples are read by the old contract."""
    golden = json.loads(golden_path(topic, number).with_suffix(".values.json").read_text(encoding="utf-8"))
    for situation, stored in golden.items():
        try:
            now = decode(bytes.fromhex(stored["hex"]), topic)
        except Rejected as refused:
            yield Finding(
                topic.name, situation, "golden_unread", f"refused: {refused.reason}", "undo the change"
            )
            continue
        was = from_json(topic, stored["value"])
        wrong = sorted(n for n in was.keys() & now.keys() if was[n] != now[n])
        yield from (Finding(topic.name, n, "value_changed", situation, "undo the change") for n in wrong)
    present = [decode(encode(topic, record), topic) for record in examples.load(topic).values()]
    yield from differing_values(topic.name, contract(topic), old, present)


def without_docs(schema: Any) -> Any:
    """A contract without its docs, which alone may change in place."""
    if isinstance(schema, Mapping):
        return {k: without_docs(v) for k, v in schema.items() if k != "doc"}
    return [without_docs(s) for s in schema] if isinstance(schema, list) else schema


# --- Avro's rules and ours ----------------------------------------------------------------------------------


def _avro_rules(topic: str, old: Json, new: Json) -> Iterator[Finding]:
    for reader, writer, who in (
        (new, old, "old data by the new contract"),
        (old, new, "new data by the old one"),
    ):
        checker = avro.compatibility.ReaderWriterCompatibilityChecker()
        result = checker.get_compatibility(_parsed(reader), _parsed(writer))
        if result.compatibility is not avro.compatibility.SchemaCompatibilityType.compatible:
            places = sorted(_place(reader, location) for location in result.locations) or [""]
            why = ", ".join(sorted({str(kind.value) for kind in result.incompatibilities}))
            yield from (Finding(topic, p, f"avro_{why}", f"cannot read {who}", _MEND_AVRO) for p in places)


_MEND_AVRO = "keep the field and its type; give every added or removed field a default"


def _parsed(schema: Json) -> Any:
    return avro.schema.parse(json.dumps(schema))


def _place(schema: Json, location: str) -> str:
    """Field names for a location such as ``/fields/3/type``."""
    names: list[str] = []
    here: Any = schema
    for part in location.strip("/").split("/"):
        try:
            here = here[int(part)] if isinstance(here, list) else here[part]
        except (KeyError, IndexError, ValueError, TypeError):
            break
        if isinstance(here, Mapping) and "name" in here and "type" in here:
            names.append(str(here["name"]))
    return ".".join(names) or location


def _own_rules(topic: str, old: Json, new: Json) -> Iterator[Finding]:
    was, now = dict(_fields(old)), dict(_fields(new))
    for path in was.keys() - now.keys():
        if "default" not in was[path]:
            yield Finding(topic, path, "missing_default", "a removed field had no default", "keep the field")
    for path in now.keys() - was.keys():
        if "default" not in now[path]:
            yield Finding(
                topic, path, "missing_default", "an added field has no default", "give it a default"
            )
    for path in sorted(was.keys() & now.keys()):
        yield from _changed(topic, path, was[path], now[path])


def _changed(topic: str, path: str, old: Json, new: Json) -> Iterator[Finding]:
    for mark in MEANING:
        if old.get(mark) != new.get(mark):
            yield Finding(
                topic, path, f"{mark}_changed", "the field would mean something else", "add a new field"
            )
    if _shape(old["type"]) != _shape(new["type"]):
        yield Finding(
            topic, path, "type_changed", "one side would read another kind of value", "add a new field"
        )
    if _logical(old["type"]) != _logical(new["type"]):
        yield Finding(
            topic, path, "logical_type_changed", "old values would be read otherwise", "add a new field"
        )
    if _symbols(old["type"]) != _symbols(new["type"]):
        mend = "keep the symbols; use a string with a code set for lists that grow"
        yield Finding(topic, path, "enum_changed", "one side would not know a symbol", mend)


# --- one contract -------------------------------------------------------------------------------------------


def _lint_field(topic: str, path: str, field: Json, names: set[str]) -> Iterator[Finding]:
    name = field["name"]
    if len(field.get("doc", "")) < 10:
        yield Finding(topic, path, "missing_doc", "no doc that explains it", "say meaning, unit and source")
    if PERSONAL.search(name) and not (field.get("personal") or field.get("masked")):
        mend = 'mark it "personal": true, or "masked": true if it is published without personal data'
        yield Finding(topic, path, "unmarked_personal", "named like personal data", mend)
    if name.endswith("_code") and not _code_explained(name, field, names):
        mend = f'give it "codeset" or "identifier", or a sibling {name[:-5]}_set'
        yield Finding(topic, path, "code_without_set", "a bare code", mend)
    for set_id in [*field.get("codesets", []), *([field["codeset"]] if "codeset" in field else [])]:
        if set_id not in codesets.ids():
            yield Finding(topic, path, "unknown_codeset", set_id, "add the set under schemas/codesets")
    yield from (Finding(topic, path, rule, text, mend) for rule, text, mend in _type_faults(field["type"]))
    if "default" in field and not _default_fits(field):
        yield Finding(
            topic, path, "bad_default", "the default is not of the field's (first) type", "correct it"
        )


def _code_explained(name: str, field: Json, names: set[str]) -> bool:
    return "codeset" in field or "identifier" in field or f"{name[:-5]}_set" in names


def _type_faults(schema: Any) -> Iterator[tuple[str, str, str]]:
    """What both decoders do not know, or what a few bytes could blow up."""
    if isinstance(schema, list):
        kinds = [s if isinstance(s, str) else s["type"] for s in schema]
        if len(schema) != 2 or "null" not in kinds or "enum" in kinds or "array" in kinds:
            yield (
                "unread_union",
                "only [null, T] is read by both decoders, T no enum",
                "use a default or a string",
            )
        for branch in schema:
            yield from _type_faults(branch)
    elif isinstance(schema, Mapping):
        if schema["type"] == "map":
            yield "unread_map", "a map is not read by column", "use an array of records"
        if schema["type"] == "array":
            if _zero_width(schema["items"]):
                yield (
                    "zero_width_items",
                    "an array item without bytes lets ten bytes claim 2^63 items",
                    "add a field",
                )
            yield from _type_faults(schema["items"])


def _zero_width(schema: Any) -> bool:
    if isinstance(schema, Mapping):
        if schema["type"] == "record":
            return all(_zero_width(f["type"]) for f in schema["fields"])
        return bool(schema["type"] == "null" or (schema["type"] == "fixed" and schema["size"] == 0))
    return bool(schema == "null")


def _recursion(topic: str, schema: Any, above: tuple[str, ...], path: str = "") -> Iterator[Finding]:
    """Named types that contain themselves: nesting without bound."""
    if isinstance(schema, str) and schema not in SIMPLE:
        if schema.rpartition(".")[2] in above:
            yield Finding(topic, path, "recursive_type", f"{schema} contains itself", "use an array of parts")
    elif isinstance(schema, list):
        for branch in schema:
            yield from _recursion(topic, branch, above, path)
    elif isinstance(schema, Mapping):
        if schema["type"] == "record":
            for field in schema["fields"]:
                inner = f"{path}.{field['name']}".lstrip(".")
                yield from _recursion(topic, field["type"], (*above, schema["name"]), inner)
        elif schema["type"] in ("array", "map"):
            yield from _recursion(topic, schema.get("items", schema.get("values")), above, path)


def _default_fits(field: Json) -> bool:
    try:
        _parsed({"type": "record", "name": "one", "fields": [dict(field)]})
        first = field["type"][0] if isinstance(field["type"], list) else field["type"]
        value = field["default"].encode("latin-1") if first == "bytes" else field["default"]
        return bool(fastavro.validate(value, without_instants(first), raise_errors=False))
    except (avro.errors.AvroException, AttributeError, UnicodeEncodeError):
        return False


def _fields(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field at every depth with its dotted path."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _fields(branch, path)
    elif isinstance(schema, Mapping):
        if schema["type"] == "array":
            yield from _fields(schema["items"], path)
        for field in schema.get("fields", []):
            inner = f"{path}.{field['name']}".lstrip(".")
            yield inner, field
            yield from _fields(field["type"], inner)


def _shape(schema: Any) -> Any:
    """The type alone: Avro would let text become bytes both ways, Python readers would not."""
    if isinstance(schema, list):
        return [_shape(s) for s in schema]
    if isinstance(schema, Mapping):
        return [schema["type"], schema.get("size"), _shape(schema.get("items"))]
    return [schema, None, None]


def _logical(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_logical(s) for s in schema]
    return schema.get("logicalType") if isinstance(schema, Mapping) else None


def _symbols(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_symbols(s) for s in schema]
    if isinstance(schema, Mapping):
        return schema.get("symbols") or _symbols(schema.get("items"))
    return None


# --- examples and files -------------------------------------------------------------------------------------


def _examples(topic: Topic) -> Iterator[Finding]:
    try:
        loaded = examples.load(topic)
    except (ValueError, TypeError, KeyError) as error:
        yield Finding(
            topic.name, "", "bad_example", f"unreadable ({type(error).__name__})", "correct the file"
        )
        return
    if len(loaded) < 3:
        yield Finding(topic.name, "", "few_examples", "a topic needs three examples", "add situations")
    for situation, record in loaded.items():
        yield from example_faults(topic, situation, record)


def example_faults(topic: Topic, situation: str, record: Json) -> Iterator[Finding]:
    """Why an example would mislead: shape, codes or id."""
    mend = "correct the example"
    try:
        full = decode(encode(topic, record), topic)
    except Rejected as refused:
        yield from (
            Finding(topic.name, f"{situation}:{f.field}", "bad_example", f"{f.reason}: {f.text}", mend)
            for f in refused.faults
        )
        return
    if full["event_id"] != str(event_id(topic, full)):
        yield Finding(topic.name, f"{situation}:event_id", "bad_example", "id is not that of its identity", mend)
    for name in _wrong_codes(contract(topic), full):
        yield Finding(topic.name, f"{situation}:{name}", "bad_example", "code or code set is not allowed", mend)


def _wrong_codes(schema: Json, record: Json) -> Iterator[str]:
    specs = {f["name"]: f for f in schema["fields"]}
    for name, spec in specs.items():
        value = record.get(name)
        if "codeset" in spec and value and not codesets.known(spec["codeset"], value):
            yield name
        if "event_types" in spec and value not in spec["event_types"]:
            yield name
        if "codesets" in spec and value:
            stem = name.removesuffix("_set")
            codes = record.get("tags", []) if stem == "tag" else [record[f"{stem}_code"]]
            if value not in spec["codesets"] or not all(codesets.known(value, code) for code in codes):
                yield name


def _orphans() -> Iterator[Finding]:
    """Files that no topic owns."""
    names = {t.name for t in TOPICS}
    for path in sorted(AVRO.rglob("*")):
        if path.is_file() and path not in {t.contract for t in TOPICS}:
            yield Finding(
                path.name, "", "orphan", "no topic owns this contract", "declare the topic or delete it"
            )
    for base in (examples.HERE, contracts.GOLDEN):
        for path in sorted(base.glob("*/")):
            if path.name not in names and path.name != "__pycache__":
                yield Finding(
                    path.name, "", "orphan", f"no topic owns this folder of {base.name}", "delete it"
                )
