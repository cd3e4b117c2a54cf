import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vk_provider.common.errors import FailedPrecondition, Invalid
from vk_provider.streaming.channels import V1, V4, V4_BASE64, V5, Channel
from vk_provider.streaming.remotecommand import (
    Resize,
    ResizeDecoder,
    Stdin,
    StdinClosed,
    StreamOptions,
    encode_status,
    exited,
    failed,
    parse_options,
    succeeded,
)
from vk_provider.streaming.websocket_command import WebSocketCommand

EVERYTHING = StreamOptions(stdin=True, stdout=True, stderr=True)


class TestOptions:
    def test_a_stream_is_asked_for_by_1(self) -> None:
        query = {"input": "1", "output": "true", "error": "1"}
        assert parse_options(query) == StreamOptions(stdin=True, stderr=True)

    def test_a_terminal_has_no_stderr(self) -> None:
        query = {"output": "1", "error": "1", "tty": "1"}
        assert parse_options(query) == StreamOptions(stdout=True, tty=True)

    @pytest.mark.parametrize("query", [{}, {"tty": "1"}, {"tty": "1", "error": "1"}])
    def test_one_stream_at_least(self, query: dict[str, str]) -> None:
        with pytest.raises(Invalid, match="at least 1 of stdin, stdout, stderr"):
            parse_options(query)


class TestOutcomes:
    def test_success_is_told_since_v4(self) -> None:
        told = encode_status(succeeded(), as_json=True)
        assert told is not None
        assert orjson.loads(told)["status"] == "Success"
        assert encode_status(succeeded(), as_json=False) is None

    def test_an_exit_code_is_a_cause(self) -> None:
        status = exited(7)
        assert status["reason"] == "NonZeroExitCode"
        assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]

    def test_old_clients_get_the_bare_text(self) -> None:
        assert encode_status(failed("no such thing"), as_json=False) == (
            b"Internal error occurred: no such thing"
        )


class TestResizes:
    SIZES = b'{"Width":80,"Height":24}\n{"width": 1,"height": 65535} {"Height":3}'

    @given(st.lists(st.integers(0, len(SIZES)), max_size=6))
    def test_wherever_the_stream_is_cut(self, cuts: list[int]) -> None:
        edges = [0, *sorted(cuts), len(self.SIZES)]
        decoder = ResizeDecoder()
        found = [
            size for a, b in itertools.pairwise(edges) for size in decoder.feed(self.SIZES[a:b])
        ]
        assert found == [Resize(80, 24), Resize(1, 65535), Resize(0, 3)]

    @pytest.mark.parametrize(
        "data", [b"80x24", b"[1]", b'{"Width":-1}', b'{"Width":70000}', b'{"Width":"8"}', b"\xff"]
    )
    def test_nonsense_is_refused(self, data: bytes) -> None:
        with pytest.raises(Invalid, match="terminal size"):
            ResizeDecoder().feed(data)

    def test_what_never_ends_is_not_kept(self) -> None:
        decoder = ResizeDecoder()
        with pytest.raises(Invalid, match="terminal size"):
            for _ in range(100):
                decoder.feed(b'{"Width"' if _ == 0 else b" " * 100)


class TestTranscripts:
    def test_v5_exec_with_stdin(self) -> None:
        command = WebSocketCommand(V5, EVERYTHING)
        assert command.opening() == b"\x01"
        assert command.receive(b"\x00hello") == [Stdin(b"hello")]
        assert command.output(Channel.STDOUT, b"HELLO") == b"\x01HELLO"
        assert command.receive(b"\xff\x00") == [StdinClosed()]
        assert command.receive(b"\xff\x00") == []
        assert command.receive(b"\x00late") == []
        assert command.output(Channel.STDERR, b"!") == b"\x02!"
        last = command.finish(exited(3))
        assert isinstance(last, bytes)
        assert last[:1] == b"\x03"
        assert orjson.loads(last[1:])["status"] == "Failure"

    def test_base64(self) -> None:
        command = WebSocketCommand(V4_BASE64, EVERYTHING)
        assert command.opening() == "1"
        assert command.receive("0aGk=") == [Stdin(b"hi")]
        assert command.output(Channel.STDERR, b"no") == "2bm8="

    def test_a_terminal_takes_sizes(self) -> None:
        command = WebSocketCommand(V4, StreamOptions(stdin=True, stdout=True, tty=True))
        assert command.receive(b'\x04{"Width":8,') == []
        assert command.receive(b'\x04"Height":9}') == [Resize(8, 9)]

    def test_no_terminal_takes_none(self) -> None:
        assert WebSocketCommand(V4, EVERYTHING).receive(b"\x04nonsense") == []

    def test_streams_that_were_not_asked_for_stay_closed(self) -> None:
        command = WebSocketCommand(V5, StreamOptions(stderr=True))
        assert command.opening() == b"\x02"
        assert command.receive(b"\x00secret") == []
        assert command.receive(b"\xff\x00") == []
        assert command.output(Channel.STDOUT, b"x") is None

    def test_without_output_the_error_channel_opens(self) -> None:
        assert WebSocketCommand(V5, StreamOptions(stdin=True)).opening() == b"\x03"

    @pytest.mark.parametrize("message", [b"\x01x", b"\x03x", b"\x09x", b"\xfex"])
    def test_channels_that_are_not_the_clients_are_dropped(self, message: bytes) -> None:
        assert WebSocketCommand(V5, EVERYTHING).receive(message) == []

    def test_success_before_v4_is_silence(self) -> None:
        assert WebSocketCommand(V1, EVERYTHING).finish(succeeded()) is None

    def test_nothing_follows_the_outcome(self) -> None:
        command = WebSocketCommand(V5, EVERYTHING)
        command.finish(succeeded())
        with pytest.raises(FailedPrecondition):
            command.output(Channel.STDOUT, b"x")
        with pytest.raises(FailedPrecondition):
            command.finish(succeeded())
