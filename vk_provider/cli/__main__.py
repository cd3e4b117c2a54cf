"""`python -m vk_provider.cli`: the same as `vk-provider`."""

from vk_provider.cli import main

main()
