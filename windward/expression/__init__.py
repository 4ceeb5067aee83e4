"""Mixer's expression language (CEXL): parsed, typed, compiled once to a Python code object."""
