"""Random mutations of valid run and study files, as bytes of YAML.

A document has one key a line, with a value in YAML's flow style, so that what no dumper writes
(tags, anchors, `010`, two equal keys) can stand at any place of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

# Values that belong nowhere, or in one place alone; each is one flow node of YAML.
VALUES = (
    """
-1|0|1|2|-0|+1|1.0|0.5|-0.5|1e-3|1E5|1e400|-1e400|.5|5.|.inf|-.inf|.nan|nan|inf|1_000|1:30|1:30.5
010|017|0x7f|0o17|0b11|08|00|007|99999999999999999999999|-99999999999999999999|2147483648|1e18
4294967296|9223372036854775808|1e308|1e-308|yes|no|on|off|true|false|True|NO|null|~|""|" "|"0"
"1"|"0.5"|"true"|"nan"|"-1"|2020-01-01|2020-13-45|2020-01-01T10:00:00Z|12:30:45|[]|{}|[1]|[1, 2]
[0.5, 0.5]|[[1]]|[null]|[true]|[""]|[a, a]|[-1]|[.nan]|[1e400]|{a: b}|{a: {b: {c: d}}}|{1: 2}
{? [a, b] : c}|{null: 1}|{true: 1}|{"": 1}|{"a\\nb": 1}|word|"two words"|größe|"日本語"|"\\u202eabc"
"\\0"|"a\\0b"|"\\ud800"|"a\\nb"|"\\e[31mred"|"\\x7f"|"\\u2028"|"😀"|'it''s'|"../../../etc/passwd"|/|.
"~"|"~nobody-of-this-name/x"|/dev/null|/dev/zero|"C:\\\\data"|"${HOME}"|"$HOME"|${NO_SUCH_VARIABLE}
!!python/object/apply:os.getcwd []|!!python/name:os.getcwd|!!binary aGVsbG8=|!!set {a, b}
!!omap [a: 1]|!!pairs [a: 1]|!!timestamp never|!!int five|!!int ""|!!float "nan"|!!float ""
!!bool perhaps|!!null x|!!str 5|!!seq {a: b}|!!map [a]|!custom x|!<tag:x,2000:y> z|*nowhere|&a b
&a [*a]|&a {b: *a}|&a {<<: *a}|{<<: 5}|{<<: {a: 1}}|auto|none|hub|cam|rise|eer|fdr=0|fdr=nan|fdr=x
manifest.csv|test_byobnet|marked|plain|{seed}|"{seed}/{seed}.csv"|[test_byobnet, test_byobnet]
""".replace("\n", "|")
    .strip("|")
    .split("|")
)
WORDS = (
    """
cam|rise|none|human|store|centre|replace|keep|score|agreement|entropy|map|box|hull|all|annotated
epochs|steps|squash|letterbox|crop|l2|mse|l1|kl|dice|label|predicted|softmax|sigmoid|sgd|adamw
constant|step|cosine|one_cycle|best_auc|best_accuracy|last|auto|cpu|cuda|memmap|staged|full|highest
guided|val_auc|pad|medical|generic|eer|fdr=0.1|marked|plain|test|test-new|test_byobnet|test_resnet
test_vit|manifest.csv|draws/{seed}.csv|maps|cyborg|paper|no|2020-01-01
""".replace("\n", "|")
    .strip("|")
    .split("|")
)
LONG = (
    '"' + "x" * 5_000 + '"',
    "9" * 5_000,
    "[" + "1, " * 3_000 + "1]",
    "[" * 60 + "]" * 60,
    "{a: " * 40 + "1" + "}" * 40,
    "0." + "3" * 400,
)
KEYS = (
    *"""
