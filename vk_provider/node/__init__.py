"""The Node object: registered, kept true, kept alive by a Lease, made again when it is deleted.

Says to the cluster what the agent says of its host. Knows no pods, and decides nothing about them.
"""
