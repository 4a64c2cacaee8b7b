"""Random mutations of valid run and study files, as bytes of YAML.

A document is a tree of `Pairs` (a mapping that may hold a key twice), lists and `Raw` YAML text, so
that what no dumper writes (tags, anchors, `010`, two equal keys) can stand at any place of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
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
    "unknown",
    "lr",
    "alphas",
    "alpha",
    "seed",
    "seeds",
    "batch_size",
    "kind",
    "path",
    "Manifest",
    "manifest ",
    "MANIFEST",
    "manifеst",
    "1",
    "null",
    "true",
    "1.5",
    "2020-01-01",
    '""',
    '"a\\nb"',
    '"\\0"',
    '"\\ud800"',
    "? [a, b]",
    "? {a: b}",
    "<<",
    "=",
    "größe",
    "__class__",
    "model_config",
    "trainning",
    "guide-classes",
    "identity",
    '"' + "k" * 3_000 + '"',
    "self",
    "cls",
    "values",
)


@dataclass
class Raw:
    """YAML text of one node."""

    text: str


Pairs = list[tuple[str, Any]]


@dataclass
class Tree:
    """A mapping; a list of pairs, so that a key can be there twice."""

    pairs: Pairs


@dataclass(frozen=True)
class Case:
    """A mutated input.

    Args:
        what: The mutations, for people.
        data: The file.
        keys: Words of which a refusal must name one; none where anything may be named.
    """

    what: str
    data: bytes
    keys: frozenset[str]


def tree(value: Any) -> Any:
    """Plain values as a tree."""
    if isinstance(value, dict):
        return Tree([(key, tree(one)) for key, one in value.items()])
    return [tree(one) for one in value] if isinstance(value, list) else value


def flow(value: Any) -> str:
    """A node in YAML's flow style."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, Tree):
        return "{" + ", ".join(f"{key}: {flow(one)}" for key, one in value.pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def block(value: Tree, indent: str = "") -> str:
    """A mapping in YAML's block style, a line a scalar or a list."""
    lines = []
    for key, one in value.pairs:
        if isinstance(one, Tree) and one.pairs:
            lines.append(f"{indent}{key}:\n{block(one, indent + '  ')}")
        else:
            lines.append(f"{indent}{key}: {flow(one)}\n")
    return "".join(lines)


@dataclass
class Place:
    """Where a node stands: in `above`, at `index`, under these keys."""

    above: Any
    index: int
    keys: tuple[str, ...]

    @property
    def value(self) -> Any:
        node = self.above.pairs if isinstance(self.above, Tree) else self.above
        return node[self.index][1] if isinstance(self.above, Tree) else node[self.index]

    @value.setter
    def value(self, value: Any) -> None:
        if isinstance(self.above, Tree):
            self.above.pairs[self.index] = (self.above.pairs[self.index][0], value)
        else:
            self.above[self.index] = value


def places(node: Any, keys: tuple[str, ...] = ()) -> list[Place]:
    """Every node below the root."""
    found: list[Place] = []
    inside = node.pairs if isinstance(node, Tree) else node if isinstance(node, list) else []
    for index, one in enumerate(inside):
        key, value = one if isinstance(node, Tree) else ("", one)
        here = (*keys, key) if key else keys
        found += [Place(node, index, here), *places(value, here)]
    return found


def trees(node: Any, keys: tuple[str, ...] = ()) -> list[tuple[Tree, tuple[str, ...]]]:
    """Every mapping, with the keys it stands under."""
    found = [(node, keys)] if isinstance(node, Tree) else []
    for place in places(node, keys):
        if isinstance(place.value, Tree):
            found.append((place.value, place.keys))
    return found


Change = Callable[[Random, Tree], tuple[str, tuple[str, ...]]]


def odd_value(random: Random) -> Raw:
    return Raw(random.choice(LONG) if random.random() < 0.04 else random.choice(VALUES))


def replace(random: Random, root: Tree) -> tuple[str, tuple[str, ...]]:
    place = random.choice(places(root))
    place.value = odd_value(random)
    return f"{'.'.join(place.keys)} = {place.value.text[:60]}", place.keys


def turn(random: Random, root: Tree) -> tuple[str, tuple[str, ...]]:
    """A value that may well be allowed."""
    place = random.choice([one for one in places(root) if not isinstance(one.value, Tree)])
    old = place.value
    if isinstance(old, bool):
        place.value = not old
    elif isinstance(old, int):
        place.value = random.choice((0, 1, 2, 3, 7, 999, 1000, 2**31, 2**62))
    elif isinstance(old, float):
        place.value = round(random.random(), random.randint(1, 18))
    elif isinstance(old, list) and old:
        place.value = random.sample(old, random.randint(0, len(old)))
    else:
        place.value = Raw(random.choice(WORDS))
    return f"{'.'.join(place.keys)} = {flow(place.value)}", place.keys


def remove(random: Random, root: Tree) -> tuple[str, tuple[str, ...]]:
    place = random.choice(places(root))
    inside = place.above.pairs if isinstance(place.above, Tree) else place.above
    del inside[place.index]
    return f"without {'.'.join(place.keys)}", place.keys


def add(random: Random, root: Tree) -> tuple[str, tuple[str, ...]]:
    above, keys = random.choice(trees(root))
    key = random.choice(KEYS)
    above.pairs.insert(random.randrange(len(above.pairs) + 1), (key, odd_value(random)))
    named = key.strip().removeprefix("? ")
    return f"{'.'.join(keys)} + {key[:40]}", (*keys, named) if named[0].isalnum() else ()


def rename(random: Random, root: Tree) -> tuple[str, tuple[str, ...]]:
    above, keys = random.choice([one for one in trees(root) if one[0].pairs] or [(root, ())])
    if not above.pairs:
        return "nothing", ()
    index = random.randrange(len(above.pairs))
    old, value = above.pairs[index]
    letter = random.randrange(len(old))
    new = random.choice(
        (
            old.upper(),
            old + "s",
            old[:letter] + old[letter + 1 :],
            f'"{old} "',
            old.replace("_", "-"),
        )
    )
    above.pairs[index] = (new or "x", value)
    return f"{'.'.join((*keys, old))} named {new}", (*keys, old, new)


def repeat(random: Random, root: Tree) -> tuple[str, tuple[str, ...]]:
    above, keys = random.choice([one for one in trees(root) if one[0].pairs] or [(root, ())])
    if not above.pairs:
        return "nothing", ()
    key, value = random.choice(above.pairs)
    above.pairs.append((key, random.choice((value, odd_value(random)))))
    return f"{'.'.join((*keys, key))} twice", (*keys, key)


def wrap(random: Random, root: Tree) -> tuple[str, tuple[str, ...]]:
    place = random.choice(places(root))
    value = place.value
    ways: list[Any] = [[value], [value, value], Tree([("a", value)]), [[value]]]
    if isinstance(value, list) and value:
        ways += [value[0], value * 2, [*value, odd_value(random)]]
    place.value = random.choice(ways)
    return f"{'.'.join(place.keys)} wrapped: {flow(place.value)[:40]}", place.keys


def scale(random: Random, root: Tree) -> tuple[str, tuple[str, ...]]:
    numbers = [
        one
        for one in places(root)
        if isinstance(one.value, (int, float)) and not isinstance(one.value, bool)
    ]
    if not numbers:
        return "nothing", ()
    place = random.choice(numbers)
    old = place.value
    ways = (
        -old,
        old + 0.5,
        old * 1000,
        old / 1000,
        old * 10**30,
        10**7,
        f"{old}",
        f" {old} ",
        3 - old,
    )
    place.value = random.choice(ways)
    return f"{'.'.join(place.keys)} = {place.value!r}", place.keys


def anchor(random: Random, root: Tree) -> tuple[str, tuple[str, ...]]:
    """One node takes the place of another by an alias or a merge key, as it stands or changed."""
    found = places(root)
    if len(found) < 2:
        return "nothing", ()
    first, second = sorted(random.sample(range(len(found)), 2))
    one, other = found[first], found[second]
    if other.keys[: len(one.keys)] == one.keys:  # inside of it: the alias would be the node's own
        one.value = Raw("&a {<<: *a, b: *a}")
        return f"{'.'.join(one.keys)} holds itself", one.keys
    text = flow(one.value)
    one.value = Raw(f"&here {text}") if text[:1] not in "&*" else one.value
    ways = [
        "*here",
        "{<<: *here}",
        "{<<: [*here, *here]}",
        "[*here, *here]",
        "{a: *here, <<: {a: 1}}",
    ]
    other.value = Raw(random.choice(ways))
    return f"{'.'.join(other.keys)} = {other.value.text} ({'.'.join(one.keys)})", (
        *one.keys,
        *other.keys,
    )


# Repeated changes are drawn more often.
CHANGES: tuple[Change, ...] = (
    *[replace] * 4,
    *[turn] * 4,
    *[remove] * 2,
    *[add] * 2,
    rename,
    repeat,
    *[wrap] * 2,
    scale,
    anchor,
)


def spoil_text(random: Random, text: str) -> tuple[str, bytes]:
    """A change of the text itself, after which it may be no YAML."""
    at = random.randrange(len(text) + 1)
    lines = text.splitlines(keepends=True)
    line = random.randrange(len(lines)) if lines else 0
    laughs = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )

    def pick(*texts: str) -> str:
        return random.choice(texts)

    ways: dict[str, Callable[[], str | bytes]] = {
        "cut": lambda: text[:at],
        "cut bytes": lambda: text.encode()[: random.randrange(len(text) + 1)],
        "a character": lambda: (
            text[:at] + random.choice("\t\0\x07\x1b'\"{}[]:,&*!|>%@`#-?\ufeff\u2028é\r") + text[at:]
        ),
        "without a character": lambda: text[:at] + text[at + 1 :],
        "a line twice": lambda: "".join([*lines[: line + 1], *lines[line:]]),
        "without a line": lambda: "".join(lines[:line] + lines[line + 1 :]),
        "indented": lambda: "".join([*lines[:line], "   ", *lines[line:]]),
        "by tabs": lambda: text.replace("  ", "\t"),
        "BOM": lambda: "\ufeff" + text,
        "UTF-16": lambda: text.encode("utf-16"),
        "Latin-1": lambda: text.encode() + "# größe\n".encode("latin-1"),
        "two documents": lambda: text + "---\n" + text,
        "an end": lambda: text + "...\n",
        "a directive": lambda: pick("%YAML 9.9\n---\n", "%TAG ! x\n---\n", "---\n") + text,
        "CRLF": lambda: text.replace("\n", "\r\n").encode(),
        "a variable": lambda: text.replace(": ", ": ${NO_SUCH_VARIABLE} ", 1),
        "variables": lambda: text + pick("# ${IN_A_COMMENT}\n", "x: ${}\n", "x: ${a-b}\n"),
        "empty": lambda: pick("", "\n", "# nothing\n", "---\n", "--- ---", "~", "{}", "[]"),
        "something else": lambda: pick("word", "5", "- a\n- b\n", "!!set {a}", "&a *a", "\0"),
        "nested": lambda: pick("[", "{a: ", "- ", "? ") * random.choice((50, 1_000)),
        "laughs": lambda: laughs + text,
        "laughs inside": lambda: laughs + text.replace(": ", ": *a9 #", 1),
        "noise": lambda: bytes(random.randrange(256) for _ in range(60)),
        "long": lambda: text + "#" * 200_000 + "\n",
    }
    name = random.choice(list(ways))
    changed = ways[name]()
    return name, changed if isinstance(changed, bytes) else changed.encode("utf-8", "surrogatepass")


def mutated_config(random: Random, base: dict[str, Any]) -> Case:
    """A config file with one change, or now and then several, of its values or of its text."""
    root = tree(base)
    told: list[str] = []
    keys: set[str] = set()
    free = False
    for _ in range(1 if random.random() < 0.75 else random.randint(2, 4)):
        what, named = random.choice(CHANGES)(random, root)
        told.append(what)
        keys |= set(named)
        free |= not named
    text = block(root)
    if random.random() < 0.12:
        what, data = spoil_text(random, text)
        return Case("; ".join([*told, what]), data, frozenset())
    data = text.encode("utf-8", "surrogatepass")
    keys |= {what.rpartition(" = ")[2] for what in told if " = " in what}  # the value names it too
    return Case("; ".join(told), data, frozenset() if free else frozenset(keys))
