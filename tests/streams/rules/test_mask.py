"""Expectations typed by hand from DOMAIN §9 and narrative 51."""

from __future__ import annotations

import itertools
import re
import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codesets
from streams.rules import mask
from streams.rules.data import data

SENTENCES = tomllib.loads(Path(__file__).with_name("staff.toml").read_text("utf-8"))
TITLES = (
    "先生", "女士", "小姐", "同志", "师傅", "老师", "主任", "科长", "股长", "局长", "所长", "经理", "警官", "书记",
    "镇长", "乡长", "医生",
)  # fmt: skip


@pytest.mark.parametrize(
    ("whole", "masked"),
    [
        ("张三", "张*"),
        ("王小明", "王*明"),
        ("欧阳小明", "欧**明"),
        ("阿依·古丽", "阿**"),
        ("John Smith", "J**"),
        ("张\u3000三", "张*"),
        ("李", "*"),
        ("", ""),
    ],
)
def test_a_name_keeps_only_what_the_rule_leaves(whole: str, masked: str) -> None:
    assert mask.name(whole) == masked


@pytest.mark.parametrize(
    ("whole", "code", "shown"),
    [
        ("赫山测试有限公司", "91430903MADEMA0194", ("赫山测试有限公司", "91430903MADEMA0194")),
        ("赫山测试有限公司", "91430903712194856X", ("赫山测试有限公司", "91430903712194856X")),
        ("赫山种植合作社", "93430903MADEMA035K", ("赫山种植合作社", "93430903MADEMA035K")),
        ("区司法局", "11430903MBDEM0074W", ("区司法局", "11430903MBDEM0074W")),
        ("赫山区王小明小吃店", "92430903MADEMA027U", ("赫*******店", "924309**********7U")),
        ("王小明", "430903190001010015", ("王*明", "430903**********15")),
        ("王小明", "11010519491231002X", ("王*明", "110105**********2X")),
        ("王小明", "513021190013010011", ("王*明", "513021**********11")),
        ("王小明", "911124198108030024", ("王*明", "911124**********24")),
        ("赫山测试有限公司", "430903000001234", ("赫******司", "***************")),
        ("赫山测试有限公司", "", ("赫******司", "")),
        ("王小明、李伟", "91430903MADEMA0194^430903190001010015", ("王**", "*" * 37)),
    ],
)
def test_a_holder_is_shown_only_where_its_code_is_that_of_a_body(whole: str, code: str, shown: tuple[str, str]) -> None:
    assert mask.holder(whole, code) == shown


