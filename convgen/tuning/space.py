"""A configuration: the named choices that a strategy leaves open."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Named integers in a fixed order; two configurations with the same choices are equal."""

    values: tuple[tuple[str, int], ...] = ()

    @staticmethod
    def of(**values: int) -> Config:
        """A configuration from keyword arguments, in their order."""
        return Config(tuple(values.items()))

    def __getitem__(self, name: str) -> int:
        return dict(self.values)[name]

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.values) or "-"
