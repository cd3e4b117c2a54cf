"""Benchmarks of what users wait for; each prints its figure with a floor or a peer of the same run.

Prints, and judges nothing: a timing is never a test's assertion.
"""
