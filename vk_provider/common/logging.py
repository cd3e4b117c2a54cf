"""Structured logs to standard error: for people on a terminal, JSON elsewhere."""

from __future__ import annotations

import logging
import sys
from typing import Any, cast

import structlog


def set_up(level: str = "info", json: bool | None = None) -> None:
    """Configure logging once for a process; `json` None: JSON unless stderr is a terminal."""
    as_json = (not sys.stderr.isatty()) if json is None else json
    renderer: Any = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a room, bound with its name."""
    return cast("structlog.stdlib.BoundLogger", structlog.get_logger(room=name))
