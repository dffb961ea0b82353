"""Measurements side by side with other libraries, and of convgen's own overheads."""
