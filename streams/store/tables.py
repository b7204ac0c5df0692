"""The tables of the district's database. Truth, cursor and outbox share it, so one transaction moves all of them.

Times are epoch milliseconds UTC (bigint) unless a column ends in ``_on`` (date). ``digest`` is the first 16 bytes of
the SHA-256 of the framed Avro value, stored as uuid; reconciliation compares it at every place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, UUID

metadata = sa.MetaData()
BIG = sa.BigInteger
TEXT = sa.Text


def _event_columns(keyed: bool = True) -> list[sa.Column[object]]:
    """The columns every applied inbound event has, whatever its topic; fresh objects for each table.

    ``keyed``: ``event_id`` is the primary key; otherwise the table names its own, with ``event_id`` in it.
    """
    return [
        sa.Column("event_id", UUID(as_uuid=True), primary_key=keyed, nullable=False),
        sa.Column("event_type", TEXT, nullable=False),
        sa.Column("region", TEXT, nullable=False),
        sa.Column("department", TEXT, nullable=False),
        sa.Column("occurred_at", BIG, nullable=False),
        sa.Column("entered_at", BIG),
        sa.Column("received_at", BIG, nullable=False),
        sa.Column("digest", UUID(as_uuid=True), nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("offset", BIG, nullable=False),
    ]


# --- the way in and out: outbox (published) -------------------------------------------------------------------------

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("seq", BIG, sa.Identity(always=True), primary_key=True),
    sa.Column("event_id", UUID(as_uuid=True), nullable=False),
    sa.Column("topic", TEXT, nullable=False),
    sa.Column("key", TEXT, nullable=False),
    sa.Column("region", TEXT, nullable=False),
    sa.Column("department", TEXT, nullable=False),
    sa.Column("occurred_at", BIG, nullable=False),
    sa.Column("received_at", BIG, nullable=False),
    sa.Column("digest", UUID(as_uuid=True), nullable=False),
    sa.Column("content_digest", UUID(as_uuid=True), nullable=False),  # of the content without received_at
    sa.Column("value", sa.LargeBinary, nullable=False),
    sa.Column("headers", JSONB, nullable=False),
    sa.Column(
        "queued_at",
        BIG,
        nullable=False,
        server_default=sa.text("(extract(epoch from clock_timestamp()) * 1000)::bigint"),
    ),
    sa.Column("sent_partition", sa.Integer),
    sa.Column("sent_offset", BIG),
    sa.Column("sent_at", BIG),
    sa.UniqueConstraint("topic", "event_id", name="uq_outbox_event"),
    sa.Index("ix_outbox_unsent", "seq", postgresql_where=sa.text("sent_at IS NULL")),
    sa.Index("ix_outbox_unsent_key", "topic", "key", postgresql_where=sa.text("sent_at IS NULL")),
    sa.Index(  # the horizon
        "ix_outbox_unsent_received", "topic", "received_at", postgresql_where=sa.text("sent_at IS NULL")
    ),
)

# --- exactly once: cursors and dead letters -------------------------------------------------------------------------

cursor = sa.Table(
    "cursor",
    metadata,
    sa.Column("processor", TEXT, primary_key=True),
    sa.Column("topic", TEXT, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("next_offset", BIG, nullable=False, server_default="0"),
    sa.Column("watermark", BIG, nullable=False, server_default="0"),  # highest received_at applied
    sa.Column("horizon", BIG, nullable=False, server_default="0"),  # up to it the partition is known: groups
)

dead_letter = sa.Table(
    "dead_letter",
    metadata,
    sa.Column("dead_id", UUID(as_uuid=True), primary_key=True),  # of (topic, claimed event id or offset, digest),
    # or of such an id and the place where the record was refused again after it had been redriven
    sa.Column("origin", TEXT, nullable=False),  # INTAKE or STREAM
    sa.Column("topic", TEXT, nullable=False),
    sa.Column("partition", sa.Integer),
    sa.Column("offset", BIG),
    sa.Column("key", sa.LargeBinary),
    sa.Column("region", TEXT, nullable=False),
    sa.Column("department", TEXT, nullable=False),
    sa.Column("event_id", UUID(as_uuid=True)),
    sa.Column("occurred_at", BIG, nullable=False),
    sa.Column("digest", UUID(as_uuid=True), nullable=False),
    sa.Column("reason", TEXT, nullable=False),
    sa.Column("field", TEXT, nullable=False),
    sa.Column("text", TEXT, nullable=False),
    sa.Column("original", sa.LargeBinary, nullable=False),
    sa.Column("headers", JSONB, nullable=False),
    sa.Column("redriven_at", BIG),  # when it was closed: redriven, published rightly since, or by hand
    sa.Column("closed_why", TEXT, nullable=False, server_default=""),  # what who closed it by hand said
    sa.Index("ix_dead_letter_place", "topic", "partition", "offset"),
    sa.Index("ix_dead_letter_open", "event_id", postgresql_where=sa.text("redriven_at IS NULL")),
)

# --- reference data -------------------------------------------------------------------------------------------------

reference_epoch = sa.Table(  # one row a kind; locked FOR SHARE by readers, FOR UPDATE by whoever changes references
    "reference_epoch",
    metadata,
    sa.Column("kind", TEXT, primary_key=True),
    sa.Column("epoch", BIG, nullable=False, server_default="0"),
)

item_event = sa.Table("item_event", metadata, *_event_columns(), sa.Column("item_code", TEXT, nullable=False),
                      sa.Column("item_version", sa.Integer, nullable=False),
                      sa.Column("body", JSONB, nullable=False),
                      sa.Index("ix_item_event_code", "item_code"))  # fmt: skip

calendar_event = sa.Table("calendar_event", metadata, *_event_columns(), sa.Column("year", sa.Integer, nullable=False),
                          sa.Column("revision", sa.Integer, nullable=False),
                          sa.Column("body", JSONB, nullable=False))  # fmt: skip

# --- cases and cards ------------------------------------------------------------------------------------------------

case_event = sa.Table("case_event", metadata, *_event_columns(), sa.Column("case_no", TEXT, nullable=False))

case_state = sa.Table(
    "case_state",
    metadata,
    sa.Column("case_no", TEXT, primary_key=True),
    sa.Column("partition", sa.Integer, nullable=False),
    sa.Column("region", TEXT, nullable=False),
    sa.Column("department", TEXT, nullable=False),
    sa.Column("item_code", TEXT, nullable=False),
    sa.Column("status", TEXT, nullable=False),
    sa.Column("accepted_at", BIG),
    sa.Column("due_at", BIG),
    sa.Column("yellow_at", BIG),
    sa.Column("statutory_due_at", BIG),
    sa.Column("stopped_at", BIG),
    sa.Column("on_time", sa.Boolean),
    sa.Column("provisional", sa.Boolean, nullable=False),
    sa.Column("state", JSONB, nullable=False),  # what no column has, see streams.rules.state (dump_derived)
    sa.Column("next_check_at", BIG),  # when a timer must look again; NULL: never; 0 or less: references changed
    # all days of the calendar that it depends on lie between these; NULL: no end is known
    sa.Column("counted_from", BIG, nullable=False, server_default="0"),
    sa.Column("counted_to", BIG),
    sa.Column("known_at", BIG, nullable=False, server_default="0"),  # its newest knowledge
    sa.Index(
        "ix_case_state_next_check",
        "partition",
        "next_check_at",
        postgresql_where=sa.text("next_check_at IS NOT NULL"),
    ),
    sa.Index("ix_case_state_item", "item_code"),
)

case_history = sa.Table(  # beside case_state: a revised calendar rewrites all of that, and nothing of this
    "case_history",
    metadata,
    sa.Column("case_no", TEXT, primary_key=True),
    sa.Column("folded", JSONB, nullable=False),  # its events and alerts, see streams.rules.state (dump)
)

case_group = sa.Table(  # which cases share a clock or are handled as one
    "case_group",
    metadata,
    sa.Column("group_key", TEXT, primary_key=True),
    sa.Column("case_no", TEXT, primary_key=True),
    sa.Column("partition", sa.Integer, nullable=False),
    sa.Column("stale", sa.Boolean, nullable=False),  # the case changed since its group was derived
    sa.Index("ix_case_group_stale", "group_key", postgresql_where=sa.text("stale")),
    sa.Index("ix_case_group_partition", "partition"),
)

group_state = sa.Table(
    "group_state",
    metadata,
    sa.Column("group_key", TEXT, primary_key=True),  # see streams.rules.groups
    sa.Column("region", TEXT, nullable=False),
    sa.Column("department", TEXT, nullable=False),
    sa.Column("stage", TEXT, nullable=False),
    sa.Column("limit_rule", TEXT, nullable=False),
    sa.Column("accepted_at", BIG),
    sa.Column("due_at", BIG),
    sa.Column("yellow_at", BIG),
    sa.Column("ended_at", BIG),
    sa.Column("on_time", sa.Boolean),
    sa.Column("provisional", sa.Boolean, nullable=False),
    sa.Column("used_minutes", BIG),
    sa.Column("calendar_version", TEXT, nullable=False),
    sa.Column("parts", JSONB, nullable=False),
    sa.Column("next_check_at", BIG),
    sa.Index("ix_group_state_next_check", "next_check_at", postgresql_where=sa.text("next_check_at IS NOT NULL")),
)

card = sa.Table(
    "card",
    metadata,
    sa.Column("alert_id", UUID(as_uuid=True), primary_key=True),
    sa.Column("case_no", TEXT, nullable=False),
    sa.Column("region", TEXT, nullable=False),
    sa.Column("department", TEXT, nullable=False),
    sa.Column("item_code", TEXT, nullable=False),
    sa.Column("kind", TEXT, nullable=False),
    sa.Column("colour", TEXT, nullable=False),
    sa.Column("rule_id", TEXT, nullable=False),
    sa.Column("rule_version", TEXT, nullable=False),
    sa.Column("calendar_version", TEXT, nullable=False),
    sa.Column("due_at", BIG),
    sa.Column("issued_at", BIG, nullable=False),
    sa.Column("revoked_at", BIG),
    sa.Column("revoked_reason", TEXT, nullable=False, server_default=""),
    sa.Column("evidence", JSONB, nullable=False),
    sa.Index("ix_card_case", "case_no"),
)

alert_said = sa.Table(  # what was last said of an alert; depends on when one looked, so it is no part of the state
    "alert_said",
    metadata,
    sa.Column("alert_id", UUID(as_uuid=True), primary_key=True),
    sa.Column("case_no", TEXT, nullable=False),
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("action", TEXT, nullable=False),
    sa.Column("content", TEXT, nullable=False),
    sa.Column("alert", JSONB, nullable=False),
    sa.Index("ix_alert_said_case", "case_no"),
)

# --- ratings --------------------------------------------------------------------------------------------------------

rating_event = sa.Table(
    "rating_event",
    metadata,
    *_event_columns(keyed=False),
    sa.Column("case_no", TEXT, nullable=False),
    sa.Column("service_no", sa.Integer, nullable=False),
    sa.Column("assess_no", sa.Integer, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("operation", TEXT, nullable=False),
    sa.Column("item_code", TEXT, nullable=False),
    sa.Column("channel", TEXT, nullable=False),  # canonical code of govbus.channel
    sa.Column("score", sa.SmallInteger, nullable=False),  # 1..5, 5 best
    sa.Column("is_default", sa.Boolean, nullable=False),
    # the id fixes the case, so ids are unique; and one index finds a case's events, where ids alone would scatter
    sa.PrimaryKeyConstraint("case_no", "event_id"),
)



def _cell_columns() -> tuple[sa.Column[Any], ...]:
    """Where a rating is counted, and the counts."""
    return (
        sa.Column("region", TEXT, nullable=False),
        sa.Column("department", TEXT, nullable=False),
        sa.Column("item_code", TEXT, nullable=False),
        sa.Column("channel", TEXT, nullable=False),
        sa.Column("score", sa.SmallInteger, nullable=False),
        sa.Column("rated_on", sa.Date, nullable=False),  # day in Asia/Shanghai
        sa.Column("n", BIG, nullable=False),  # effective ratings
        sa.Column("defaults", BIG, nullable=False),  # default ratings among them
        sa.Column("events", BIG, nullable=False),  # events that could have moved the cell so far: the revision
        sa.Column("received_at", BIG, nullable=False),  # of the latest of these events
    )


rating_cell = sa.Table("rating_cell", sa.MetaData(), *_cell_columns())
"""Department x item x channel x level x day: a view, exact at any moment, over what is merged and what is not yet."""

rating_cell_merged = sa.Table(
    "rating_cell_merged",
    metadata,
    *_cell_columns(),
    # the day first: cheapest to compare, parts best, and a day's writes lie together; the region last: mostly one
    sa.PrimaryKeyConstraint("rated_on", "department", "item_code", "channel", "score", "region"),
)

rating_cell_change = sa.Table(  # what must be added: appended with the events, for keyed writes are what costs
    "rating_cell_change", metadata, *_cell_columns()
)

rollup_dirty = sa.Table(  # departments' days whose rollups must be said again; not state. Only ever appended to:
    # a mark that cannot be seen yet is left for the next time, so none is lost
    "rollup_dirty",
    metadata,
    sa.Column("region", TEXT, nullable=False),
    sa.Column("department", TEXT, nullable=False),
    sa.Column("rated_on", sa.Date, nullable=False),
    sa.Index("ix_rollup_dirty_day", "region", "department", "rated_on"),
)

rollup_emitted = sa.Table(  # what was last said on rating.rollup.v1; not state: replays may say it in fewer words
    "rollup_emitted",
    metadata,
    sa.Column("scope", TEXT, primary_key=True),
    sa.Column("revision", BIG, nullable=False),
)

rating_claim = sa.Table(  # ratings that say their case took too long, and amendments; see streams.rules.claims
    "rating_claim",
    metadata,
    sa.Column("event_id", UUID(as_uuid=True), primary_key=True),
    sa.Column("case_no", TEXT, nullable=False),
    sa.Column("service_no", sa.Integer, nullable=False),
    sa.Column("assess_no", sa.Integer, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("too_slow", sa.Boolean, nullable=False),
    sa.Column("received_at", BIG, nullable=False),
    sa.Index("ix_rating_claim_case", "case_no"),
)

rating_claim_news = sa.Table(  # cases whose judge has not been told of them yet; not state
    "rating_claim_news", metadata, sa.Column("case_no", TEXT, nullable=False)
)

rating_out = sa.Table(  # ratings that do not count, or did not once; see streams.store.standing. Not state: changes
    # that nobody saw are not in its number. region and department "": the case itself (0, 0); else one assessment of it
    "rating_out",
    metadata,
    sa.Column("case_no", TEXT, primary_key=True),
    sa.Column("region", TEXT, primary_key=True, server_default=""),
    sa.Column("department", TEXT, primary_key=True),
    sa.Column("service_no", sa.Integer, primary_key=True),
    sa.Column("assess_no", sa.Integer, primary_key=True),
    sa.Column("out", sa.Boolean, nullable=False),  # of the case: void
    sa.Column("changes", sa.Integer, nullable=False),  # how often it was changed: the number of the word said of it
    sa.Column("known_at", BIG, nullable=False),  # of what changed it last
)

rating_out_news = sa.Table(  # cases of which the tally must look whether their ratings count; not state
    "rating_out_news", metadata, sa.Column("case_no", TEXT, nullable=False)
)

# --- licences, directory, handling, counted topics ------------------------------------------------------------------

licence_event = sa.Table("licence_event", metadata, *_event_columns(), sa.Column("family", TEXT, nullable=False),
                         sa.Column("body", JSONB, nullable=False),
                         sa.Index("ix_licence_event_family", "family"))  # fmt: skip

licence = sa.Table(
    "licence",
    metadata,
    sa.Column("family", TEXT, primary_key=True),
    sa.Column("licence_version", sa.Integer, primary_key=True),
    sa.Column("region", TEXT, nullable=False),
    sa.Column("department", TEXT, nullable=False),
    sa.Column("licence_id", TEXT, nullable=False),
    sa.Column("type_code", TEXT, nullable=False),
    sa.Column("type_name", TEXT, nullable=False),
    sa.Column("licence_no", TEXT, nullable=False),
    sa.Column("holder_id", TEXT, nullable=False),  # personal
    sa.Column("holder_name", TEXT, nullable=False),  # personal
    sa.Column("status", TEXT, nullable=False),  # govbus.licence-standing; EXPIRED is derived by date when read
    sa.Column("valid_from_on", sa.Date),
    sa.Column("valid_to_on", sa.Date),  # NULL: long term
    sa.Column("origin", TEXT, nullable=False),
    sa.Column("disputed", sa.Boolean, nullable=False),
    sa.Column("effective_at", BIG, nullable=False),
    sa.Index("ix_licence_holder", "holder_id"),
)

resource_event = sa.Table("resource_event", metadata, *_event_columns(),
                          sa.Column("resource_code", TEXT, nullable=False), sa.Column("body", JSONB, nullable=False),
                          sa.Index("ix_resource_event_code", "resource_code"))  # fmt: skip

directory_entry = sa.Table(
    "directory_entry",
    metadata,
    sa.Column("resource_code", TEXT, primary_key=True),
    sa.Column("region", TEXT, nullable=False),
    sa.Column("department", TEXT, nullable=False),
    sa.Column("entry_version", BIG, nullable=False),  # events folded in so far
    sa.Column("body", JSONB, nullable=False),
    sa.Column("last_update_at", BIG),
    sa.Column("expected_next_at", BIG),
    sa.Column("broken_at", BIG),  # two cycles missed
    sa.Column("disputed", sa.Boolean, nullable=False),
    sa.Column("withdrawn", sa.Boolean, nullable=False),
)

handling_event = sa.Table("handling_event", metadata, *_event_columns(), sa.Column("case_no", TEXT, nullable=False),
                          sa.Column("alert_id", TEXT, nullable=False),
                          sa.Column("body", JSONB, nullable=False),
                          sa.Index("ix_handling_event_alert", "alert_id"),
                          sa.Index("ix_handling_event_case", "case_no"))  # fmt: skip

behaviour_event = sa.Table(
    "behaviour_event",
    metadata,
    *_event_columns(),
    sa.Column("behaviour_no", TEXT, nullable=False),
    sa.Column("body", JSONB, nullable=False),
)

ticket_event = sa.Table(
    "ticket_event",
    metadata,
    *_event_columns(),
    sa.Column("ticket_no", TEXT, nullable=False),
    sa.Column("body", JSONB, nullable=False),
)

# --- acting: consumers' effects and the province's receipts ---------------------------------------------------------

alert_inbox = sa.Table(  # what the supervisor's desk has seen, one row an alert
    "alert_inbox",
    metadata,
    sa.Column("alert_id", UUID(as_uuid=True), primary_key=True),
    sa.Column("alert_seq", sa.Integer, nullable=False),
    sa.Column("action", TEXT, nullable=False),
    sa.Column("region", TEXT, nullable=False),
    sa.Column("department", TEXT, nullable=False),
    sa.Column("case_no", TEXT, nullable=False),
    sa.Column("kind", TEXT, nullable=False),
    sa.Column("colour", TEXT, nullable=False),
    sa.Column("summary", TEXT, nullable=False),
    sa.Column("issued_at", BIG, nullable=False),
    sa.Column("seen_at", BIG, nullable=False),
    sa.Column("item_code", TEXT, nullable=False, server_default=""),
    sa.Column("rule_id", TEXT, nullable=False, server_default=""),
    sa.Column("due_at", BIG),
    sa.Column("known_at", BIG, nullable=False, server_default="0"),  # knowledge time of the last word
    sa.Column("reason", TEXT, nullable=False, server_default=""),  # govbus.revocation; "": it stands
    sa.Column("evidence", JSONB, nullable=False, server_default="[]"),
    sa.Column("named", sa.Boolean),  # of a bad rating: whether it says by whom; NULL: not known
    sa.Column("given_at", BIG),  # of a bad rating: when it was given; NULL: not known
    sa.Column("former", JSONB, nullable=False, server_default="[]"),  # [until when, department] of who answered before
    sa.Index("ix_alert_inbox_case", "case_no"),
)

desk_check = sa.Table(  # when alerts of a case, or red cards of a department's month, must be looked at again; no state
    "desk_check",
    metadata,
    sa.Column("scope", TEXT, primary_key=True),  # CASE or DEPARTMENT
    sa.Column("key", TEXT, primary_key=True),  # case_no, or "HS-ZJJ/2020-09"
    sa.Column("partition", sa.Integer, nullable=False),  # of oversight.handling.v1, by the key
    sa.Column("next_check_at", BIG),  # NULL: never; 0: something new is known
    sa.Column("said", JSONB, nullable=False, server_default="{}"),  # alert id -> what was last said of it
    sa.Index(
        "ix_desk_check_next", "partition", "next_check_at", postgresql_where=sa.text("next_check_at IS NOT NULL")
    ),
)

alert_life = sa.Table(  # how far each alert's handling has come: derived from alert_inbox, handling_event, calendars
    "alert_life",
    metadata,
    sa.Column("case_no", TEXT, primary_key=True),  # of the acts, where nobody issued the alert
    sa.Column("alert_id", TEXT, primary_key=True),
    sa.Column("region", TEXT, nullable=False),
    sa.Column("department", TEXT, nullable=False),
    sa.Column("item_code", TEXT, nullable=False),
    sa.Column("kind", TEXT, nullable=False),
    sa.Column("colour", TEXT, nullable=False),
    sa.Column("rule_id", TEXT, nullable=False),
    sa.Column("stage", TEXT, nullable=False),  # govbus.handling-stage
    sa.Column("issued_at", BIG),
    sa.Column("out_at", BIG),  # when it became known that it left the statistics
    sa.Column("out_reason", TEXT, nullable=False),
    sa.Column("signed_at", BIG),
    sa.Column("contacted_at", BIG),
    sa.Column("rectified_at", BIG),
    sa.Column("called_back_at", BIG),
    sa.Column("closed_at", BIG),
    sa.Column("verified", TEXT, nullable=False),  # govbus.verify-result
    sa.Column("level", TEXT, nullable=False),  # govbus.supervision-level
    sa.Column("closing", TEXT, nullable=False),  # govbus.closing
    # timer (govbus.timer) -> due minute of its first run (epoch ms), if no calendar that it counts is unpublished
    sa.Column("dues", JSONB, nullable=False),
    sa.Column("next_timer", TEXT, nullable=False),  # the running timer that ends first
    sa.Column("next_due_at", BIG),
    sa.Column("steps", JSONB, nullable=False),  # [[event id, act, occurred_at, stage after it, fault], ...]
    sa.Column("named", sa.Boolean),  # as in alert_inbox
    sa.Index("ix_alert_life_alert", "alert_id"),
    sa.Index("ix_alert_life_department", "department", "kind", "issued_at"),
)

delivery = sa.Table(  # alerts on their way to subscribers, one row a channel: the effect queue of consumers/alerts
    "delivery",
    metadata,
    sa.Column("channel", TEXT, primary_key=True),  # the webhook's name, or "digest"
    sa.Column("event_id", UUID(as_uuid=True), primary_key=True),  # of the statement on oversight.alert.v1
    sa.Column("seq", BIG, sa.Identity(always=True), nullable=False),
    sa.Column("case_no", TEXT, nullable=False),
    sa.Column("body", JSONB, nullable=False),
    sa.Column("queued_at", BIG, nullable=False),
    sa.Column("not_before", BIG, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("last_error", TEXT, nullable=False, server_default=""),
    sa.Column("done_at", BIG),
    sa.Column("dead_at", BIG),  # given up after too many attempts; can be redriven
    sa.Index(
        "ix_delivery_waiting",
        "channel",
        "not_before",
        postgresql_where=sa.text("done_at IS NULL AND dead_at IS NULL"),
    ),
    sa.Index("ix_delivery_alert", sa.text("(body->>'alert_id')")),
)

ruling = sa.Table(  # what was said of appeals' decisions, for who hears of the appealed alert later
    "ruling",
    metadata,
    sa.Column("event_id", UUID(as_uuid=True), primary_key=True),  # of the statement on oversight.alert.v1
    sa.Column("about", TEXT, nullable=False, index=True),  # id of the alert that was appealed against
    sa.Column("body", JSONB, nullable=False),
)

directory_view = sa.Table(  # built from directory.entry.v1 alone
    "directory_view",
    metadata,
    sa.Column("resource_code", TEXT, primary_key=True),
    sa.Column("entry_version", BIG, nullable=False),
    sa.Column("department", TEXT, nullable=False),
    sa.Column("title", TEXT, nullable=False),
    sa.Column("summary", TEXT, nullable=False),
    sa.Column("share_type", TEXT, nullable=False),
    sa.Column("body", JSONB, nullable=False),
)

push_queue = sa.Table(  # records of rating.upload.v1 and rating.rollup.v1 on their way to the province
    "push_queue",
    metadata,
    sa.Column("event_id", UUID(as_uuid=True), primary_key=True),
    sa.Column("seq", BIG, sa.Identity(always=True), nullable=False),
    sa.Column("topic", TEXT, nullable=False),
    sa.Column("region", TEXT, nullable=False),
    sa.Column("department", TEXT, nullable=False),
    sa.Column("digest", UUID(as_uuid=True), nullable=False),
    sa.Column("body", JSONB, nullable=False),
    sa.Column("batch_id", UUID(as_uuid=True)),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("refused_reason", TEXT),
    sa.Index("ix_push_queue_seq", "seq"),
    sa.Index("ix_push_queue_batch", "batch_id"),
)

receipt = sa.Table(  # one row a batch: the province's signed word
    "receipt",
    metadata,
    sa.Column("batch_id", UUID(as_uuid=True), primary_key=True),
    sa.Column("received_at", BIG, nullable=False),
    sa.Column("body", JSONB, nullable=False),  # {"batch_id", "records": [{"event_id", "digest", "outcome"}], …}
    sa.Column("signature", TEXT, nullable=False),
)

STATE_TABLES: tuple[sa.Table, ...] = (
    item_event, calendar_event, case_event, case_state, case_history, case_group, group_state, card, rating_event,
    rating_claim, rating_cell, licence_event, licence, resource_event, directory_entry, handling_event,
    behaviour_event, ticket_event, dead_letter,
)  # fmt: skip
"""What a full replay must rebuild identically (columns ``partition`` and ``offset`` aside)."""

VIEWS: Mapping[str, tuple[sa.Table, ...]] = {"rating_cell": (rating_cell_merged, rating_cell_change)}
"""State that is read as a view: the tables behind it."""


def stored(tables: Iterable[sa.Table]) -> list[sa.Table]:
    """``tables`` with the tables behind the views instead of these."""
    return [real for t in tables for real in VIEWS.get(t.name, (t,))]
