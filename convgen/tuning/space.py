"""A configuration: the named choices that a strategy leaves open."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.errors import OptionError


@dataclass(frozen=True)
class Config:
    """Named integers in a fixed order; two configurations with the same choices are equal."""

    values: tuple[tuple[str, int], ...] = ()

    @staticmethod
    def of(**values: int) -> Config:
        """A configuration from keyword arguments, in their order."""
        return Config(tuple(values.items()))

    @staticmethod
    def parse(text: str) -> Config:
        """A configuration from the text that str() makes of one; commas do for spaces. Raises OptionError."""
        pairs = [part.partition("=") for part in text.replace(",", " ").split() if part != "-"]
        for name, _, value in pairs:
            if not name.isidentifier() or not value.removeprefix("-").isdecimal():
                raise OptionError(f"config={text!r} is not valid; allowed: name=integer pairs")
        return Config(tuple((name, int(value)) for name, _, value in pairs))

    def __getitem__(self, name: str) -> int:
        return dict(self.values)[name]

    def get(self, name: str, default: int) -> int:
        """The choice of that name, or the default where the configuration does not have it."""
        return dict(self.values).get(name, default)

    def and_also(self, **values: int) -> Config:
        """The configuration with more choices after its own."""
        return Config((*self.values, *values.items()))

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.values) or "-"
