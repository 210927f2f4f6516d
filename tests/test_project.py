"""Promises about the repository itself: what bild/ imports, what the wheel holds, what is never used."""

import ast
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [*ROOT.glob("bild/**/*.py"), *ROOT.glob("pipelines/**/*.py")]


def imported_roots(path: Path) -> set[str]:
    roots = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            roots.add(str(node.module).split(".")[0])
    return roots


# What each part of pipelines/ may import, from the ground up: there are no cycles.
LAYERS = {
    "files": {"cli"},
    "data": {"cli", "files"},
    "models": {"cli", "files", "data"},
    "decoding": {"cli", "files", "data", "models"},
    "training": {"cli", "files", "data", "models", "decoding"},
    "evaluation": {"cli", "files", "data", "models", "decoding"},
    "comparison": {"cli", "files", "data", "models", "decoding", "evaluation"},
    "calibration": {"cli", "files", "data", "models", "decoding", "evaluation"},
    "analysis": {"cli", "files", "data", "models", "decoding", "evaluation"},
    "alignment": {"cli", "files", "data", "models", "decoding", "training", "evaluation"},
}


def imported_parts(path: Path) -> set[str]:
    modules: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "pipelines":
            modules += [f"pipelines.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules.append(str(node.module))
    return {module.split(".")[1] for module in modules if module.startswith("pipelines.")}


@pytest.mark.parametrize("part", LAYERS)
def test_imports_point_downwards(part: str) -> None:
    files = [*ROOT.glob(f"pipelines/{part}.py"), *ROOT.glob(f"pipelines/{part}/**/*.py")]
    assert files
    for path in files:
        assert imported_parts(path) <= LAYERS[part] | {part}, path


@pytest.mark.parametrize("path", sorted(ROOT.glob("bild/**/*.py")), ids=lambda path: path.name)
def test_the_decoder_imports_torch_and_transformers_alone(path: Path) -> None:
    assert imported_roots(path) <= set(sys.stdlib_module_names) | {"bild", "torch", "transformers"}


@pytest.mark.parametrize("path", sorted(SOURCES), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unpickles_or_runs_remote_code(path: Path) -> None:
    assert "pickle" not in imported_roots(path)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if ast.unparse(node.func) == "torch.load":
            assert ast.literal_eval(keywords["weights_only"]) is True
        remote = keywords.get("trust_remote_code")
        assert not (isinstance(remote, ast.Constant) and remote.value is True)


@pytest.mark.parametrize("path", sorted(SOURCES), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 320
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno <= 70, f"{node.name} is {node.end_lineno - node.lineno} lines long"


# A file of conf/small/ and the draft source that comes of it are the same to a reader.
SAME_THING = {"PromptLookup", "EarlyExit", "Bigram"}


def test_a_class_name_means_one_thing() -> None:
    where: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                where.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    twice = {name: files for name, files in where.items() if len(files) > 1}
    assert not twice.keys() - SAME_THING, f"give one of each another name: {twice}"


def test_the_wheel_contains_bild_alone(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("bild-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"bild"}
    assert "bild/decode.py" in names
    assert "bild/py.typed" in names


def test_every_requirement_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *extras["pipelines"], *extras["bench"], *extras["dev"]]
    names = {requirement.split(">")[0].strip().lower().replace("_", "-") for requirement in requirements}
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert names <= {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
