"""Streaming protocols without I/O: bytes or messages in, events and bytes out.

Holds the WebSocket channel protocol, SPDY/3.1 and remote commands (exec, attach) as clients speak
them. Opens no socket, starts no task, knows neither pods nor the runtime; whoever owns a
connection feeds these and sends what they return.
"""
