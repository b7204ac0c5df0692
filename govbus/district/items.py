"""The service items of the district: ten a department, and the policy's "2、5、6" items (DOMAIN §2, §4.1)."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import date

from govbus.district.model import HESHAN, LEADING_GROUP, REGIONS, Item, Row
from schemas import codesets
from schemas.topics import ITEM

POLICY = (  # department, name, rule, promise in working days (DOMAIN §4.1)
    ("HS-SCJGJ", "企业设立登记", "R2", 0.5),
    ("HS-ZRZYJ", "不动产一般登记", "R5-G", 5.0),
    ("HS-ZRZYJ", "不动产抵押登记", "R5-M", 5.0),
    ("HS-ZJJ", "城市基础设施线性工程审批", "R6-1", 78.0),
    ("HS-ZJJ", "非线性工程审批", "R6-2", 82.0),
    ("HS-ZJJ", "社会投资项目审批", "R6-3", 64.0),
    ("HS-ZJJ", "工业投资项目审批", "R6-4", 52.0),
    ("HS-ZJJ", "带方案出让项目审批", "R6-5", 40.0),
    ("HS-ZJJ", "其他工程建设项目审批", "R6-6", 100.0),
)
NAMES = ("许可证核发", "备案", "资格确认", "补贴申领", "年度审验", "变更登记", "注销登记", "证明开具")
TYPES = ("01", "05", "07", "10", "20")
PROMISES = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0)
FROM = date(2019, 1, 1)
SECOND_VERSION = date(2020, 7, 1)


def departments() -> list[str]:
    """Codes of the departments that handle cases."""
    return [code for code in codesets.departments() if code != LEADING_GROUP]


def build(rng: random.Random, per_department: int) -> list[Item]:
    """Every version of every item of every region; neighbours have fewer."""
    items: list[Item] = []
    for number, region in enumerate(REGIONS):
        count = per_department if region == HESHAN else max(2, per_department // 4)
        for department in departments():
            for serial in range(count):
                items += _ordinary(rng, region, department, number * 300 + serial)
        items += [_policy(region, number * 300 + 200 + i, *p) for i, p in enumerate(POLICY)]
    return items


def _code(department: str, kind: str, main: int) -> str:
    return f"{codesets.departments()[department].uscc}4" + f"43{kind}15{main:03d}000"


def _ordinary(rng: random.Random, region: str, department: str, main: int) -> list[Item]:
    on_the_spot = rng.random() < 0.15
    promise = 0.5 if on_the_spot else rng.choice(PROMISES)
    statutory = None if on_the_spot or rng.random() < 0.3 else promise * rng.choice((1.5, 2.0, 4.0))
    name = f"{codesets.departments()[department].name}{NAMES[main % len(NAMES)]}{main}"
    code = _code(department, rng.choice(TYPES), main)
    first = Item(code, 1, name, region, department, promise, statutory, FROM, on_the_spot)
    if on_the_spot or promise < 5 or rng.random() > 0.15:
        return [first]
    faster = Item(code, 2, name, region, department, promise - 2, statutory, SECOND_VERSION, False)
    return [first, faster]


def _policy(region: str, main: int, department: str, name: str, rule: str, promise: float) -> Item:
    statutory = None if promise < 1 else promise * 2
    return Item(_code(department, "01", main), 1, name, region, department, promise, statutory, FROM, False, rule)


def rows(items: Iterable[Item], received_at: int) -> Iterable[Row]:
    """The rows that publish the items, all at ``received_at``."""
    return [Row(ITEM, item.region, item.department, received_at, _record(item, received_at)) for item in items]


def _record(item: Item, received_at: int) -> dict[str, object]:
    return {
        "event_type": "item.published",
        "occurred_at": received_at - 30_000,
        "item_code": item.code,
        "item_version": item.version,
        "name": item.name,
        "catalog_code": item.code[19:31],
        "item_type_code": item.code[21:23],
        "body_level_code": "4",
        "kind_set": "gbt39046.case-kind",
        "kind_code": "1" if item.on_the_spot else "2",
        "promise_limit": item.promise,
        "promise_unit_code": "1",
        "statutory_limit": item.statutory,
        "statutory_unit_code": "1" if item.statutory else "",
        "limit_rule": item.rule,
        "depth_set": "govbus.depth",
        "depth_code": "4" if item.on_the_spot else "3",
        "effective_on": item.effective_on.isoformat(),
    }
