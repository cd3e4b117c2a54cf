"""The seam to the agent: what the node may ask of whatever runs its pods.

Holds the `Runtime` protocol, its gRPC client, a faithful fake, and the rules by which ids are
made. The values at the seam are the generated messages of `sandbox.proto`; errors are the kinds of
`vk_provider.common.errors`. Refuses to know what a Kubernetes pod is, to decide anything, and to
import the agent.
"""
