"""What an operator installs, and the rules that keep the package installable and its core free of the outside."""

import ast
import re
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """Names of the files in a wheel built from this checkout, without network and isolation."""
    target = tmp_path_factory.mktemp("dist")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(target), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        return frozenset(archive.namelist())


def below(directory: str) -> set[str]:
    return {
        path.relative_to(ROOT / directory).as_posix()
        for path in (ROOT / directory).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_carries_every_migration_and_the_alembic_settings(wheel: frozenset[str]) -> None:
    migrations = below("migrations")
    assert "env.py" in migrations
    assert {f"otocod/_migrations/{name}" for name in migrations} <= wheel
    assert "otocod/_migrations/alembic.ini" in wheel


def test_wheel_carries_every_unit_file(wheel: frozenset[str]) -> None:
    units = below("deploy/systemd")
    assert any(name.endswith(".service") for name in units)
    assert {f"otocod/_deploy/systemd/{name}" for name in units} <= wheel


def test_wheel_is_typed_and_holds_nothing_but_the_package(wheel: frozenset[str]) -> None:
    assert "otocod/py.typed" in wheel
    assert all(re.match(r"otocod(/|-[^/]+\.dist-info/)", name) for name in wheel)
    assert not [name for name in wheel if name.endswith((".db", ".pyc"))]


@pytest.mark.parametrize("name", LOCKS)
def test_lock_has_no_addresses_options_or_machine_paths(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert not re.search(r"(^|\s)/\w", text)
    assert not re.search(r"^-", text, re.MULTILINE)


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_in_a_lock_is_pinned_with_hashes(name: str) -> None:
    blocks = [block for block in re.split(r"\n(?=\S)", (ROOT / name).read_text()) if not block.startswith("#")]
    assert len(blocks) > 20
    for block in blocks:
        assert re.match(r"[a-z0-9._-]+==\S+", block), block[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block[:80]


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


def test_development_runs_what_an_installation_runs() -> None:
    installed, developed = (pins(name) for name in LOCKS)
    assert installed.items() <= developed.items()


def test_locks_satisfy_the_project(request: pytest.FixtureRequest) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name, wanted in zip(LOCKS, (project["dependencies"], project["optional-dependencies"]["dev"]), strict=True):
        locked = pins(name)
        for requirement in map(Requirement, wanted):
            assert locked[requirement.name.lower()] in requirement.specifier, requirement


def test_environment_runs_the_locked_versions_of_what_the_project_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = pins("requirements.lock")
    for requirement in map(Requirement, project["dependencies"]):
        if requirement.marker is None or requirement.marker.evaluate():
            assert metadata.version(requirement.name) == locked[requirement.name.lower()]


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module or ""


def test_core_imports_only_the_standard_library_and_transitions() -> None:
    # The import contracts hold a list of what is forbidden; here is the list of what is allowed.
    modules = sorted((ROOT / "otocod" / "domain").rglob("*.py"))
    assert modules
    for path in modules:
        for name in imports_of(path):
            top = name.partition(".")[0]
            allowed = top in sys.stdlib_module_names or top == "transitions" or name.startswith("otocod.domain")
            assert allowed, f"{path.name} imports {name}"
