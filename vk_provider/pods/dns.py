"""A pod's resolv.conf from dnsPolicy, dnsConfig and the host's own (kubelet network/dns)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from vk_provider.pods.podspec import Pod, describe, namespace_of
from vk_provider.pods.settings import PodSettings

MAX_NAMESERVERS = 3
MAX_SEARCHES = 32
MAX_SEARCH_CHARS = 2048
MAX_SEARCH_LENGTH = 253  # glibc 2.28 aborts on longer ones
_MAX_RESOLV_CONF = 10 * 1024 * 1024
_CLUSTER_OPTIONS = ("ndots:5",)


@dataclass(frozen=True, slots=True)
class PodDns:
    """What goes into resolv.conf, and what the pod's owner is to be warned of."""

    servers: tuple[str, ...]
    searches: tuple[str, ...]
    options: tuple[str, ...]
    warnings: tuple[tuple[str, str], ...] = field(default=())
    """(event reason, message) of Warning events."""

    def render(self) -> str:
        """Return the text of resolv.conf."""
        lines = []
        if self.searches:
            lines.append("search " + " ".join(self.searches))
        lines += [f"nameserver {server}" for server in self.servers]
        if self.options:
            lines.append("options " + " ".join(self.options))
        return "".join(line + "\n" for line in lines)


def pod_dns(pod: Pod, *, host_resolv_conf: str, settings: PodSettings) -> PodDns:
    """Return the pod's DNS; `host_resolv_conf` is the text of the host's file.

    ClusterFirst without a configured cluster DNS falls back to the host's, with a warning.
    """
    warnings: list[tuple[str, str]] = []
    servers, searches, options = parse_resolv_conf(host_resolv_conf)
    policy = pod["spec"].get("dnsPolicy") or "ClusterFirst"
    if policy == "None":
        servers, searches, options = [], [], []
    elif policy != "Default":
        if settings.cluster_dns:
            servers = list(settings.cluster_dns)
            searches = _cluster_searches(pod, settings, searches)
            options = list(_CLUSTER_OPTIONS)
        else:
            message = (
                f'pod: "{describe(pod)}". kubelet does not have ClusterDNS IP configured and '
                'cannot create Pod using "ClusterFirst" policy. Falling back to "Default" policy.'
            )
            warnings.append(("MissingClusterDNS", message))
    config = pod["spec"].get("dnsConfig") or {}
    if config:
        servers = _unique([*servers, *(config.get("nameservers") or ())])
        searches = _unique([*searches, *(config.get("searches") or ())])
        options = _merge_options(options, config.get("options") or ())
    return PodDns(
        tuple(_fit_servers(servers, warnings)),
        tuple(_fit_searches(searches, warnings)),
        tuple(options),
        tuple(warnings),
    )


def parse_resolv_conf(text: str) -> tuple[list[str], list[str], list[str]]:
    """Return (nameservers, searches, options); the last search line wins, options accumulate."""
    servers: list[str] = []
    searches: list[str] = []
    options: dict[str, str] = {}
    for line in text[:_MAX_RESOLV_CONF].splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "nameserver" and len(words) > 1:
            servers.append(words[1])
        elif words[0] == "search":
            searches = [word.removesuffix(".") for word in words[1:] if word != "."]
        elif words[0] == "options":
            options.update((word.split(":")[0], word) for word in words[1:])
    return servers, searches, list(options.values())


def _cluster_searches(pod: Pod, settings: PodSettings, host: list[str]) -> list[str]:
    domain = settings.cluster_domain
    if not domain:
        return host
    return _unique([f"{namespace_of(pod)}.svc.{domain}", f"svc.{domain}", domain, *host])


def _merge_options(options: list[str], added: Iterable[dict[str, str]]) -> list[str]:
    merged: dict[str, str] = {}
    for option in options:
        name, _, value = option.partition(":")
        merged[name] = value
    for extra in added:
        merged[extra.get("name", "")] = extra.get("value") or ""
    return [f"{name}:{value}" if value else name for name, value in merged.items()]


def _unique(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))


def _fit_servers(servers: list[str], warnings: list[tuple[str, str]]) -> list[str]:
    if len(servers) <= MAX_NAMESERVERS:
        return servers
    kept = servers[:MAX_NAMESERVERS]
    message = (
        "Nameserver limits were exceeded, some nameservers have been omitted, "
        f"the applied nameserver line is: {' '.join(kept)}"
    )
    warnings.append(("DNSConfigForming", message))
    return kept


def _fit_searches(searches: list[str], warnings: list[tuple[str, str]]) -> list[str]:
    kept = [one for one in searches[:MAX_SEARCHES] if len(one) <= MAX_SEARCH_LENGTH]
    while kept and len(" ".join(kept)) > MAX_SEARCH_CHARS:
        kept.pop()
    if len(kept) < len(searches):
        message = (
            "Search Line limits were exceeded, some search paths have been omitted, "
            f"the applied search line is: {' '.join(kept)}"
        )
        warnings.append(("DNSConfigForming", message))
    return kept
