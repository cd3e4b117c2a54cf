"""The local cluster of hack/up and of the e2e tests: real control plane, registry, node and agent.

Starts and ends processes and writes their files below one folder. Holds nothing that the
product needs, and is never imported by it.
"""
