"""The list of alarms, the code that raises them, and the runbook that explains them say the same."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from otocod.adapters.queue.worker import AlarmKind
from otocod.alarms import ALARMS, Severity, severity_of

ROOT = Path(__file__).resolve().parents[2]
# Places where a code is passed on and not made.
PASSED_ON = {
    "otocod/domain/turn.py",
    "otocod/engine/executor.py",
    "otocod/engine/health.py",
    "otocod/bootstrap.py",
    "otocod/engine/operator.py",
    "otocod/adapters/alerts/routes.py",
}
# Name of the call and which argument the code is.
CALLS = {"attend": 0, "RaiseAlarm": 0, "Trouble": 0, "_alarm": 0, "Alarm": 1}


def codes_in(path: Path) -> Iterator[tuple[str | None, int]]:
    """(code, line) of every alarm made in a file; None where the code is not written out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        place = CALLS.get(name)
        if place is None or len(node.args) <= place:
            continue
        argument = node.args[place]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value, node.lineno
        else:
            yield None, node.lineno


def raised() -> set[str]:
    found: set[str] = set()
    for path in sorted((ROOT / "otocod").rglob("*.py")):
        if "paper" in path.parts:
            continue
        for code, line in codes_in(path):
            where = path.relative_to(ROOT).as_posix()
            assert code is not None or where in PASSED_ON, f"{where}:{line}: the alarm's code is not written out"
            if code is not None:
                found.add(code)
    return found | {f"queue_{kind.value.lower()}" for kind in AlarmKind}


def test_every_alarm_that_is_raised_is_in_the_list_and_the_other_way_round() -> None:
    from_outside = {code for code, about in ALARMS.items() if about.is_outside}
    assert raised() - set(ALARMS) == set()
    assert set(ALARMS) - raised() - from_outside == set()


def test_alarms_are_in_order_and_say_what_they_mean() -> None:
    assert list(ALARMS) == sorted(ALARMS)
    for code, about in ALARMS.items():
        assert re.fullmatch(r"[a-z_]+", code)
        assert about.meaning and not about.meaning.endswith(".")


def test_runbook_has_one_section_for_each_alarm_in_order_with_its_three_parts() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    names = [section.partition("\n")[0].strip() for section in sections]
    assert names == sorted(ALARMS)
    for name, section in zip(names, sections, strict=True):
        assert f"*{ALARMS[name].severity.value}*" in section, name
        for part in ("What happened.", "What otocod did.", "What to do."):
            assert f"**{part}**" in section, (name, part)


def test_an_unknown_alarm_is_an_error_and_severities_are_ordered() -> None:
    assert severity_of("from_a_newer_release") is Severity.ERROR
    assert severity_of("double_exit") is Severity.CRITICAL
    assert Severity.WARNING.rank < Severity.ERROR.rank < Severity.CRITICAL.rank
