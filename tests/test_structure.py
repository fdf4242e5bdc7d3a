"""Which part of the package may import which: arrows run one way."""

import ast
from pathlib import Path

import pytest

import rga_timm

PACKAGE = Path(rga_timm.__file__).parent
SCRIPTS = Path(__file__).parents[1] / "scripts"

# Each part may import those that stand before it in its own list, and itself.
ALLOWED = {
    "layers": set(),
    "weights": set(),
    "weights_file": set(),
    "models": {"layers", "weights", "weights_file"},
    "data": set(),
    "losses": set(),
    "task": {"losses"},
    "evaluation": {"data"},
    "explain": {"layers"},
    "search": {"evaluation", "data"},
    "report_page": {"evaluation", "data", "explain"},
    "hub": {"evaluation", "data", "models", "layers", "weights", "weights_file"},
    "training": {"evaluation", "data", "hub", "report_page", "losses", "task"},
}
EVERYWHERE = {"_version"}
ANYTHING = {"__init__", "__main__", "cli"}  # the program, and what is public at the top


def imported(file: Path, package: Path) -> set[str]:
    """The modules that a file imports, absolute; imports for type checkers alone do not count."""
    names = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = file.relative_to(package.parent).parent.parts if node.level else ()
            base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def part_of(module: str) -> str:
    """`data` of `rga_timm.data.reader`."""
    return module.split(".")[1]


def parts() -> list[str]:
    """Folders and modules at the top of the package."""
    names = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")}
    return sorted(name.removesuffix(".py") for name in names)


def test_every_part_has_its_place() -> None:
    assert set(parts()) == ALLOWED.keys() | EVERYWHERE | ANYTHING


@pytest.mark.parametrize("part", ALLOWED)
def test_no_part_imports_what_stands_above_it(part: str) -> None:
    folder = PACKAGE / part
    files = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    # A name that is no module of the package is a name in one: `rga_timm.data.ReidSplits`.
    known = set(parts())
    found = {
        (str(file.relative_to(PACKAGE)), part_of(module))
        for file in files
        for module in imported(file, PACKAGE)
        if module.startswith("rga_timm.") and part_of(module) in known
    }
    allowed = ALLOWED[part] | EVERYWHERE | {part}
    assert sorted(arrow for arrow in found if arrow[1] not in allowed) == []


@pytest.mark.parametrize("file", sorted(SCRIPTS.rglob("*.py")), ids=lambda file: file.stem)
def test_no_script_imports_another(file: Path) -> None:
    siblings = {path.stem for path in SCRIPTS.rglob("*.py")}
    assert sorted(imported(file, SCRIPTS) & siblings) == []
