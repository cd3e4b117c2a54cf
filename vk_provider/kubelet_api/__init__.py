"""The kubelet's HTTPS API: logs, exec, attach, pods, statistics, metrics, health.

Authenticates and authorizes each request as a kubelet does, translates between HTTP and the
runtime, and keeps the newest usage figures. Starts, stops and changes no pod, and keeps nothing
that a restart would lose.
"""
