"""A pod's status: made from facts by pure functions, written to the API by one writer a pod.

Follows kubelet `getPhase`, `convertToAPIContainerStatuses` and `status/generate.go`. Refuses to
decide what happens to a pod, and to touch what others own in its status.
"""
