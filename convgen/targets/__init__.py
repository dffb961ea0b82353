"""Machines that programs are lowered to, one folder each."""
