"""The smallest patch from one status to another, as a strategic merge patch.

Only what the kubelet owns is named, so that conditions and fields of others stay. Lists that the
API merges by key (`podIPs`, `hostIPs`) are replaced as a whole; what a condition no longer has is
set to null, since an entry is merged field by field, and one that has gone is deleted by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vk_provider.pods.status.conditions import OWN

_MERGED_BY_KEY = {"podIPs", "hostIPs"}
_OWNED = (
    "phase",
    "reason",
    "message",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "observedGeneration",
    "containerStatuses",
    "initContainerStatuses",
    "ephemeralContainerStatuses",
)


def make_patch(
    uid: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    notes: Mapping[str, str] | None = None,
) -> dict[str, Any] | None:
    """Return the patch that makes `old` show `new`; None where it does already.

    The UID in it is a precondition: another pod of that name answers with a conflict. `notes` are
    annotations to set along with it.
    """
    changes: dict[str, Any] = {}
    for key in _OWNED:
        before, after = old.get(key), new.get(key)
        if not before and not after:
            continue
        if before != after:
            changes[key] = _replaced(key, after)
    conditions = _conditions(old.get("conditions") or (), new.get("conditions") or ())
    if conditions:
        changes["conditions"] = conditions
    if not changes and not notes:
        return None
    metadata: dict[str, Any] = {"uid": uid}
    if notes:
        metadata["annotations"] = dict(notes)
    return {"metadata": metadata, "status": changes}


def apply_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status that the API holds after the patch from `old` to `new`."""
    merged = {key: value for key, value in old.items() if key not in _OWNED}
    merged.update({key: new[key] for key in _OWNED if new.get(key)})
    own = {str(c["type"]): c for c in new.get("conditions") or () if c["type"] in OWN}
    others = [c for c in old.get("conditions") or () if c["type"] not in OWN]
    merged["conditions"] = [*others, *own.values()]
    return merged


def _replaced(key: str, value: Any) -> Any:
    if key in _MERGED_BY_KEY and value is not None:
        return [{"$patch": "replace"}, *value]
    return value


def _conditions(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    before = {str(c["type"]): c for c in old}
    changed = []
    for condition in new:
        if condition["type"] not in OWN:
            continue
        previous = before.get(str(condition["type"]), {})
        gone = {k: None for k, v in previous.items() if k not in condition and v is not None}
        if gone or any(previous.get(k) != v for k, v in condition.items()):
            changed.append({**condition, **gone})
    after = {condition["type"] for condition in new}
    changed += [
        {"type": type_, "$patch": "delete"}
        for type_ in before
        if type_ in OWN and type_ not in after
    ]
    return changed
