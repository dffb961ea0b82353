"""Measurements side by side with other libraries: ``convgen bench``."""
