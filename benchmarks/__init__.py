"""Measurements of convgen's own overheads; `convgen bench` compares it with other libraries."""
