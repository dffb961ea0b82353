"""Template lookup in a wheel and in a checkout, and rendering that fails loudly."""

from __future__ import annotations

from pathlib import Path

import pytest

from convgen.errors import CompileError
from convgen.render import environment, render, template_dir


def make_templates(folder: Path) -> Path:
    (folder / "cpu").mkdir(parents=True)
    return folder


def test_templates_inside_the_package_win(tmp_path: Path) -> None:
    package = tmp_path / "convgen"
    beside = make_templates(tmp_path / "templates")
    assert template_dir(package) == beside
    inside = make_templates(package / "templates")
    assert template_dir(package) == inside


def test_missing_templates_are_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="has no templates"):
        template_dir(tmp_path / "convgen")


def test_the_call_path_is_among_the_templates() -> None:
    assert (template_dir() / "cpu" / "launch.ll").is_file()


def test_rendering_a_missing_template_names_it() -> None:
    with pytest.raises(CompileError, match=r"template_name='cpu/nothing\.py\.j2'"):
        render("cpu/nothing.py.j2")


def test_static_text_is_rendered_unchanged() -> None:
    assert render("cpu/launch.ll") == (template_dir() / "cpu" / "launch.ll").read_text()


def test_undefined_names_are_errors() -> None:
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        environment().from_string("{{ tile }}").render()


def test_blocks_leave_no_blank_lines() -> None:
    text = "{% for i in range(2) %}\n  {% if i %}\nx = {{ i }}\n  {% endif %}\n{% endfor %}\n"
    assert environment().from_string(text).render() == "x = 1\n"


def test_templates_cannot_reach_the_interpreter() -> None:
    from jinja2.exceptions import SecurityError

    with pytest.raises(SecurityError):
        environment().from_string("{{ values.append(1) }}").render(values=[])
