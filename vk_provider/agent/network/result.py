"""CNI results, read (CNI specification, section 5)."""

from __future__ import annotations

import ipaddress
from typing import Any

from vk_provider.common.errors import Internal


def addresses_of(result: dict[str, Any], network: str) -> list[str]:
    """Return the pod's addresses with their prefix lengths, in the plugins' order.

    Those that the result assigns to an interface of the host are left out. Raises Internal
    for a result without an address, or with one that is none.
    """
    interfaces = result.get("interfaces") or []
    found = []
    for entry in result.get("ips") or []:
        try:
            index = entry.get("interface")
            if index is not None and not interfaces[index].get("sandbox"):
                continue
            found.append(str(ipaddress.ip_interface(entry["address"])))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as exc:
            raise Internal(f"the CNI network {network} reported no valid address: {entry}") from exc
    if not found:
        raise Internal(f"the CNI network {network} gave the pod no address")
    return found
