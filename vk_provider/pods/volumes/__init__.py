"""A pod's volumes: what goes into them, and keeping that current while the pod runs.

Turns volume sources into the agent's typed volumes (files, scratch space, image) and sends new
content when an object or a token changes. It mounts nothing and writes no file: contents, secrets
among them, exist here only in memory and on their way to the guest's memory.
"""
