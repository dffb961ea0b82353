"""Generated sources as files."""

from __future__ import annotations

from pathlib import Path

from convgen.descriptor import format_descriptor
from convgen.driver import Plan, lower, source_of
from convgen.errors import OptionError
from convgen.machine import Machine


def make_folder(directory: str | Path) -> Path:
    """Makes the folder, if it is not there, and returns it; raises OptionError."""
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(directory, error) from error
    return folder


def write_source(plan: Plan, directory: str | Path, machine: Machine) -> tuple[Path, bool]:
    """Writes the plan's source into a directory, which is made if need be.

    Returns the file's path, and False if it held this source already. Raises OptionError if the file cannot be written.
    """
    return write_text(source_of(plan, lower(plan, machine)), plan, directory)


def write_text(source: str, plan: Plan, directory: str | Path, *, suffix: str = "") -> tuple[Path, bool]:
    """The same for a source that is there already, of the plan's name and ``suffix``."""
    content = source.encode()
    path = make_folder(directory) / f"{file_stem(plan)}{suffix}.py"
    try:
        if path.is_file() and path.read_bytes() == content:
            return path, False
        path.write_bytes(content)
    except OSError as error:
        raise unwritable(directory, error) from error
    return path, True


def unwritable(output: str | Path, error: OSError) -> OptionError:
    """The error for an output that cannot be written."""
    return OptionError(f"output={str(output)!r} cannot be written: {error.strerror or error}")


def file_stem(plan: Plan) -> str:
    """A file name from the problem: its descriptor with what a file name or a module cannot hold replaced."""
    text = f"conv_{format_descriptor(plan.spec)}_{plan.strategy}"
    return "".join(c if c.isalnum() else "_" for c in text)
