"""The house rules a machine can check: imports point down, optional libraries stay in their file, files stay small."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "convgen"

# The table "Rooms" of ARCHITECTURE.md. A module belongs to the room with the longest matching name, and may import
# its own room, the rooms named here, and whatever those may import.
MAY_IMPORT: Mapping[str, tuple[str, ...]] = {
    "errors": (),
    "options": ("errors",),
    "dtypes": ("errors",),
    "spec": ("errors", "options", "dtypes"),
    "descriptor": ("spec",),
    "matrix_unit": ("errors", "options"),
    "machine": ("errors", "options", "matrix_unit"),
    "gpu": ("errors",),
    "oracle": ("spec",),
    "matrixform": ("spec",),
    "transforms": ("errors",),
    "ir": ("spec", "machine", "transforms"),
    "nests": ("spec", "ir"),
    "passes": ("ir",),
    "render": ("errors",),
    "runtime": ("errors", "options", "machine", "render"),
    "tuning.space": ("spec", "machine", "ir"),
    "tuning.rates": ("machine", "options"),
    "tuning.cost": ("spec", "machine", "tuning.rates"),
    "tuning": ("tuning.space", "runtime", "descriptor"),
    "strategies": ("nests", "passes", "tuning.space", "tuning.cost", "tuning.rates"),
    "strategies.cuda": ("gpu", "strategies"),
    "targets.cpu": ("passes", "render", "runtime"),
    "targets.cuda.interp": ("errors",),
    "targets.cuda": ("gpu", "passes", "render", "runtime", "targets.cuda.interp"),
    "tolerance": ("dtypes", "transforms"),
    "verify": ("spec", "oracle", "tolerance"),
    "driver": ("strategies", "targets.cpu", "tuning", "descriptor"),
    "source_files": ("driver",),
    "operator": ("driver",),
}
FRONTENDS = (
    "choices",
    "locking",
    "pinning",
    "tuner",
    "planning",
    "cuda",
    "explanation",
    "report",
    "kept_operators",
    "functional",
    "doctor",
    "onnx",
    "torch",
    "jax",
    "suites",
    "bench",
    "cli",
    "__main__",
)

# Library → the only modules that may import it.
OPTIONAL_LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "torch": ("torch", "bench.peers.torch", "cuda.libraries.torch"),
    "cupy": ("cuda.libraries.cupy",),
    "jax": ("jax", "bench.peers.jax"),
    "jaxlib": ("jax",),
    "onnx": ("onnx", "bench.peers.onnxruntime"),
    "onnxruntime": ("bench.peers.onnxruntime",),
    "openvino": ("bench.peers.openvino",),
    "numba.cuda": ("targets.cuda", "cuda.libraries.numba"),
    "cuda": ("targets.cuda",),
    "distributed": ("tuner.dask_fleet",),
    "dask": ("tuner.dask_fleet",),
    "matplotlib": ("bench.plot", "report.plot"),
}

PUBLIC_FUNCTIONS = (
    "conv",
    "conv_transpose",
    "conv_backward_data",
    "conv_backward_weights",
    "tune",
    "compile",
    "emit",
    "autotune",
)

MAX_LINES = 600


def module_name(path: Path) -> str:
    """Returns a file's dotted name inside convgen; the package itself is ``""``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES: dict[str, Path] = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported_names(source: str, package: str) -> Iterator[str]:
    """Yields every absolute name that a module of ``package`` imports, at any depth; ``from a import b`` is ``a.b``."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*above, *([module] if module else [])])
                yield from (f"{base}.{alias.name}" for alias in names)


def is_within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def package_of(module: str) -> str:
    """Returns the dotted package that relative imports of ``module`` start from."""
    is_package = SOURCES[module].name == "__init__.py" if module in SOURCES else False
    parts = ["convgen", *module.split(".")] if module else ["convgen"]
    return ".".join(parts if is_package else parts[:-1])


def module_behind(name: str) -> str | None:
    """Returns the convgen module that an imported name comes from, or None for a foreign name."""
    if not is_within(name, "convgen"):
        return None
    inner = name.removeprefix("convgen").removeprefix(".")
    while inner and inner not in SOURCES:
        inner = inner.rpartition(".")[0]
    return inner


def room_of(module: str) -> str | None:
    """Returns the room a module belongs to, or None where ARCHITECTURE.md has no room for it."""
    rooms = (room for room in (*MAY_IMPORT, *FRONTENDS) if is_within(module, room))
    return max(rooms, key=len, default=None)


def reachable(room: str) -> frozenset[str]:
    """Returns every room that ``room`` may import, itself included."""
    if room in FRONTENDS:
        return frozenset((*MAY_IMPORT, *FRONTENDS))
    return frozenset((room,)).union(*(reachable(below) for below in MAY_IMPORT[room]))


def upward_imports(module: str, source: str) -> list[str]:
    """Returns the imports of a module that its room does not allow."""
    room = room_of(module)
    assert room is not None, f"convgen.{module} has no room in ARCHITECTURE.md"
    allowed = reachable(room)
    refused = []
    for name in imported_names(source, package_of(module)):
        target = module_behind(name)
        if target is None or name == "convgen.__version__":
            continue
        if room_of(target) not in allowed:
            refused.append(name)
    return refused


def foreign_libraries(module: str, source: str) -> list[str]:
    """Returns the optional libraries that a module imports and that are another file's to import."""
    names = tuple(imported_names(source, package_of(module)))
    return [
        library
        for library, owners in OPTIONAL_LIBRARIES.items()
        if any(is_within(name, library) for name in names) and not any(is_within(module, owner) for owner in owners)
    ]


