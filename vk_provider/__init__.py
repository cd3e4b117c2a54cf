"""Pods without nodes: a virtual kubelet that runs each pod as a microVM.

The rooms and who may import whom are described in ARCHITECTURE.md and kept by import-linter.
"""

__version__ = "0.1.0"