def test_a_citizen_id_keeps_its_ends() -> None:
    assert mask.citizen_id("430903190001010015") == "430903**********15"


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
        ("打138.0013.8000找他", "打【手机号】找他"),
        ("138　0013　8000", "【手机号】"),
        ("138\u00a00013\u00a08000", "【手机号】"),
        ("138  0013  8000", "【手机号】"),
        ("138——0013——8000", "【手机号】"),
        ("138–0013–8000", "【手机号】"),
        ("一三八 零零一三 八零零零", "【手机号】"),
        ("打(0737)1234567没人接", "打【电话】没人接"),
        ("打（０７３７）１２３４　５６７８", "打【电话】"),
        ("身份证430903　19000101　0015", "身份证【证件号】"),
        ("卡号6222.0200.0000.0000.001", "卡号【银行卡号】"),
        ("停了湘H　12345的车", "停了【车牌号】的车"),
        ("138 0013 8000\n430903 19000101 0015", "【手机号】\n【证件号】"),
        ("6222-0200-0000-0000-001　13800138000　3次", "【银行卡号】　【手机号】　3次"),
        ("1 3 8 0 0 1 3 8 0 0 0", "【手机号】"),
        ("我住康富南路 12号3栋", "【地址】"),
        ("我住康富南路12 号 3栋 501室，", "【地址】，"),
        ("窗口易主任不在", "窗口【姓名】主任不在"),
        ("找文局长", "找【姓名】局长"),
        ("欧警官很耐心", "【姓名】警官很耐心"),
        ("感谢肖文静老师", "感谢【姓名】老师"),
        ("感谢谢主任", "感谢【姓名】主任"),
        ("我的名字是王小明", "我的名字是【姓名】"),
        ("名字叫欧阳小明", "名字叫【姓名】"),
        ("我叫王小明", "我叫【姓名】"),
        ("我叫王小明等了两小时", "我叫【姓名】等了两小时"),
        ("联系人： 王小明13800138000", "联系人： 【姓名】【手机号】"),
        ("我是易小明 请回电", "我是【姓名】 请回电"),
        ("我住阳光小区A栋1单元502室", "【地址】"),
        ("家在桃花仑小区5-2-301，", "【地址】，"),
        ("金山路一百二十号门口", "【地址】门口"),
        ("赫山区康富南路1-3号", "【地址】"),
        ("幸福家园3栋2单元501室", "【地址】"),
        ("家住御景华府12栋302室", "【地址】"),
        ("金银山小区A座1203室", "【地址】"),
        ("龙洲南路金城国际1栋1203，", "【地址】，"),
        ("等了2座1000人", "等了2座1000人"),
        ("我住益阳大道西388号", "【地址】"),
        ("康富北路东侧12号", "【地址】"),
        ("八字哨镇李家湾12号", "【地址】"),
        ("八字哨镇便民中心3号窗口", "八字哨镇便民中心3号窗口"),
        ("住梓山湖公馆8-1-1702", "【地址】"),
        ("停了湘h12345的车", "停了【车牌号】的车"),
        ("停了湘 H12345的车", "停了【车牌号】的车"),
        ("发到张三@qq.com", "【邮箱】"),
        ("邮箱是zhang@qq.com", "邮箱是【邮箱】"),
        ("打008613800138000", "打【手机号】"),
        ("打138/0013/8000或138,0013,8000或138_0013_8000", "打【手机号】或【手机号】或【手机号】"),
        ("代码91430903madema0194的店", "代码【证件号】的店"),
        ("办事员张伟", "办事员【姓名】"),
        ("工作人员李娜态度差", "工作人员【姓名】态度差"),
        ("窗口人员：王小明不在", "窗口人员：【姓名】不在"),
        ("身份证ID430903190001010015没用", "身份证ID【证件号】没用"),
        ("sfz430903190001010015", "sfz【证件号】"),
        ("430903190001010015tel13800138000", "【证件号】tel【手机号】"),
        ("ID43090319000101004xTEL", "ID【证件号】TEL"),
        ("ID:430903 19000101 0015a", "ID:【证件号】a"),
        ("ICBC6222020000000000001转账", "ICBC【银行卡号】转账"),
        ("卡6222 0200 0000 0000 001ICBC", "卡【银行卡号】ICBC"),
        ("CCB4367420000000000000BJ", "CCB【银行卡号】BJ"),
        ("QQ号12345，QQ：123456789", "QQ号【账号】，QQ：【账号】"),
        ("加我微信（wang_88）或vx ： wang-1990", "加我微信（【账号】）或vx ： 【账号】"),
        ("微信号是 wxid12ab，微信13800138000", "微信号是 【账号】，微信【手机号】"),
        ("ＶＸ：ｗａｎｇ８８", "VX：【账号】"),
        ("QQ12345@qq.com", "【邮箱】"),
        ("致电88123456没人接", "致电【电话】没人接"),
        ("电话号码是：8812345，座机8812 3456", "电话号码是：【电话】，座机【电话】"),
        ("拨打了8812-3456三次", "拨打了【电话】三次"),
    ],
)
def test_free_text_loses_persons_and_keeps_sense(text: str, published: str) -> None:
    assert mask.free_text(text) == published


def test_a_person_is_masked_whatever_words_the_surname_spells_with_what_stands_around_it() -> None:
    surnames = "".join(data("mask")["names"]["single"].split())
    for before, surname, rest, title in itertools.product(["找", "对"], surnames, ["", "小明"], TITLES):
        assert mask.free_text(f"{before}{surname}{rest}{title}") == f"{before}【姓名】{title}"


