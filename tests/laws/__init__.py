"""The laws of Pilot's engine and streams, each over random histories of at least 500 steps: docs/laws.md.

A law takes seeds and a number of steps and raises where it does not hold. ``make test`` tries a few seeds of each,
``python -m benchmarks laws --examples N`` thousands.
"""
