"""The agent: runs sandboxes (one microVM each) and their containers on this host.

Serves `sandbox.proto` over a unix socket, keeps records before it acts on them, and adopts what
still runs after a restart. Refuses to know what a Kubernetes object is, to hold credentials of a
cluster, and to trust anything that a guest says.
"""
