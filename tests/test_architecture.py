"""The layout holds: imports point one way, and what belongs to the command line stays there."""

import ast
from pathlib import Path

import pytest

import speaker_invariant_ser

PACKAGE = Path(speaker_invariant_ser.__file__).parent
ORDER = [
    line.split()[0] for line in speaker_invariant_ser.__doc__.splitlines() if line.startswith("    ") and len(line.split()) > 1
]
SOURCES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(tree: ast.AST) -> set[str]:
    """Our modules that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "speaker_invariant_ser":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("speaker_invariant_ser."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("speaker_invariant_ser.")}
    return names


def test_the_map_in_the_package_names_every_module():
    assert sorted(ORDER) == sorted({module_of(path) for path in SOURCES} - {"__init__"})


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    module = module_of(path)
    if module == "__init__":
        return
    above = ORDER[: ORDER.index(module) + (path.parent != PACKAGE)]  # a module in a folder may use the folder's own
    assert imported(ast.parse(path.read_text())) <= set(above)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_prints_exits_or_catches_everything(path):
    tree = ast.parse(path.read_text())
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    handlers = [node.type for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    parts = [part for node in handlers for part in (node.elts if isinstance(node, ast.Tuple) else [node])]
    caught = {ast.unparse(part) if part else "" for part in parts}
    assert not caught & {"", "Exception", "BaseException"}
    assert not calls & {"torch.load", "pickle.load", "pickle.loads", "torch.save", "eval", "exec"}
    if module_of(path) != "cli":
        assert not calls & {"print", "sys.exit", "exit"}
        assert "SerError" not in caught
