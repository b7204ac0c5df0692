"""Expectations typed by hand from DOMAIN §9 and narrative 51."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.rules import mask


@pytest.mark.parametrize(
    ("whole", "masked"),
    [
        ("张三", "张*"),
        ("王小明", "王*明"),
        ("欧阳小明", "欧**明"),
        ("阿依·古丽", "阿**"),
        ("John Smith", "J**"),
        ("李", "*"),
        ("", ""),
    ],
)
def test_a_name_keeps_only_what_the_rule_leaves(whole: str, masked: str) -> None:
    assert mask.name(whole) == masked


def test_numbers_keep_their_ends() -> None:
    assert mask.citizen_id("430903190001010015") == "430903**********15"
    assert mask.mobile("13800000000") == "138****0000"
    assert mask.landline("0737-12345678") == "0737-1234****"


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("请打13800000000找王科长", "请打【手机号】找【姓名】科长"),
        ("电话１３８００００００００", "电话【手机号】"),
        ("电话138-0000-0000，急", "电话【手机号】，急"),
        ("身份证430903190001010015没用", "身份证【证件号】没用"),
        ("身份证43090319000101004x", "身份证【证件号】"),
        ("统一代码92430903MADEMA027U", "统一代码【证件号】"),
        ("老证430903000101001", "老证【证件号】"),
        ("卡号6222020000000000001转账", "卡号【银行卡号】转账"),
        ("写信到 a.b@example.com 吧", "写信到 【邮箱】 吧"),
        ("座机0737-12345678", "座机【电话】"),
        ("停了湘H12345的车", "停了【车牌号】的车"),
        ("我叫王小明，等了两小时", "我叫【姓名】，等了两小时"),
        ("一三八零零零零零零零零", "【手机号】"),
        ("窗口李师傅态度好", "窗口【姓名】师傅态度好"),
        ("办理很快，非常满意", "办理很快，非常满意"),
        ("等了30分钟，跑了2次，2020年9月21日", "等了30分钟，跑了2次，2020年9月21日"),
    ],
)
def test_free_text_loses_persons_and_keeps_sense(text: str, published: str) -> None:
    assert mask.free_text(text) == published


def test_a_name_known_from_the_record_never_survives() -> None:
    assert mask.free_text("赵钱孙等了很久，赵钱孙不满", ["赵钱孙"]) == "【姓名】等了很久，【姓名】不满"


@given(st.text(), st.integers(3, 9), st.integers(0, 999_999_999), st.text())
def test_no_mobile_number_survives_wherever_it_stands(before: str, second: int, rest: int, after: str) -> None:
    number = f"1{second}{rest:09d}"
    text = f"{before}，{number}，{after}"
    assert number not in mask.free_text(text) or number in (before + after)


def test_the_rules_say_their_version() -> None:
    assert mask.version() == "mask-2020.1"
