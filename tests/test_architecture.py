"""The layout holds: packages import in one direction, modules of a package without a circle, and only the CLI prints."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import speaker_invariant_ser

PACKAGE = Path(speaker_invariant_ser.__file__).parent
NAME = PACKAGE.name
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Levels of the import rule: a module imports from lower levels and from its own package only.
LEVELS = (
    {
        "errors",
        "recipe",
        "recipe_encoders",
        "recipe_methods",
        "config",
        "files",
        "json_files",
        "indexing",
        "metrics",
        "processes",
        "distributed",
    },
    {"data"},
    {"features"},
    {"models", "adversaries"},
    {"runs", "audit"},
    {"training", "evaluation", "inference"},
    {"report"},
    {"studies"},
    {"api", "demos"},
    {"cli"},
    {"__main__"},
)
COMMON = LEVELS[0]
LEVEL_OF = {package: level for level, packages in enumerate(LEVELS) for package in packages}
MAX_TOP_MODULES, MAX_PACKAGE_FILES, MAX_FILE_LINES = 12, 16, 400


def module_of(path: Path) -> str:
    """Dotted name below the package: `data.audio`; an `__init__.py` is its package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in SOURCES}


def imported(tree: ast.AST) -> set[str]:
    """Our modules that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == NAME:
            base = node.module[len(NAME) + 1 :]
            inner = {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
            names |= {name if name in MODULES else base for name in inner}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
        elif isinstance(node, ast.Import):
            names |= {alias.name[len(NAME) + 1 :] for alias in node.names if alias.name.startswith(f"{NAME}.")}
    return names - {""}


IMPORTS = {module_of(path): imported(ast.parse(path.read_text())) for path in SOURCES}


def test_every_package_and_top_module_has_a_level():
    assert {module.split(".")[0] for module in MODULES - {""}} == set(LEVEL_OF)


@pytest.mark.parametrize("module", sorted(MODULES - {""}))
def test_packages_import_in_one_direction(module):
    package = module.split(".")[0]
    for other in IMPORTS[module]:
        target = other.split(".")[0]
        common = package in COMMON and target in COMMON
        assert target == package or common or LEVEL_OF[target] < LEVEL_OF[package], f"{module} imports {other}"


@pytest.mark.parametrize("package", sorted(LEVEL_OF))
def test_modules_of_a_package_import_without_a_circle(package):
    inside = {module for module in MODULES if module.split(".")[0] == package or (package in COMMON and module in COMMON)}
    graph = {module: {other for other in IMPORTS[module] if other in inside and other != module} for module in inside}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_tree_stays_small_enough_to_search_by_eye():
    assert len(set(PACKAGE.glob("*.py")) - {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}) <= MAX_TOP_MODULES
    for folder in {path.parent for path in SOURCES} - {PACKAGE, PACKAGE / "data" / "corpora"}:
        assert len(list(folder.glob("*.py"))) <= MAX_PACKAGE_FILES, folder

    too_long = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in SOURCES}
    assert not {name: lines for name, lines in too_long.items() if lines > MAX_FILE_LINES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_prints_exits_or_catches_everything(path):
    tree = ast.parse(path.read_text())
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    handlers = [node.type for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    parts = [part for node in handlers for part in (node.elts if isinstance(node, ast.Tuple) else [node])]
    caught = {ast.unparse(part) if part else "" for part in parts}
    assert not caught & {"", "Exception", "BaseException"}
    if module_of(path).split(".")[0] != "cli":
        assert not calls & {"print", "sys.exit", "exit"}
        assert "SerError" not in caught


LOADERS = {
    "eval",
    "exec",
    "__import__",
    "os.system",
    "os.popen",
    "torch.jit.load",
    "torch.save",
    "joblib.dump",
    "audformat.Database.load",
}
LOADERS |= {f"{name}.{verb}" for name in ("torch", "joblib", "yaml", "dill", "marshal", "pickle") for verb in ("load", "loads")}
LOADERS |= {f"yaml.{verb}" for verb in ("load_all", "unsafe_load", "full_load")} | {
    "pickle.Unpickler",
    "pd.read_pickle",
    "shelve.open",
}


def runs_programs(call: ast.Call) -> bool:
    """Return whether a call may run what a file says: pickles, YAML with tags, code in text."""
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if ast.unparse(call.func) in ("np.load", "numpy.load"):
        return keywords.get("allow_pickle") != "False"
    allowed = [keywords.get(name, "False") for name in ("allow_pickle", "trust_remote_code", "shell")]
    return ast.unparse(call.func) in LOADERS or set(allowed) != {"False"}


def test_no_loader_runs_programs():
    paths = [*SOURCES, *(PACKAGE.parent / "benchmarks").glob("*.py"), *(PACKAGE.parent / "tools").glob("*.py")]
    calls = [(path, node) for path in paths for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [f"{path}:{call.lineno} {ast.unparse(call)}" for path, call in calls if runs_programs(call)]
    for text in (
        "torch.load(p)",
        "pd.read_pickle(p)",
        "np.load(p)",
        "yaml.load(f)",
        "audformat.Database.load(p)",
        "run(x, shell=True)",
    ):
        assert runs_programs(ast.parse(text, mode="eval").body), text
