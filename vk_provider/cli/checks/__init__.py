"""What `vk-provider doctor` looks at: each check finds out one thing and says how to mend it.

Checks change nothing: what they try out (a guest under KVM, a network namespace) they remove.
"""
