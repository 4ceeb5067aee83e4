"""Fuzzing: inputs that are almost right, a million of them, for everything that reads what others send.

    seeds -> corpus -> mutate -> execute -> an outcome or lines never seen before? into the corpus : forgotten

A target (``target.py``) is a class with seeds, a mutation that knows the input's structure, and ``execute``, which raises for
what must not be. One seed is one run: the same inputs in the same order on every machine.
"""
