"""As whom a container runs: ids, names and the image's own /etc/passwd and /etc/group.

Follows containerd's CRI (`WithUser`, `WithAdditionalGIDs`): an id that no file knows is fine, a
name that none knows is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vk_provider.common.errors import Invalid

MAX_ID = 2**31 - 1


@dataclass(frozen=True)
class User:
    """Ids as in OCI's `process.user`; `groups` holds the primary group too."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True)
class _Passwd:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def resolve_user(
    image_user: str,
    passwd: str,
    group: str,
    *,
    run_as_user: int | None = None,
    run_as_group: int | None = None,
    supplemental_groups: Sequence[int] = (),
    strict_groups: bool = False,
) -> User:
    """Return the ids that a container's processes get.

    image_user: the image's `user[:group]`, names or numbers, "" for root. passwd, group: texts of
    the image's files, "" where it has none. strict_groups: take no groups from the image's file.
    Raises Invalid for names that the image does not know and for ids out of range.
    """
    name, _, group_name = image_user.partition(":")
    if run_as_user is not None:
        name, group_name = str(run_as_user), ""
    entry = _find_user(name or "0", list(_users(passwd)))
    groups = list(_groups(group))
    gid = _find_group(group_name, groups) if group_name else entry.gid
    if run_as_group is not None:
        gid = _in_range(run_as_group, "group")
    extra = list(supplemental_groups)
    if not strict_groups and entry.name:
        extra = [g.gid for g in groups if entry.name in g.members] + extra
    every = dict.fromkeys([gid, *(_in_range(g, "group") for g in extra)])
    return User(entry.uid, gid, tuple(every), entry.home)


def _find_user(text: str, users: list[_Passwd]) -> _Passwd:
    if text.isdecimal():
        uid = _in_range(int(text), "user")
        known = next((u for u in users if u.uid == uid), None)
        return known or _Passwd("", uid, 0, "/")
    known = next((u for u in users if u.name == text), None)
    if known is None:
        raise Invalid(f"the image has no user {text!r} in its /etc/passwd")
    return known


def _find_group(text: str, groups: list[_Group]) -> int:
    if text.isdecimal():
        return _in_range(int(text), "group")
    known = next((g for g in groups if g.name == text), None)
    if known is None:
        raise Invalid(f"the image has no group {text!r} in its /etc/group")
    return known.gid


def _in_range(number: int, kind: str) -> int:
    if not 0 <= number <= MAX_ID:
        raise Invalid(f"the {kind} id {number} is out of range (0 to {MAX_ID})")
    return number


def _users(text: str) -> Iterator[_Passwd]:
    for fields in _rows(text, 7):
        if fields[2].isdecimal() and fields[3].isdecimal():
            yield _Passwd(fields[0], int(fields[2]), int(fields[3]), fields[5] or "/")


def _groups(text: str) -> Iterator[_Group]:
    for fields in _rows(text, 4):
        if fields[2].isdecimal():
            yield _Group(fields[0], int(fields[2]), tuple(filter(None, fields[3].split(","))))


def _rows(text: str, columns: int) -> Iterator[list[str]]:
    """Yield the rows of a colon-separated file; short ones are filled up, as libc reads them."""
    for line in text.splitlines():
        row = line.strip()
        if row and not row.startswith("#"):
            fields = row.split(":")
            yield fields + [""] * (columns - len(fields))
