"""What every room may use: kinds of error, quantities, the clock, logging.

Does no I/O of its own, knows no other room, and holds nothing that only one room needs.
"""
