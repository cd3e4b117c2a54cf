"""Probes: asking containers whether they started, live and are ready.

Checks run from the host (HTTP, TCP, gRPC to the pod's address) or in the guest (exec); results are
kept by container id. This room decides nothing: who is restarted or taken out of Services is for
the planner and the status. What containers answer is hostile: bounded in size and time.
"""
