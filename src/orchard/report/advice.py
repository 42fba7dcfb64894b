"""Advice as a person reads it: goals, recommendations in order, the best combination."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from orchard.studies.advice.cases import TOP, WITHIN, AdviceCheck, AdviceValidation
from orchard.studies.advice.figures import shown
from orchard.studies.advice.record import Advice, GoalResult, Recommendation
from orchard.studies.apply import Applied
from orchard.units import format_bytes, format_seconds

WIDTH = 80
MOST_OTHERS = 3


def render_advice(advice: Advice, most: int = 5) -> str:
    """The whole answer in at most 80 columns; `most` recommendations. Commands can be pasted."""
    lines = [
        f"{advice.model} on {advice.chip_name or advice.chip}",
        f"as it runs today: {advice.runtime} on the {advice.engine}",
        *_wrapped(", ".join(f"{name} {shown(name, value)}" for name, value in advice.figures.items()), "  "),
    ]
    if advice.goals:
        lines += ["", "goals", *(line for goal in advice.goals for line in _goal(goal))]
    lines.append("")
    if not advice.recommendations:
        lines.append("nothing tried makes it better by 1 % or more")
    for number, found in enumerate(advice.recommendations[:most], 1):
        lines += [*_recommendation(f"{number}. ", found), ""]
    hidden = len(advice.recommendations) - most
    if hidden > 0:
        lines += [f"{hidden} more with less to gain: --top {len(advice.recommendations)}, or --json", ""]
    if advice.combination is not None:
        lines += ["together, predicted as a whole", *_recommendation("   ", advice.combination), ""]
    lines += [line for note in advice.notes for line in _wrapped(f"note: {note}", "", "  ")]
    lines.append(f"{advice.tried} changes and combinations predicted")
    return "\n".join(lines)


def _goal(goal: GoalResult) -> Iterator[str]:
    yield from _wrapped(f"{goal.text}: {shown(goal.figure, goal.before)} today; {goal.verdict}", "  ")
    if goal.verdict not in ("met", "reached"):
        yield from _wrapped(goal.sentence, "    ")


def _recommendation(head: str, r: Recommendation) -> Iterator[str]:
    yield from _wrapped(r.title, head, " " * len(head))
    yield from _wrapped(_gain_text(r), "   ")
    yield from _wrapped(r.reason, "   ")
    for effect in r.side_effects:
        yield from _wrapped(f"but {effect}", "   ")
    yield from _wrapped(f"quality risk {r.risk.name.lower()}: {r.quality}  effort: {r.effort.name.lower()}", "   ")
    if r.others:
        found = ", ".join(f"{_short(v.title)} {v.factor:.2f}x" for v in r.others[:MOST_OTHERS])
        yield from _wrapped(f"also: {found}", "   ")
    for note in r.notes:
        yield from _wrapped(f"note: {note}", "   ")
    for command in r.how:
        yield from _folded(command, "   > ")
    yield from _folded(r.predict, "   $ ")


def _short(title: str) -> str:
    """What differs between variants: the setting at the end of the title."""
    for before in ("store the weights as ", "take ", "let "):
        if title.startswith(before):
            return title.removeprefix(before).partition(",")[0]
    return title.rpartition(": ")[2]


def _gain_text(r: Recommendation) -> str:
    gain = r.gain
    spread = ""
    if gain.factor_interval is not None:
        low, high = gain.factor_interval
        spread = f" ({low:.2f} to {high:.2f}; {gain.basis})"
    before, after = shown(gain.figure, gain.before), shown(gain.figure, gain.after)
    return f"{gain.figure} {before} -> {after}: {gain.factor:.2f} times better{spread}"


def _folded(command: str, head: str) -> Iterator[str]:
    """A command over several lines: Python breaks inside its brackets, a shell after a backslash, never inside quotes."""
    end = "" if "(" in command.partition(" ")[0] else " \\"
    line, indent = head, " " * (len(head) + 2)
    for word in re.findall(r"(?:'[^']*'|\"[^\"]*\"|\S)+", command):
        gap = "" if line in (head, indent) else " "
        if gap and len(line) + 1 + len(word) > WIDTH - len(end):
            yield line + end
            line, gap = indent, ""
        line += gap + word
    yield line


def _wrapped(text: str, first: str, rest: str | None = None) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=first if rest is None else rest, break_on_hyphens=False
    )


def render_applied(found: Applied) -> str:
    """What was made and whether it is what the advice promised; else the recipe."""
    lines = _wrapped(found.title, "")
    if found.artefact is None:
        lines += _wrapped(f"no file was made: {found.why}", "  ")
        return "\n".join([*lines, *(line for command in found.recipe for line in _folded(command, "  > "))])
    a = found.artefact
    formats = ", ".join(f"{count:,} of {name}" for name, count in a.formats.items())
    state = "as the technique says" if a.confirmed else f"the technique says {format_bytes(a.expected_bytes)}"
    lines += [
        *_wrapped(f"wrote {a.file}", "  "),
        *_wrapped(f"weights {format_bytes(a.before_bytes)} -> {format_bytes(a.after_bytes)}, {state}", "  "),
        *_wrapped(f"weight elements: {formats}", "  "),
        *_wrapped(
            f"predicted {format_seconds(a.before_s)} -> {format_seconds(a.after_s)}: {a.factor:.2f} times better (advice: "
            f"{found.advised_factor:.2f})", "  ",
        ),
    ]  # fmt: skip
    return "\n".join(lines)


def render_advice_checks(found: AdviceValidation) -> str:
    """One line per case: what was changed, its rank, the share of time saved as measured and as predicted."""
    head = f"{'model':<18}{'chip':<7}{'change':<28}{'rank':>5}{'measured':>9}{'predicted':>10}"
    lines = [head, *map(_check_line, found.checks)]
    both = sum(c.in_top and c.close for c in found.checks)
    lines += [
        "",
        "share of time saved; rank among the recommendations (- where it is none)",
        f"in the first {TOP}: {sum(c.in_top for c in found.checks)} of {len(found.checks)}; "
        f"within {WITHIN * 100:.0f} points: {sum(c.close for c in found.checks)}; both: {both}",
    ]
    return "\n".join(lines)


def _check_line(check: AdviceCheck) -> str:
    case = check.case
    name = case.request.model.rpartition("/")[2]
    place = "-" if check.rank is None else str(check.rank)
    shares = f"{case.saved * 100:>7.0f} %{check.predicted * 100:>8.0f} %"
    return f"{name[:17]:<18}{case.request.chip[:6]:<7}{case.change[:27]:<28}{place:>5}{shares}"
