"""The house rules: who may import whom, what importing does, what is documented, what reads every setting."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import pytest

import pix2seq_d
from pix2seq_d import config as settings
from pix2seq_d.cli import parse_run_config
from pix2seq_d.presets import PRESETS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pix2seq_d"

# imports go downward, or sideways inside a room; the longest matching prefix decides
ROOMS = {
    "labels": (0, "labels"),
    "label_tables": (0, "labels"),
    "label_mapping": (1, "label_mapping"),
    "bits": (0, "bits"),
    "config": (0, "config"),
    "presets": (0, "config"),
    "diffusion": (1, "diffusion"),
    "models": (1, "models"),
    "metrics": (1, "metrics"),
    "data.batch": (1, "batch"),
    "visualize": (1, "visualize"),
    "animation": (1, "visualize"),
    "palette": (1, "visualize"),
    "pictures": (1, "visualize"),
    "video": (4, "tracker"),
    "video.conditioning": (2, "conditioning"),
    "data": (2, "data"),
    "models.pix2seq_d": (3, "model"),
    "pipeline": (5, "pipeline"),
    "result_files": (5, "predict"),
    "run_record": (5, "predict"),
    "predict": (5, "predict"),
    "prompt_maps": (5, "predict"),
    "report": (6, "report"),
    "engine": (5, "engine"),
    "build": (6, "build"),
    "launch": (7, "commands"),
    "commands": (7, "commands"),
    "commands_ema": (7, "commands"),
    "commands_prompts": (7, "commands"),
    "commands_report": (7, "commands"),
    "commands_plot": (7, "commands"),
    "evaluation": (7, "commands"),
    "inference": (7, "commands"),
    "cli": (7, "commands"),
    "app": (7, "app"),
    "app.command": (8, "app"),
    "__main__": (7, "commands"),
    "": (8, "public names"),
}
# third-party package -> the only places that may import it
HOMES = {
    "accelerate": ("engine", "launch"),
    "huggingface_hub": ("models.pix2seq_d", "models.pretrained", "engine.checkpoint", "pipeline", "data.download"),
    "ema_pytorch": ("engine.ema", "engine.trainer"),
    "jsonargparse": ("cli",),
    "pyspng": ("data.fast_png",),
    "gradio": ("app.page",),
    "torchvision": (),
    "timm": (),
}
CONFIG_READERS = ("presets", "build", "launch", "commands", "cli", "__main__")


@cache
def _trees() -> dict[str, ast.Module]:
    """Module name without the package's (the package itself is "") -> syntax tree."""
    trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(path.read_text("utf-8"))
    return trees


def _imports(tree: ast.AST) -> Iterator[str]:
    """Everything imported anywhere in a file, dotted; `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own_imports(name: str) -> set[str]:
    """Modules of the package that a module imports."""
    found = set()
    for dotted in _imports(_trees()[name]):
        first, _, rest = dotted.partition(".")
        if first == "pix2seq_d":
            found.add(rest if rest in _trees() else rest.rpartition(".")[0])
    return found - {name}


def _inside(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def _room(name: str) -> tuple[int, str]:
    matching = [place for place in ROOMS if place and _inside(name, (place,))]
    if not matching and name:
        raise KeyError(f"pix2seq_d.{name}: give it a level in ROOMS")
    return ROOMS[max(matching, key=len, default="")]


# imports


def test_layering_goes_downward() -> None:
    wrong = []
    for name in _trees():
        level, room = _room(name)
        for target in _own_imports(name):
            target_level, target_room = _room(target)
            if target_level > level or (target_level == level and target_room != room):
                wrong.append(f"{name} (level {level}) imports {target} (level {target_level})")
    assert not wrong


def test_layering_has_no_cycles() -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            for target in _own_imports(name):
                visit(target, (*path, name))
            done.add(name)

    for name in _trees():
        visit(name, ())


def test_layering_keeps_diffusion_and_models_apart() -> None:
    for name in _trees():
        for one, other in (("diffusion", "models"), ("models", "diffusion")):
            if _inside(name, (one,)):
                assert not [t for t in _own_imports(name) if _inside(t, (other,))], name


def test_layering_config_is_read_at_the_top_only() -> None:
    readers = {name for name in _trees() if "config" in _own_imports(name)}
    assert "build" in readers
    assert not [name for name in readers if not _inside(name, CONFIG_READERS)]
    assert {dotted.split(".")[0] for dotted in _imports(_trees()["config"])} <= sys.stdlib_module_names


@pytest.mark.parametrize("library", HOMES)
def test_layering_libraries_stay_in_their_rooms(library: str) -> None:
    users = {name for name, tree in _trees().items() if library in {d.split(".")[0] for d in _imports(tree)}}
    assert not [name for name in users if not _inside(name, HOMES[library])]
    assert bool(users) == bool(HOMES[library])


# what importing does


def _python(source: str) -> dict[str, Any]:
    """Runs `source` in a fresh interpreter; the JSON that its last line prints must be all there is."""
    result = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    return json.loads(result.stdout)


def test_import_is_silent_and_light() -> None:
    loaded = _python("import json, sys, pix2seq_d; print(json.dumps({'modules': sorted(sys.modules)}))")["modules"]
    assert "pix2seq_d" in loaded
    assert not {"torch", "numpy", "accelerate", "jsonargparse", "matplotlib", "PIL"} & set(loaded)
    assert not [name for name in loaded if name.startswith("pix2seq_d.")]


def test_importing_everything_changes_no_global_state() -> None:
    libraries = {d.split(".")[0] for tree in _trees().values() for d in _imports(tree)} - {
        "pix2seq_d",
        "av",
        "pyspng",
        "gradio",
    }
    modules = [f"pix2seq_d.{name}" for name in _trees() if name]
    report = _python(f"""
