"""Container logs on the host: CRI format, each line once and in order, rotated.

A `LogWriter` appends what the guest sends and hands back a cookie; after a restart the
guest's last cookie says where the file is to be cut. `read_logs` serves `kubectl logs`.
This room knows files and lines; it does not talk to guests, does not know when a container
has ended (a `LogFeed` is told), and reads nothing that it did not write.
"""

from __future__ import annotations

from vk_provider.agent.logs.feed import ENDED, LiveLog, LogFeed
from vk_provider.agent.logs.files import log_bytes, remove_logs
from vk_provider.agent.logs.reader import read_logs
from vk_provider.agent.logs.writer import LogWriter

__all__ = ["ENDED", "LiveLog", "LogFeed", "LogWriter", "log_bytes", "read_logs", "remove_logs"]