@pytest.mark.parametrize(
    "text",
    [
        "办理很快，非常满意",
        "等了30分钟，跑了2次，2020年9月21日",
        "我叫了三次，叫号很慢",
        "文件易懂，很方便，很高兴，时间短",
        "等了两个小时主任才来，当时老师不在",
        "办理时主任不在，原主任答应过，连科长都不知道",
        "应主任要求补了材料，和局长说过",
        "谢谢老师，感谢师傅，辛苦老师了",
        "公司经理、值班经理和项目经理都来了",
        "公安局长、纪委书记、司法所长、林业局长",
        "会计女士、前台小姐、保安先生、司机师傅",
        "分管科长、责任科长、相关主任、各位老师",
        "公积金主任、卫生局长、安全科长、单位同志",
        "我是单位的，我是高中的，我是路过的，我是安化人",
        "我叫单位开了证明，我叫司机送来",
        "姓名时常写错，姓名和单位都对",
        "到三里桥社区 3号窗口排队，9号来的",
        "2020-09-14 2020-09-21，2020.09.14-2020.09.21",
        "编号001 2020-09-21，3.5分，10.5元，9.30-11.30",
        "服务很好——材料少、流程简单　点赞",
        "工作人员常常不在，工作人员解释很耐心，办事员高兴地办了，经办人马上来了",
        "小区2020-09-14通知的，某村3-5人去过，社区2-3个窗口",
        "关注微信公众号heshan2020，微信小程序2020版，微信12345平台",
        "微信2020-09-14 约的，QQ 10-15分钟才回，微信没有人回",
        "电话打了20分钟，拨打12345热线，致电4001234567，电话2020-09-14打的，电话3次",
        "事项11430903MBDEM0138T4000715002000，办件11430903MBDEM0138T4000715002000202009250001",
        "主项400071500200001A，批次20200914000000000001号",
    ],
)
def test_ordinary_words_stay_as_they_are_written(text: str) -> None:
    assert mask.free_text(text) == text


@pytest.mark.parametrize(("text", "published"), SENTENCES["named"].items())
def test_staff_named_in_a_rating_are_published_without_their_names(text: str, published: str) -> None:
    assert mask.free_text(text) == published


@pytest.mark.parametrize("text", SENTENCES["plain"]["kept"])
def test_what_is_said_of_a_window_or_its_staff_without_a_name_stays_readable(text: str) -> None:
    assert mask.free_text(text) == text


def test_a_name_is_sought_over_a_bounded_number_of_characters() -> None:
    """No pattern of names repeats without end, so none can go back over a long text again and again."""
    rule = data("mask")
    sought = [token["pattern"] for token in rule["token"] if token["name"] == "姓名"] + list(rule["part"].values())
    assert [p for p in sought if re.search(r"(?<!\\)[*+](?![^\[]*\])|\{\d+,\}", p)] == []


@pytest.mark.parametrize(
    "piece", ["窗口", "工作人员王", "窗口的小", "局的王丽丽", "【姓名】和王", "姓", "窗口（“是", "王王王王"]
)
def test_a_text_made_of_beginnings_of_names_is_done_with_at_once(piece: str) -> None:
    text = (piece * 2_000)[:2_000]
    assert len(mask.free_text(text)) <= 2 * len(text)


@pytest.mark.parametrize("codeset", [codesets.DEPARTMENTS, "gbt2260.region"])
def test_departments_and_places_are_no_persons(codeset: str) -> None:
    names = codesets.load(codeset).values.values()
    for name, title in itertools.product(names, ["主任", "书记", "局长", "科长", "镇长", "老师"]):
        assert mask.free_text(f"找{name}{title}") == f"找{name}{title}"


def test_a_name_known_from_the_record_never_survives() -> None:
    assert mask.free_text("赵钱孙等了很久，赵钱孙不满", ["赵钱孙"]) == "【姓名】等了很久，【姓名】不满"


@given(st.text(), st.integers(3, 9), st.integers(0, 999_999_999), st.text())
def test_no_mobile_number_survives_wherever_it_stands(before: str, second: int, rest: int, after: str) -> None:
    number = f"1{second}{rest:09d}"
    text = f"{before}，{number}，{after}"
    assert number not in mask.free_text(text) or number in (before + after)


MARK = "…（已截断）"


