"""Rewrites of programs, one a file. A pass is a frozen dataclass of its options, called with a program."""
