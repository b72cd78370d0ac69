"""A lever speaks for itself: no other file of the product knows one by its name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from alm import registry
from alm.onnxfile.summary import DTYPES
from exporters import levers
from tests import ROOT

PRODUCT = ("runtime/alm", "wrappers", "exporters", "demo", "export.py")
NAMES = registry.names(levers)
# A file that may name levers, and why.
ALLOWED = {
    "runtime/alm/artifacts/older_levers.py": "manifests that were written before levers said what "
    "they store have nothing but names",
    "wrappers/checkpoint/salmonn_keys.py": "keys of SALMONN's config that are none of ours",
    "wrappers/llms/qwen.py": "flags of its config that say in what type it was trained",
}
# What says that a word which is also a type of numbers (int8) is meant as a precision.
ASKED = re.compile(r"--?precision\s|(?:^|\w)=|\+")


def literals(source: str) -> Iterator[str]:
    """The string literals of a file that are no docstrings, also those within f-strings."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in docstrings:
                yield node.value


def imported(source: str) -> set[str]:
    """The levers on which another is built, which may refer to them."""
    return {
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module == "exporters.levers"
        for alias in node.names
    }


def named(source: str, own: str = "") -> set[str]:
    """The levers that a file names, besides its `own` and, for a lever, those it is built on.

    ONNX and numpy call types of numbers int8 and int4, too: such a word counts where a precision is
    asked for, or beside `precision` in a comparison.
    """
    found = {
        name
        for text in literals(source)
        for name in NAMES
        if re.search(rf"(?<![\w-]){name}(?!\w)", text)
        and (name not in DTYPES or re.search(rf"({ASKED.pattern}){name}(?!\w)", text))
    }
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and "precision" in ast.unparse(node):
            found |= set(literals(ast.unparse(node))) & set(NAMES)
    return found - ({own} | imported(source) if own else set())


def product() -> Iterator[tuple[str, str]]:
    """Path and lever of every file of the product; no lever for a file that is none."""
    for place in PRODUCT:
        path = ROOT / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            name = file.relative_to(ROOT).as_posix()
            lever = file.stem if file.parent.name == "levers" else ""
            yield name, lever


def test_no_file_of_the_product_names_a_lever_but_its_own() -> None:
    files = dict(product())
    found = {name: named((ROOT / name).read_text("utf-8"), own) for name, own in files.items()}
    beside = {name: names for name, names in found.items() if names and name not in ALLOWED}
    assert not beside and len(files) > 150
    assert all(ALLOWED.values()) and {name for name in ALLOWED if not found[name]} == set()


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ('x = "fp16"', {"fp16"}),
        ('x = {"decoder": "int4dq"}', {"int4dq"}),
        ('x = f"--precision {part}=int8 or kv8"', {"int8", "kv8"}),
        ('if part.precision == "int8": pass', {"int8"}),
        ('if "int4" in precisions: pass', {"int4"}),
        ('x = "--precision int4"', {"int4"}),
        ('x = "trt_fp16_enable"', set()),
        ('x = Codes("int8", scale="float16")', set()),
        ('def f():\n    """As fp16."""', set()),
    ],
)
def test_the_check_sees_a_name(source: str, names: set[str]) -> None:
    assert named(source) == names