def test_what_is_too_long_to_publish_is_cut_between_two_characters_and_says_so() -> None:
    published = mask.free_text("好" * 20_000)
    assert published == "好" * ((32_768 - len(MARK.encode())) // 3) + MARK
    assert mask.free_text("好" * 10_922) == "好" * 10_922  # 32,766 bytes


def test_a_name_of_two_letters_does_not_make_a_text_six_times_as_long() -> None:
    published = mask.free_text("a" * 250_000, ["aa"])
    assert len(published.encode()) <= 32_768
    assert published.endswith("【姓名】" + MARK)


@pytest.mark.parametrize("before", range(12))
def test_no_token_is_cut_through(before: int) -> None:
    published = mask.free_text("，" + "好" * before + "李某，" * 10_000, ["李某"])
    assert set(published.replace("【姓名】", "").replace(MARK, "")) <= {"，", "好"}


@pytest.mark.parametrize("read", range(1, 18))
def test_of_a_number_that_goes_on_where_the_reading_ends_nothing_is_published(read: int) -> None:
    published = mask.free_text("." * (32_768 - read) + "430903190001010015" + "，" * 100)
    assert not any(c.isdigit() for c in published)
    assert published.endswith("." + MARK)


@pytest.mark.parametrize("text", ["a.b@c.dev_d@e.com", "a@b.com_c@d.com", "a@b.cn+c@d.com"])
def test_addresses_of_mail_that_touch_are_all_masked(text: str) -> None:
    assert mask.free_text(text) == "【邮箱】【邮箱】"


RUNS = (
    "a", "a.", "._", "a@", "a-", "@a.", "1", "0", "1 ", "9 ", "12 ", "+86", "0737-", "1380013",
    "430903", "六", "一", "一 ", "赵", "王小", "王 ", "李某", "路", "路1", "路1号", "路1-1", "小区1-1-", "号", "我叫",
    "工作人员", "科长", "微信", "微信a", "VX", "QQ1", "电话", "电话1", "62", "62 ", "ID4",
    "湘A", "A1", "(", "（0", "【", "[", " ", "\n", "·", "、", "１",
)  # fmt: skip


def cost(run: str, size: int) -> float:
    """Seconds of the processor, the best of three."""
    text, times = (run * size)[:size], []
    for _ in range(3):
        began = time.process_time()
        mask.free_text(text)
        times.append(time.process_time() - began)
    return max(min(times), 1e-4)


@pytest.mark.parametrize("run", RUNS)
def test_eight_times_the_text_takes_no_square_of_the_time_to_mask(run: str) -> None:
    mask.free_text("1")  # reads the patterns
    assert cost(run, 8_000) < 40 * cost(run, 1_000)  # 64 times if it were


@pytest.mark.parametrize("run", ["a", "1", "一", "(", " "])
def test_of_the_longest_text_no_more_is_read_than_is_published(run: str) -> None:
    assert cost(run, 250_000) < 40 * cost(run, 31_250)


@pytest.mark.parametrize(
    ("known", "text", "published"),
    [
        ("张\u3000三", "张三来办事", "【姓名】来办事"),
        ("张三", "我张 三要投诉", "我【姓名】要投诉"),
        ("ＢＯＢ", "我是ＢＯＢ，态度差", "我是【姓名】，态度差"),
        ("Alice Smith", "alice smith 投诉", "【姓名】 投诉"),
        ("阿依•古丽", "阿依·古丽投诉", "【姓名】投诉"),
        ("阿依．古丽", "阿依．古丽等了很久", "【姓名】等了很久"),
        ("三", "三个窗口", "三个窗口"),
        (" ", "等 了很久", "等 了很久"),
        ("张三", "我张\u200b三要投诉", "我【姓名】要投诉"),
    ],
)
def test_the_raters_own_name_is_found_however_it_is_set(known: str, text: str, published: str) -> None:
    assert mask.free_text(text, [known]) == published


@pytest.mark.parametrize("unseen", ["\u200b", "\u2060", "\ufeff", "\xad", "\u200d", "\u2066"])
def test_what_nobody_sees_between_the_digits_hides_no_number(unseen: str) -> None:
    assert mask.free_text(f"打138{unseen}0013{unseen}8000没人接") == "打【手机号】没人接"


def test_the_rules_say_their_version() -> None:
    assert mask.version() == "mask-2020.7"
