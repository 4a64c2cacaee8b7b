"""Figure of the graph of a study: steps, dependencies and computing times.

Steps of one kind are drawn as one box, since a study has hundreds of steps of about a dozen kinds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from statistics import median

from markupsafe import escape

from preceptor.report.cells import short
from preceptor.report.graph_layout import levels, links, ordered_rows, positions
from preceptor.report.svg import LETTER, Element, Figure, label, line, svg, wrapped
from preceptor.runtime.formatting import duration
from preceptor.runtime.result_folder import is_finished, read_record
from preceptor.study.plan import Plan
from preceptor.study.steps import Arm, Look, Role, Select, Selection

WIDE = 720.0
_MOST, _BOX = 4, 176.0  # boxes on a level, and the widest one
_LANE, _GAP, _BETWEEN = 8.0, 10.0, 34.0  # of a line that passes, beside, and between two levels


@dataclass
class Work:
    """Group of steps that is drawn as one box.

    Args:
        title: Title of the box.
        count, done: Number of steps, and of finished steps.
        times: Computing time of each finished step in seconds.
        needs: Titles of the groups that this group needs.
    """

    title: str
    count: int = 0
    done: int = 0
    times: list[float] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Total computing time of the finished steps in seconds."""
        return sum(self.times)

    @property
    def median(self) -> float:
        """Median computing time of a step in seconds."""
        return median(self.times) if self.times else 0.0


def work_groups(plan: Plan) -> list[Work]:
    """Groups of the steps known so far, in topological order."""
    titles = group_titles(plan)
    groups: dict[str, Work] = {}
    for identity, step in plan.steps.items():
        if step.kind == "shard":  # counted with the step that joins them, which has their seconds
            continue
        group = groups.setdefault(titles[identity], Work(titles[identity]))
        group.count += 1
        folder = plan.protocol.folder(step)
        if isinstance(step.work, Select):
            group.done += plan.is_decided(step.work.selection)
        elif is_finished(folder):
            group.done += 1
            group.times.append(float(read_record(folder).get("seconds") or 0.0))
        before = list(step.needs)
        inner = any(need in plan.origin and _same(plan, need, identity) for need in step.needs)
        if plan.origin.get(identity) and not inner:
            before.append(plan.origin[identity])
        for need in before:
            name = titles.get(need)
            if name and name != group.title and name not in group.needs:
                group.needs.append(name)
    return _sorted(groups)


def _same(plan: Plan, one: str, other: str) -> bool:
    """Whether two steps were added by the same selection."""
    return plan.origin.get(one) == plan.origin.get(other)


def group_titles(plan: Plan) -> dict[str, str]:
    """Title of the group of each step, by id."""
    arms: dict[str, list[Arm]] = {}
    for member in plan.members:
        arms.setdefault(member.run, []).append(member.arm)
    probes: set[str] = set()
    for step in plan.steps.values():
        made = step.work.selection if isinstance(step.work, Select) else None
        if isinstance(made, Selection) and made.role == "teacher":
            probes |= set(step.needs)
    found: dict[str, str] = {}
    makers: dict[str, str] = {}  # who makes the maps of a step, by id
    for identity, step in plan.steps.items():  # a step's needs stand before it
        if step.kind == "shard":
            continue
        if step.kind == "train":
            names = _names(arms.get(identity, []))
            makers[identity] = names[-1]
            probe = names == ["Student"] and identity in probes
            found[identity] = "Probe Students" if probe else " = ".join(names)
        elif step.kind in ("maps", "committee"):
            makers[identity] = makers.get(step.needs[0], "a Teacher")
            what = "Maps" if step.kind == "maps" else "Mean maps"
            found[identity] = f"{what} of {makers[identity]}"
        elif isinstance(step.work, Select):
            found[identity] = _decision(step.work.selection)
        else:
            found[identity] = "Test sets scored"
    return found


def _decision(selection: Selection | Look) -> str:
    """Title of the group of a selection or of a look."""
    if isinstance(selection, Look):
        return "Number of seeds decided"
    chosen = "Teacher" if selection.role == "teacher" else f"α of the {_name(selection.role)}"
    return f"{chosen} chosen"


def _names(arms: list[Arm]) -> list[str]:
    """Roles of a run as text; those of other annotation budgets only if it has no
    other role."""
    plain = {_arm_name(arm) for arm in arms if arm.annotated is None}
    return sorted(plain or {f"{_arm_name(arm)}, other budgets" for arm in arms}) or ["Training"]


