"""Python code in the documents compiles, and uses only names and arguments that exist."""

import ast
import importlib
import inspect

import pytest
from documents import MARKDOWN, ROOT, blocks

import speaker_invariant_ser as siser

NAME = siser.__name__


def imported_names(tree: ast.AST) -> list[tuple[str, str]]:
    """Return (module, name) of everything that a block imports from this package."""
    return [
        (node.module or "", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == NAME
        for alias in node.names
    ]


def is_public(node: ast.AST) -> bool:
    """Whether a node is `siser.NAME`."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "siser"


def check(code: str) -> None:
    """Raise an error if a block of Python code does not compile or uses what does not exist."""
    tree = ast.parse(code)
    for module, name in imported_names(tree):
        assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"
    unknown = [node.attr for node in ast.walk(tree) if is_public(node) and node.attr not in siser.__all__]
    assert not unknown, f"the public API has no {unknown}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and is_public(node.func):
            keywords = {word.arg: None for word in node.keywords if word.arg}
            inspect.signature(getattr(siser, node.func.attr)).bind(*node.args, **keywords)


def cases() -> list:
    """Return every block of Python code, with a name that says where it is."""
    return [
        pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}")
        for page in MARKDOWN
        for number, code in enumerate(blocks(page.read_text(encoding="utf-8"), "python"), 1)
    ]


@pytest.mark.parametrize("code", cases())
def test_python_code_of_the_documents_uses_what_exists(code):
    check(code)


def test_the_documents_show_the_whole_public_api():
    used = {node.attr for case in cases() for node in ast.walk(ast.parse(case.values[0])) if is_public(node)}
    assert used >= set(siser.__all__) - {"__version__"}


@pytest.mark.parametrize(
    "code",
    [
        "import speaker_invariant_ser as siser\nsiser.trian('a')",
        "import speaker_invariant_ser as siser\nsiser.train()",
        "import speaker_invariant_ser as siser\nsiser.load_model('a', no_such_argument=1)",
        f"from {NAME}.data.corpora.base import NoSuchName",
        f"from {NAME}.no_such_module import anything",
        "siser.train(",
    ],
)
def test_wrong_code_would_be_noticed(code):
    with pytest.raises((AssertionError, TypeError, ImportError, SyntaxError)):
        check(code)