unknown|lr|alphas|alpha|seed|seeds|batch_size|kind|path|Manifest|MANIFEST|manifеst|1|null|true
1.5|2020-01-01|<<|=|größe|__class__|model_config|trainning|guide-classes|identity|self|cls
values
""".strip()
    .replace("\n", "|")
    .split("|"),
    "manifest ",
    '""',
    '"a\\nb"',
    '"\\0"',
    '"\\ud800"',
    "? [a, b]",
    "? {a: b}",
    '"' + "k" * 3_000 + '"',
)


@dataclass(frozen=True)
class Case:
    """A mutated input: the mutations, the file, and words of which a refusal must name one."""

    what: str
    data: bytes
    keys: frozenset[str]


@dataclass
class Line:
    """A key with its value, below other keys."""

    above: tuple[str, ...]
    key: str
    value: str

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.above, self.key)


def lines_of(values: dict[str, Any], above: tuple[str, ...] = ()) -> list[Line]:
    """Nested values, a line a key."""
    lines: list[Line] = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            lines += [Line(above, key, ""), *lines_of(value, (*above, key))]
        else:
            lines.append(Line(above, key, json.dumps(value, ensure_ascii=False)))
    return lines


def block(lines: list[Line]) -> str:
    """Lines in YAML's block style."""
    return "".join(f"{'  ' * len(one.above)}{one.key}: {one.value}\n" for one in lines)


def odd_value(random: Random) -> str:
    return random.choice(LONG) if random.random() < 0.04 else random.choice(VALUES)


def likely_value(random: Random, old: str) -> str:
    """A value that may well be allowed."""
    if old in ("true", "false"):
        return "false" if old == "true" else "true"
    if re.fullmatch(r"[\d.]+", old):
        numbers = ("0", "1", "2", "3", "999", f"{2**62}", f"{round(random.random(), 3)}", f"-{old}")
        return random.choice((*numbers, f"{old}.5", f"{old}000", f'"{old}"'))
    if old.startswith("["):
        items = json.loads(old)
        return json.dumps(random.sample(items, random.randint(0, len(items))))
    return random.choice(WORDS)


def change(random: Random, lines: list[Line]) -> tuple[str, tuple[str, ...]]:
    """Change one line; returns what was done, and the keys that it concerns."""
    at = random.randrange(len(lines))
    one = lines[at]
    way = random.choice(("odd",) * 4 + ("likely",) * 4 + ("gone", "gone", "more", "more") + WAYS)
    match way:
        case "odd":
            one.value = odd_value(random)
        case "likely":
            one.value = likely_value(random, one.value)
        case "gone":
            above = lines[at - 1].keys  # what was below the line is now below this one
            del lines[at]
            return f"{'.'.join(one.keys)} gone: {one.value[:60]}", (*one.keys, *above)
        case "more":
            key = random.choice(KEYS)
            lines.insert(at, Line(one.above, key, odd_value(random)))
            named = key.strip().removeprefix("? ")
            return f"{'.'.join(one.above)} + {key[:40]}", (
                (*one.above, named) if named[:1].isalnum() else ()
            )
        case "named":
            cut = random.randrange(len(one.key))
            shorter = one.key[:cut] + one.key[cut + 1 :] or "x"
            old, names = one.key, (one.key.upper(), one.key + "s", shorter, f'"{one.key} "')
            one.key = random.choice((*names, one.key.replace("_", "-")))
            return f"{old} named {one.key}", (*one.keys, old)
        case "twice":
            lines.append(Line((), one.key, one.value or odd_value(random)))
        case "wrapped":
            one.value = random.choice(("[{}]", "[{0}, {0}]", "{{a: {}}}", "[[{}]]")).format(
                one.value
            )
        case _:
            other = random.choice(lines)
            one.value = f"&here {one.value}"
            other.value = random.choice(("*here", "{<<: *here}", "[*here, *here]", "&a {<<: *a}"))
            return f"{other.key} = {other.value} ({one.key})", (*one.keys, *other.keys)
    return f"{'.'.join(one.keys)} {way}: {one.value[:60]}", (*one.keys, one.value)


