"""Generated sources as files."""

from __future__ import annotations

from pathlib import Path

from convgen.driver import Plan, file_stem, lower, source_of
from convgen.errors import OptionError
from convgen.machine import Machine


def make_folder(directory: Path) -> None:
    """Makes the folder, if it is not there; raises OptionError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(directory, error) from error


def write_if_changed(plan: Plan, directory: Path, machine: Machine) -> bool:
    """Writes the plan's source into a directory; False if the file holds it already.

    Raises OptionError if the file cannot be written.
    """
    path = directory / f"{file_stem(plan)}.py"
    content = source_of(plan, lower(plan, machine)).encode()
    try:
        if path.is_file() and path.read_bytes() == content:
            return False
        path.write_bytes(content)
    except OSError as error:
        raise unwritable(directory, error) from error
    return True


def unwritable(directory: str | Path, error: OSError) -> OptionError:
    """The error for an output folder that cannot be written."""
    return OptionError(f"output={str(directory)!r} cannot be written: {error.strerror or error}")
