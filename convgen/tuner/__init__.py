"""Tuning: candidates compiled and examined by helper processes, timed in this one, on one machine or a fleet."""
