from bench import load
from schemas import codec, envelope
from schemas.topics import RATING
from streams.rules import tally


def test_the_load_is_what_a_publisher_would_send_and_the_rule_accepts_it() -> None:
    (section,) = load.ratings(50)
    for (key, value, headers), row in zip(
        load.messages(RATING, section), section.iter_rows(named=True), strict=True
    ):
        record = codec.decode(value, RATING)
        assert record["event_id"] == str(envelope.event_id(RATING, record))
        assert (key.decode(), headers) == (record["case_no"], envelope.headers(RATING, record))
        assert {k: record[k] for k in row} == row
    frame = section.with_row_index("row").with_columns(is_default=False)
    assert tally.judge(frame).refused.is_empty()


def test_the_same_seed_gives_the_same_load() -> None:
    once, again = (next(iter(load.ratings(20, seed=7))) for _ in range(2))
    assert once.equals(again)
    assert not once.equals(next(iter(load.ratings(20, seed=8))))