# Packages without a room of their own (`convgen`, `convgen.targets`) only hold rooms.
ROOMLESS = ("", "targets")


@pytest.mark.parametrize("module", [name for name in SOURCES if name not in ROOMLESS])
def test_imports_point_down(module: str) -> None:
    assert upward_imports(module, SOURCES[module].read_text()) == []


def test_targets_package_imports_nothing() -> None:
    source = SOURCES["targets"].read_text() if "targets" in SOURCES else ""
    assert [name for name in imported_names(source, "convgen.targets") if is_within(name, "convgen")] == []


@pytest.mark.parametrize("module", SOURCES)
def test_optional_libraries_stay_in_their_file(module: str) -> None:
    assert foreign_libraries(module, SOURCES[module].read_text()) == []


def test_no_module_needs_itself() -> None:
    graph = {}
    for module, path in SOURCES.items():
        targets = {module_behind(name) for name in imported_names(path.read_text(), package_of(module))}
        graph[module] = {target for target in targets if target and target != module}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' → '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("module", "source", "refused"),
    [
        ("spec", "from convgen.errors import SpecError", []),
        ("errors", "from convgen.spec import ConvSpec", ["convgen.spec.ConvSpec"]),
        ("errors", "def late():\n    import convgen.dtypes", ["convgen.dtypes"]),
        ("errors", "from . import dtypes", ["convgen.dtypes"]),
        ("errors", "from .dtypes import DTYPES", ["convgen.dtypes.DTYPES"]),
        ("errors", "from convgen import dtypes", ["convgen.dtypes"]),
        ("errors", "from convgen import conv", ["convgen.conv"]),
        ("errors", "from convgen import __version__", []),
        ("targets.cpu.lower", "from convgen.strategies.direct import Direct", ["convgen.strategies.direct.Direct"]),
        ("strategies.direct", "import convgen.targets.cpu.lower", ["convgen.targets.cpu.lower"]),
        ("cli", "import numpy\nfrom convgen.errors import ConvgenError", []),
    ],
)
def test_the_rule_itself(module: str, source: str, refused: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("", "errors", "dtypes", "spec", "strategies.direct", "targets.cpu.lower", "cli")
    for name in names:
        monkeypatch.setitem(SOURCES, name, PACKAGE / f"{name or '__init__'}.py")
    assert upward_imports(module, source) == refused


def test_the_rule_for_optional_libraries() -> None:
    source = "import torch.nn.functional as F\nfrom numba import cuda\nimport numba\nfrom convgen.onnx import read"
    assert foreign_libraries("driver", source) == ["torch", "numba.cuda"]
    assert foreign_libraries("torch", source) == ["numba.cuda"]
    assert foreign_libraries("bench.run", source) == ["torch", "numba.cuda"]
    assert foreign_libraries("bench.peers.torch", source) == ["numba.cuda"]
    assert foreign_libraries("targets.cuda.build", source) == ["torch"]


def test_no_module_shadows_a_public_function() -> None:
    assert [name for name in SOURCES if name.rpartition(".")[2] in PUBLIC_FUNCTIONS] == []


def test_files_are_small_and_named_for_their_job() -> None:
    files = [path for folder in ("convgen", "templates", "tests", "benchmarks") for path in (ROOT / folder).rglob("*")]
    text = [path for path in files if path.suffix in {".py", ".j2", ".jinja", ".ll"} and "golden" not in path.parts]
    assert text
    assert [str(path.relative_to(ROOT)) for path in text if len(path.read_text().splitlines()) > MAX_LINES] == []
    assert [str(path.relative_to(ROOT)) for path in text if path.stem in {"util", "utils", "helpers", "misc"}] == []


def test_import_convgen_is_light() -> None:
    heavy = ["numba", "llvmlite", "torch", "jax", "onnx", "rich", "jinja2", "matplotlib"]
    program = (
        "import json, sys, convgen\n"
        f"loaded = [name for name in {heavy!r} if name in sys.modules]\n"
        "print(json.dumps([convgen.__file__, sorted(set(dir(convgen)) | set(convgen.__all__)), loaded]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL, check=False
    )
    assert run.returncode == 0, run.stderr
    file, names, loaded = json.loads(run.stdout)
    assert Path(file) == PACKAGE / "__init__.py"
    assert set(PUBLIC_FUNCTIONS) <= set(names)
    assert loaded == []
