"""Finds the templates and renders them with jinja2."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from convgen.errors import CompileError

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment


_PACKAGE = Path(__file__).resolve().parent


def template_dir(package: Path = _PACKAGE) -> Path:
    """Returns the templates' folder: inside ``package`` (a wheel), else beside it (a checkout); raises CompileError."""
    places = (package / "templates", package.parent / "templates")
    for place in places:
        if (place / "cpu").is_dir():
            return place
    tried = " or ".join(repr(str(place)) for place in places)
    raise CompileError(f"package={str(package)!r} has no templates; they must be in {tried}")


@functools.cache
def environment() -> ImmutableSandboxedEnvironment:
    """Returns the one jinja2 environment: sandboxed, undefined names are errors; CompileError without templates."""
    # jinja2 takes longer to import than a cached kernel takes to load, and only rendering needs it.
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(template_dir()),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template_name: str, **values: object) -> str:
    """Returns the text of ``template_name`` (a path below the templates' folder) with ``values`` filled in.

    Raises CompileError when there is no such template, a name it uses has no value, or its text is not valid.
    """
    from jinja2 import TemplateError

    try:
        return environment().get_template(template_name).render(**values)
    except TemplateError as error:
        reason = f"{type(error).__name__}: {error}"
        raise CompileError(f"template_name={template_name!r} cannot be rendered: {reason}") from error