WAYS = ("named", "twice", "wrapped", "wrapped", "anchor")


def spoiled(random: Random, data: bytes, **more: Callable[[], bytes]) -> tuple[str, bytes]:
    """A change of the bytes themselves, by one of the usual ways or of these."""
    at, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    one = bytes([random.randrange(256)])
    ways: dict[str, Callable[[], bytes]] = {
        "cut": lambda: data[:at],
        "a hole": lambda: data[:at] + data[end:],
        "a byte more": lambda: data[:at] + one + data[at:],
        "a byte other": lambda: data[:at] + one + data[at + 1 :],
        "bytes other": lambda: bytes(
            random.randrange(256) if random.random() < 0.02 else byte for byte in data
        ),
        "zero byte": lambda: data[:at] + b"\0" + data[at:],
        "a quotation mark": lambda: data[:at] + b'"' + data[at:],
        "twice": lambda: data + data,
        "CR": lambda: data.replace(b"\n", b"\r"),
        "CRLF": lambda: data.replace(b"\n", b"\r\n"),
        "BOM": lambda: b"\xef\xbb\xbf" + data,
        "UTF-16 mark": lambda: b"\xff\xfe" + data,
        "UTF-16": lambda: data.decode("utf-8", "replace").encode("utf-16"),
        "Latin-1": lambda: data[:at] + b"\xe9" + data[at:],
        "comments": lambda: b"# made by hand\n" + data,
        "blank lines": lambda: b"\n \n" + data.replace(b"\n", b"\n\n"),
        "empty": lambda: random.choice((b"", b"\n", b" ", b"\xef\xbb\xbf", b'""', b"word", b"[]")),
        "noise": lambda: random.randbytes(100),
        **more,
    }
    name = random.choice(list(ways))
    return name, ways[name]()


def spoil_text(random: Random, text: str) -> tuple[str, bytes]:
    """A change of the text itself, after which it may be no YAML."""
    laughs = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    signs = "\t\0\x07\x1b'\"{}[]:,&*!|>%@`#-?\ufeff\u2028é\r"
    texts = {
        "a character": text.replace("\n", "\n" + random.choice(signs), 1),
        "by tabs": text.replace("  ", "\t"),
        "two documents": text + "---\n" + text,
        "an end": text + "...\n",
        "a directive": random.choice(("%YAML 9.9\n---\n", "%TAG ! x\n---\n", "---\n")) + text,
        "a variable": text.replace(": ", ": ${NO_SUCH_VARIABLE} ", 1),
        "variables": text + random.choice(("# ${IN_A_COMMENT}\n", "x: ${}\n", "x: ${a-b}\n")),
        "something else": random.choice(("5", "- a\n- b\n", "!!set {a}", "&a *a", "~", "--- ---")),
        "nested": random.choice(("[", "{a: ", "- ", "? ")) * random.choice((50, 1_000)),
        "laughs": laughs + text,
        "laughs inside": laughs + text.replace(": ", ": *a9 #", 1),
        "long": text + "#" * 200_000 + "\n",
    }
    more = {name: partial(one.encode, "utf-8", "surrogatepass") for name, one in texts.items()}
    return spoiled(random, text.encode("utf-8", "surrogatepass"), **more)


def mutated_config(random: Random, base: dict[str, Any]) -> Case:
    """A config file with one change, or now and then several, of its lines or of its text."""
    lines = lines_of(base)
    done = [
        change(random, lines)
        for _ in range(1 if random.random() < 0.75 else random.randint(2, 4))
        if lines
    ]
    what, text = "; ".join(one for one, _ in done), block(lines)
    if random.random() < 0.12:
        how, data = spoil_text(random, text)
        return Case(f"{what}; {how}", data, frozenset())
    free = any(not named for _, named in done)
    keys = frozenset() if free else frozenset(key for _, named in done for key in named)
    return Case(what, text.encode("utf-8", "surrogatepass"), keys)
