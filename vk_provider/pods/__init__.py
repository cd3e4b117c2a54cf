"""The kubelet's pod room: what to start, restart, probe, stop and report.

One worker a pod reads the desired state (the API object) and the observed one (the runtime's
records), asks pure planners what follows, and carries it out through `vk_provider.runtime`. Pods
are known by UID. Truth is derived, never remembered alone: after a restart the API and the
runtime's records say all that is needed. Refuses to know what a VM is, to serve requests, and to
call a pod failed because somebody did not answer.
"""