def _arm_name(arm: Arm) -> str:
    if arm.role == "teacher":
        return "Teacher, data-driven" if arm.alpha == 1 else "Teacher, human-guided"
    named = arm.role in ("variant", "control", "generation")
    return short(replace(arm, annotated=None).label) if named else _name(arm.role)


def _name(role: Role) -> str:
    return "Baseline 1" if role == "baseline1" else short(role)


def _sorted(groups: dict[str, Work]) -> list[Work]:
    """Groups in topological order; a dependency that would close a cycle is omitted."""
    order: list[str] = []
    open_now: set[str] = set()

    def visit(name: str) -> None:
        if name in order:
            return
        open_now.add(name)
        group = groups[name]
        group.needs = [need for need in group.needs if need not in open_now]
        for need in group.needs:
            visit(need)
        open_now.discard(name)
        order.append(name)

    for name in groups:
        visit(name)
    above: dict[str, set[str]] = {}  # all that comes before, at any distance
    for name in order:
        needs = groups[name].needs
        above[name] = set(needs).union(*(above[need] for need in needs))
    for name in order:  # what a need needs itself is not drawn once more
        needs = groups[name].needs
        groups[name].needs = [
            need for need in needs if not any(need in above[other] for other in needs)
        ]
    return [groups[name] for name in order]


def graph_plot(groups: list[Work]) -> Figure | None:
    """Graph of boxes from top to bottom, with the number and computing time of the steps."""
    if not groups:
        return None
    needs = {group.title: group.needs for group in groups}
    level = levels(needs, _MOST)
    joined = links(needs, level)
    rows = ordered_rows(level, joined)
    lanes = max(sum(at != level[name] for name, at in row) for row in rows)
    width = min(_BOX, (WIDE - lanes * (_LANE + _GAP)) / _MOST - _GAP)
    widths = {(name, at): width if at == level[name] else _LANE for row in rows for name, at in row}
    centre = positions(rows, joined, widths, WIDE, _GAP)
    letters = int(width / LETTER)
    written = {
        group.title: (wrapped(group.title, letters, 4), wrapped(_told(group), letters, 2))
        for group in groups
    }
    tops: list[float] = []
    bottoms: list[float] = []
    for row in rows:
        tops.append(bottoms[-1] + _BETWEEN if bottoms else 1.0)
        most = max(sum(map(len, written[name])) for name, at in row if at == level[name])
        bottoms.append(tops[-1] + 13 * most + 15)
    body = [
        line(centre[name, at], tops[at], centre[name, at], bottoms[at], "edge")
        for row in rows
        for name, at in row
        if at != level[name]
    ]
    for (name, at), (other, under) in joined:
        from_x, x, low, y = centre[name, at], centre[other, under], bottoms[at], tops[under]
        half = (low + y) / 2
        body.append(
            Element(
                f'<path d="M{from_x:.1f},{low:.1f}C{from_x:.1f},{half:.1f} {x:.1f},{half:.1f} '
                f'{x:.1f},{y:.1f}" class="edge"/>'
            )
        )
    for group in groups:
        at = level[group.title]
        x, y, high = centre[group.title, at], tops[at], bottoms[at] - tops[at]
        state = "whole" if group.done == group.count else "part"
        lines, counts = written[group.title]
        body.append(
            Element(
                f'<rect x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" '
                f'height="{high:.1f}" rx="6" class="box {state}">'
                f"<title>{escape(group.title)}: {_told(group)}</title></rect>"
            )
        )
        top = y + (high - 13 * (len(lines) + len(counts) - 1)) / 2 + 4
        for place, text in enumerate(lines):
            body.append(label(x, top + 13 * place, text, "small strong", "middle"))
        for place, text in enumerate(counts, len(lines)):
            body.append(label(x, top + 13 * place + 1, text, "small tick", "middle"))
    said = "; ".join(f"{group.title}: {group.done} of {group.count}" for group in groups)
    return svg(bottoms[-1] + 1, f"The graph of the study. {said}", body, WIDE)


def _told(group: Work) -> str:
    """Number of steps and their computing time as text."""
    told = f"{group.done} of {group.count}" if group.done < group.count else f"{group.count}"
    return f"{told} · {duration(group.seconds)}" if group.times else told
