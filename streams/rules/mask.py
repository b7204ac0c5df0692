"""Takes personal data out of what is published (DOMAIN §9). Pure; never touches the source of truth.

Patterns, tokens and their version are data: ``mask.toml`` beside this file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from streams.rules.data import data

# Full-width digits, Latin letters, @ . - + hide a number from a pattern, and so does what nobody sees (Unicode's format
# characters, as web pages put them between digits): the ones are folded before scanning, the others are left out.
_UNSEEN = (0xAD, 0x61C, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF)
_FOLD: dict[int, int | None] = {
    **{c: c - 0xFEE0 for c in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))},
    **{ord(wide): ord(usual) for wide, usual in zip("＠．－＋", "@.-+", strict=True)},
    **dict.fromkeys(_UNSEEN),
}
_GAP = r"[\s.·•‧・]{0,3}"
"""What may stand between two characters of a name."""
_BEGUN = re.compile("【[^】]{0,4}$")
"""A token without its end."""
Replacement = str | Callable[[re.Match[str]], str]
"""A token, or what makes one of a hit of which something stays."""


def version() -> str:
    """Version of the masking rules, to be kept with what was masked."""
    return str(data("mask")["version"])


def name(text: str) -> str:
    """A name: 张三 → 张*, 王小明 → 王*明, 欧阳小明 → 欧**明, 阿依·古丽 → 阿**. Empty stays empty. A name of two that is
    set apart to the width of three (张　三) is a name of two.
    """
    close = "".join(text.split())
    text = close if len(close) == 2 else text.strip()
    if len(text) < 2:
        return "*" if text else ""
    if not _is_han(text):
        return f"{text[0]}**"
    if len(text) == 2:
        return f"{text[0]}*"
    return text[0] + "*" * (len(text) - 2) + text[-1]


def holder(text: str, code: str) -> tuple[str, str]:
    """Name and identity code of a licence's holder: those of an enterprise, an institution or another body are shown
    (DOMAIN §9), a person's, a sole trader's (个体工商户) and those of whom the code does not tell are masked.
    """
    return (text, code) if re.fullmatch(data("mask")["body"], code) else (name(text), citizen_id(code))


def citizen_id(text: str) -> str:
    """An 18-digit citizen id: the first six and the last two stay. Anything else is hidden whole."""
    return f"{text[:6]}{'*' * 10}{text[-2:]}" if len(text) == 18 else "*" * len(text)


def free_text(text: str, names: Iterable[str] = ()) -> str:
    """Written text with every hit of a pattern, and every one of ``names``, replaced by a token such as
    【手机号】.

    ``names`` are names known from the record itself (the rater's), found in any width and case, also set apart
    otherwise; shorter than two characters they are ignored. What is longer than ``[limit]`` ends with a mark: a
    token may be six times what it hides, and what follows of a record must fit into a record again.
    """
    if not text:
        return ""
    text = text.translate(_FOLD)
    for letters in sorted({_letters(n) for n in names}, key=len, reverse=True):
        if len(letters) > 1 and (letters[0] in text or letters[0].swapcase() in text):  # to look costs little
            text = re.sub(_GAP.join(map(re.escape, letters)), "【姓名】", text, flags=re.IGNORECASE)
    most, doubtful = data("mask")["limit"]["bytes"], data("mask")["limit"]["doubtful"]
    masked = text[:most]  # no character has less than a byte
    for token, pattern in _patterns():
        masked = pattern.sub(token, masked)
    if len(text) > most:
        return _cut(masked[:-doubtful], most)  # what began there and was not read to its end matched nothing
    return _cut(masked, most) if len(masked.encode()) > most else masked


def _letters(known: str) -> str:
    """A name without what its parts are set apart by, folded as the text that it is looked for in."""
    return re.sub(_GAP, "", known.translate(_FOLD))


def _cut(text: str, most: int) -> str:
    """``text`` with the mark of a cut, ``most`` bytes together at most; no character and no token is cut through."""
    mark = str(data("mask")["limit"]["mark"])
    kept = text.encode()[: most - len(mark.encode())].decode(errors="ignore")
    return _BEGUN.sub("", kept) + mark


def _is_han(text: str) -> bool:
    return all("\u3400" <= c <= "\u9fff" for c in text)


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[Replacement, re.Pattern[str]], ...]:
    parts = {**data("mask")["part"], **_surnames(**data("mask")["names"])}
    return tuple(_pattern(token["name"], token["pattern"], parts) for token in data("mask")["token"])


def _surnames(*, compound: str, single: str, starts: str, ends: str, acts: str, words: str) -> Mapping[str, str]:
    """The parts that stand for a surname: anybody's, a colleague's, and one that is an ordinary word as well."""
    return {
        "surname": _surname(compound, single, starts, ends),
        "colleague": _surname(compound, single, f"{starts} {acts}", ends),
        "word": f"[{''.join(words.split())}]",
    }


def _pattern(kind: str, pattern: str, parts: Mapping[str, str]) -> tuple[Replacement, re.Pattern[str]]:
    """What a hit is replaced by, and the pattern, its parts filled in."""
    for part, text in parts.items():
        pattern = pattern.replace(f"{{{part}}}", text)
    token, found = f"【{kind}】", re.compile(pattern)
    return (lambda hit: hit["keep"] + token) if "keep" in found.groupindex else token, found


def _surname(compound: str, single: str, starts: str, ends: str) -> str:
    """Any surname that is no part of an ordinary word."""
    words, before, after = ("|".join(text.split()) for text in (compound, starts, ends))
    one, first = ("".join(text.split()) for text in (single, compound + single))
    # the first look is for speed only: most characters begin no surname
    return f"(?=[{first}])(?:{words}|(?!{before})[{one}](?<!{after}))"
