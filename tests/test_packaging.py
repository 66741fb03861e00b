"""pyproject.toml and env/: true metadata, complete dependencies, pins that fit every Python we name."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from functools import cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import pix2seq_d

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
DISTRIBUTIONS = {"PIL": "pillow"}  # where the import's name is not the distribution's
INDIRECT = {"docstring-parser"}  # jsonargparse takes the help of every setting from docstrings with it


def _names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _third_party(paths: list[Path], *, at_import: bool) -> set[str]:
    """Distributions that files import: when they are imported themselves, or only inside functions."""
    found = set()
    for path in paths:
        tree = _tree(path)
        lazy = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
        for node in ast.walk(tree):
            if (id(node) in lazy) != at_import:
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module.split(".")[0])
    found -= {*sys.stdlib_module_names, "pix2seq_d"}
    return {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in found}


def _sources() -> list[Path]:
    return [*sorted((ROOT / "pix2seq_d").rglob("*.py")), *sorted(ROOT.glob("*.py"))]


def _pins(python: str) -> dict[str, str]:
    """Distribution -> pinned version on a Python version."""
    pins: dict[str, str] = {}
    for line in (ROOT / "env/constraints.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate({"python_version": python}):
                name = canonicalize_name(pin.name)
                assert name not in pins, f"{name}: pinned twice for Python {python}"
                pins[name] = re.fullmatch(r"==([\w.]+)", str(pin.specifier)).group(1)  # type: ignore[union-attr]
    return pins


def test_version_is_the_packages() -> None:
    assert PROJECT["version"] == pix2seq_d.__version__
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    assert cited is not None
    assert cited.group(1) == pix2seq_d.__version__
    assert f"\n## {pix2seq_d.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_files_named_exist() -> None:
    for name in [PROJECT["readme"], *PROJECT["license-files"], "pix2seq_d/py.typed"]:
        assert (ROOT / name).is_file(), name
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    for pattern in PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]:
        assert list(ROOT.glob(pattern.lstrip("/"))), pattern


def test_entry_points_can_be_called() -> None:
    for target in PROJECT["scripts"].values():
        module, _, name = target.partition(":")
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text("utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_dependencies_cover_every_import() -> None:
    declared, extras = _names(PROJECT["dependencies"]), PROJECT["optional-dependencies"]
    needed = _third_party(_sources(), at_import=True)
    assert "torch" in needed
    assert not needed - declared
    optional = _third_party(_sources(), at_import=False)
    assert not optional - declared - set().union(*(_names(extras[e]) for e in extras if e != "dev"))


def test_dependencies_are_all_used() -> None:
    used = _third_party(_sources(), at_import=True) | _third_party(_sources(), at_import=False)
    assert _names(PROJECT["dependencies"]) - used == INDIRECT


def test_dev_covers_what_the_tests_import() -> None:
    tests = sorted((ROOT / "tests").rglob("*.py"))
    declared = _names(PROJECT["dependencies"]) | _names(PROJECT["optional-dependencies"]["dev"])
    local = {p.stem for p in tests} | {p.name for p in (ROOT / "tests").iterdir() if p.is_dir()} | {"tests"}
    local = {canonicalize_name(name) for name in local | {p.stem for p in (ROOT / "benchmarks").glob("*.py")}}
    assert not _third_party(tests, at_import=True) - declared - local


def test_extras_and_ranges() -> None:
    assert set(PROJECT["optional-dependencies"]) == {"fast", "video", "browser", "notebook", "app", "dev"}
    for requirement in [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]:
        assert [s.operator for s in Requirement(requirement).specifier] == [">="], f"{requirement}: a floor, no cap"
    assert not {"torchvision", "timm"} & _names(PROJECT["dependencies"])


@pytest.mark.parametrize(
    ("name", "last_without"),
    [
        ("jsonargparse", "4.48"),  # ArgumentParser.instantiate is of 4.49
        ("numpy", "1.26"),  # integer scalars shift by a Python int, and checkpoints unpickle safely, since 2.0
        ("huggingface_hub", "0.36"),  # the local Hub of the tests speaks to 1.0 and later
        ("pillow", "10.3"),  # ImageDraw.circle is of 10.4
    ],
)
def test_floors_have_what_the_code_calls(name: str, last_without: str) -> None:
    (requirement,) = (r for r in map(Requirement, PROJECT["dependencies"]) if r.name == name)
    assert last_without not in requirement.specifier


@pytest.mark.parametrize("python", PYTHONS)
def test_pins_satisfy_the_ranges(python: str) -> None:
    assert python in SpecifierSet(PROJECT["requires-python"])
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]
    pins = _pins(python)
    for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"python_version": python}):
            continue
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, line


def test_torch_is_pinned_alike_everywhere() -> None:
    versions = {_pins(python)["torch"] for python in PYTHONS}
    assert len(versions) == 1
    assert f"torch=={versions.pop()}" in (ROOT / "env/environment.yml").read_text("utf-8")


def test_makefile_explains_its_targets() -> None:
    lines = (ROOT / "Makefile").read_text("utf-8").splitlines()
    phony = next(line for line in lines if line.startswith(".PHONY:")).split()[1:]
    explained = [m.group(1) for line in lines if (m := re.match(r"([a-z-]+):.*  ## \w", line))]
    assert sorted(phony) == sorted(explained)
    listed = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == explained


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    if find_spec("hatchling") is None:
        pytest.skip("hatchling (extra `dev`) is not installed")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
        ".",
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("pix2seq_d-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    package = {name for name in names if ".dist-info/" not in name}
    page = {f"pix2seq_d/report/page.{suffix}" for suffix in ("html", "css", "js")}
    others = {"pix2seq_d/app/page.css", "pix2seq_d/py.typed"}
    assert package == {p.relative_to(ROOT).as_posix() for p in (ROOT / "pix2seq_d").rglob("*.py")} | page | others
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert f"Version: {pix2seq_d.__version__}" in metadata
    assert "License-Expression: Apache-2.0" in metadata