import json, os, random, sys
from importlib import import_module
for name in {sorted(libraries)}:
    import_module(name)
import accelerate.utils, huggingface_hub.errors, safetensors.torch, tqdm.auto, torch.utils.data, numpy, torch, logging
def state():
    return {{
        "random": str(random.getstate()), "numpy": str(numpy.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "environment": dict(os.environ), "threads": torch.get_num_threads(), "dtype": str(torch.get_default_dtype()),
        "grad": torch.is_grad_enabled(), "tf32": torch.backends.cuda.matmul.allow_tf32,
        "benchmark": torch.backends.cudnn.benchmark, "deterministic": torch.are_deterministic_algorithms_enabled(),
        "handlers": len(logging.getLogger().handlers), "cuda": torch.cuda.is_initialized(),
    }}
before = state()
for name in {modules}:
    import_module(name)
after = state()
print(json.dumps({{"changed": [k for k in before if before[k] != after[k]], "modules": sorted(sys.modules)}}))
""")
    assert report["changed"] == []
    assert not {"matplotlib", "torchvision", "timm", "transformers"} & set(report["modules"])


def test_public_names_are_all_there() -> None:
    assert 10 <= len(pix2seq_d.__all__) <= 16
    assert set(pix2seq_d.__all__) <= set(dir(pix2seq_d))
    for name in set(pix2seq_d.__all__) - {"__version__", "LABEL_SPECS"}:
        value = getattr(pix2seq_d, name)
        assert value.__name__ == name
        assert value.__module__.startswith("pix2seq_d.")
        assert inspect.getdoc(value)
    assert pix2seq_d.LABEL_SPECS["kitti-step"].num_classes == 19
    with pytest.raises(AttributeError, match="no attribute 'Pix2Seq'"):
        _ = pix2seq_d.Pix2Seq


def test_public_names_match_what_type_checkers_see() -> None:
    typed = {d.rpartition(".")[2] for d in _imports(_trees()[""]) if d.startswith("pix2seq_d.")}
    assert typed == set(pix2seq_d.__all__) - {"__version__"} == set(pix2seq_d._MODULES)


# pages


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _undocumented(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    """Public classes, functions and methods without a docstring; a class documents its `forward`."""
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node) and node.name != "forward":
            yield f"{prefix}.{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from _undocumented(node.body, f"{prefix}.{node.name}")


def test_public_names_are_documented() -> None:
    missing = [name for name, tree in _trees().items() if tree.body and not ast.get_docstring(tree)]
    missing += [entry for name, tree in _trees().items() for entry in _undocumented(tree.body, name)]
    assert not missing


def test_package_never_prints() -> None:
    calls = [(name, node) for name, tree in _trees().items() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [(name, c.lineno) for name, c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]


def _statement_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body, signature and docstring not counted."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_functions_are_short() -> None:
    lengths = {(n, f.name, f.lineno): _statement_lines(f) for n, tree in _trees().items() for f in _functions(tree)}
    assert not {key: lines for key, lines in lengths.items() if lines > 60 and key[1] != "fit"}
    assert median(lengths.values()) <= 10


def test_files_are_short() -> None:
    lines = {path: len(_text(path).splitlines()) for path in _tracked() if path.suffix == ".py"}
    assert len(lines) > 50
    assert not {path: count for path, count in lines.items() if count > 400}


@cache
def _tracked() -> tuple[Path, ...]:
    """Files under version control, relative to the root."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError):
        pytest.skip("not a git checkout: no list of tracked files")
    return tuple(Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file())


def _text(path: Path) -> str:
    try:
        return (ROOT / path).read_text("utf-8")
    except UnicodeDecodeError:  # pictures, weights
        return ""


def test_pytest_can_collect_all_files_together() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert len(set(names)) == len(names)


def test_no_paths_of_one_machine() -> None:
    machine = re.compile(r"(?<![\w.~}/-])/(?:work|root|home|Users|mnt|scratch|opt)/\w")
    assert machine.search('open("/home/someone/x")')
    assert not machine.search("https://example.org/home/x or frame/work/x")
    found = {path: m.group() for path in _tracked() if path != _own() and (m := machine.search(_text(path)))}
    assert not found


def test_nothing_is_left_to_do() -> None:
    note = re.compile(r"\b(?:TO[D]O|FIX[M]E)\b")
    assert not [path for path in _tracked() if path.name != "LICENSE" and note.search(_text(path))]


def _own() -> Path:
    return Path(__file__).relative_to(ROOT)


# settings

SECTIONS = {
    field.name: type(getattr(settings.RunConfig(), field.name)) for field in dataclasses.fields(settings.RunConfig)
}


def _sections(node: ast.AST, names: dict[str, str]) -> set[str]:
    """Sections of the configuration that an expression may be: `config.train`, or a name that stands for it."""
    if isinstance(node, ast.Name):
        return {names[node.id]} if node.id in names else set()
    if isinstance(node, ast.Attribute) and node.attr in SECTIONS:
        return {node.attr}
    return set()


def _fields_read(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Every setting that a function reads, as section.field."""
    classes = {cls.__name__: section for section, cls in SECTIONS.items()}
    names = {}
    for argument in [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]:
        if argument.annotation is not None and ast.unparse(argument.annotation) in classes:
            names[argument.arg] = classes[ast.unparse(argument.annotation)]
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            for section in _sections(node.value, {}):
                names[node.targets[0].id] = section
    read = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute):
            read |= {f"{section}.{node.attr}" for section in _sections(node.value, names)}
    return read


def test_every_setting_is_read() -> None:
    read = {f for n in CONFIG_READERS if n in _trees() for g in _functions(_trees()[n]) for f in _fields_read(g)}
    declared = {
        f"{section}.{field.name}"
        for section, cls in SECTIONS.items()
        if section not in ("model", "sampling")  # these are arguments of Pix2SeqD: next test
        for field in dataclasses.fields(cls)
    }
    assert declared <= read, declared - read


def test_model_and_sampling_settings_are_the_arguments_of_the_model() -> None:
    fields = {
        f.name: f.default for cls in (settings.ModelConfig, settings.SamplingConfig) for f in dataclasses.fields(cls)
    }
    arguments = dict(inspect.signature(pix2seq_d.Pix2SeqD.__init__).parameters)
    del arguments["self"], arguments["label_spec"]
    assert {name: parameter.default for name, parameter in arguments.items()} == fields


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_is_documented(section: str) -> None:
    documented = re.findall(r"^    (\w+): \S", inspect.cleandoc(SECTIONS[section].__doc__ or ""), re.MULTILINE)
    assert documented == [field.name for field in dataclasses.fields(SECTIONS[section])]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_survive_the_disk(preset: str, tmp_path: Path) -> None:
    config = PRESETS[preset]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(dataclasses.asdict(config)))
    other = next(name for name in PRESETS if name != preset)
    named = {"program": "test", "description": "", "output_dir": ""}
    assert parse_run_config(["--preset", other, "--config", str(path)], preset=other, **named) == config
    assert parse_run_config(["--preset", other], preset=other, **named) != config
