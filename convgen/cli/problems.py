"""What SOURCE and SPEC on the command line stand for."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from convgen.descriptor import parse_descriptor
from convgen.errors import ModelError, SpecError
from convgen.onnx import distinct_problems, read_model
from convgen.spec import ConvSpec
from convgen.suites import suite, suite_names

# Networks are read in the layout that the fast kernels like.
NETWORK_LAYOUT = "channels_last"
_EXAMPLE = "mb1_ic64oc64ih56oh56kh3ph1"
# A text that starts so is meant as a descriptor, and what is wrong with it is worth telling.
_DESCRIPTOR_START = re.compile(r"(g|mb|ic|oc|[iokspd][dhw])[0-9]")


@dataclass(frozen=True)
class Problem:
    """A distinct problem, how often it occurs, and the name of its first occurrence, where the source has one."""

    spec: ConvSpec
    count: int
    name: str = ""


@dataclass(frozen=True)
class Source:
    """The problems that SOURCE names; ``name`` is fit to be a folder's."""

    kind: Literal["model", "suite", "problem"]
    name: str
    problems: tuple[Problem, ...]

    @property
    def layers(self) -> int:
        """The number of convolutions, repeated ones included."""
        return sum(problem.count for problem in self.problems)


def read_source(text: str, *, batch: int | None, layout: str | None, dtype: str | None) -> Source:
    """Returns the problems of an ONNX file, else of a suite, else of a descriptor or JSON file.

    ``batch``, ``layout`` and ``dtype`` override the source's own where they are not None. Raises SpecError, DTypeError,
    ModelError and MissingDependencyError.
    """
    if _is_model(text):
        return Source("model", Path(text).stem, _changed(_model_problems(text, batch, layout), dtype=dtype))
    if text in suite_names():
        layers = suite(text, batch=1 if batch is None else batch, layout=layout or NETWORK_LAYOUT)
        return Source(
            "suite", text, _changed([Problem(layer.spec, layer.count, layer.name) for layer in layers], dtype=dtype)
        )
    if not _is_spec(text):
        raise SpecError(
            f"source={text!r} is not known; allowed: an ONNX file, a suite ({', '.join(suite_names())}), "
            f"or a descriptor such as {_EXAMPLE}"
        )
    problem = Problem(read_spec(text), 1)
    name = Path(text).stem if _is_json(text) else re.sub(r"\W+", "_", text.strip())
    return Source("problem", name, _changed([problem], batch=batch, layout=layout, dtype=dtype))


def read_spec(text: str) -> ConvSpec:
    """Returns the problem of a descriptor or of a file with ``ConvSpec.to_json`` text; raises SpecError and DTypeError."""
    if _is_json(text):
        try:
            return ConvSpec.from_json(Path(text).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise SpecError(f"spec={text!r} cannot be read: {reason}") from error
    if not _is_spec(text):
        raise SpecError(
            f"spec={text!r} is not known; allowed: a descriptor such as {_EXAMPLE}, or a JSON file of a problem"
        )
    return parse_descriptor(text)


def _is_json(text: str) -> bool:
    return text.endswith(".json") or (os.path.isfile(text) and not text.endswith(".onnx"))


def _is_model(text: str) -> bool:
    return text.endswith(".onnx") or (os.path.isfile(text) and not text.endswith(".json"))


def _is_spec(text: str) -> bool:
    return _is_json(text) or _DESCRIPTOR_START.match(text.strip()) is not None


def _model_problems(path: str, batch: int | None, layout: str | None) -> list[Problem]:
    problems = distinct_problems(read_model(path, layout=layout or NETWORK_LAYOUT))
    found = [Problem(spec, count, names[0]) for spec, count, names in problems]
    return found if batch is None else [_rebatched(path, problem, found[0].spec.batch, batch) for problem in found]


def _rebatched(path: str, problem: Problem, own: int, batch: int) -> Problem:
    """The problem with the model's ``own`` batch, that of its first convolution, replaced; others are multiples of it."""
    spec = problem.spec
    if own == 0 or spec.batch % own:
        raise ModelError(
            f"batch={batch} cannot replace the batch {own} of model {path!r}, where one layer has {spec.batch}"
        )
    return Problem(spec.replace(batch=spec.batch // own * batch), problem.count, problem.name)


def _changed(problems: list[Problem], **changes: object) -> tuple[Problem, ...]:
    given = {name: value for name, value in changes.items() if value is not None}
    return tuple(Problem(problem.spec.replace(**given), problem.count, problem.name) for problem in problems)
