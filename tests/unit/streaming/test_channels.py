import pytest
from hypothesis import given
from hypothesis import strategies as st

from vk_provider.common.errors import Invalid
from vk_provider.streaming.channels import (
    SUBPROTOCOLS,
    UNNAMED,
    V1,
    V4,
    V4_BASE64,
    V5,
    Channel,
    ChannelClosed,
    ChannelData,
    Subprotocol,
    decode,
    encode,
    negotiate,
)


class TestNegotiation:
    @pytest.mark.parametrize(
        ("requested", "chosen"),
        [
            (["v5.channel.k8s.io", "v4.channel.k8s.io"], V5),
            (["v4.channel.k8s.io", "v5.channel.k8s.io"], V5),
            (["v4.channel.k8s.io", "channel.k8s.io"], V4),
            (["unheard.of", "v4.base64.channel.k8s.io"], V4_BASE64),
            (["channel.k8s.io"], V1),
            ([], UNNAMED),
        ],
    )
    def test_takes_v5_else_the_first_known(self, requested: list[str], chosen: Subprotocol) -> None:
        assert negotiate(requested) is chosen

    def test_refuses_when_none_is_known(self) -> None:
        with pytest.raises(Invalid, match=r"binary\.ws.*use one of v5\.channel\.k8s\.io"):
            negotiate(["binary.ws"])


@given(st.sampled_from(SUBPROTOCOLS), st.sampled_from(Channel), st.binary(max_size=300))
def test_what_is_encoded_is_decoded(protocol: Subprotocol, channel: Channel, data: bytes) -> None:
    message = encode(protocol, channel, data)
    assert isinstance(message, str) is protocol.text
    assert decode(protocol, message) == ChannelData(channel, data)


class TestDecoding:
    def test_as_the_documented_examples(self) -> None:
        assert decode(V1, b"\x00foo\n") == ChannelData(0, b"foo\n")
        assert decode(V4_BASE64, "0Zm9vCg==") == ChannelData(0, b"foo\n")
        assert encode(V4_BASE64, Channel.STDOUT, b"\n") == "1Cg=="

    def test_an_empty_message_says_nothing(self) -> None:
        assert decode(V5, b"") is None

    def test_text_is_taken_as_bytes_by_binary_protocols(self) -> None:
        assert decode(V4, "\x00héllo") == ChannelData(0, "héllo".encode())

    def test_v5_closes_one_channel(self) -> None:
        assert decode(V5, b"\xff\x00") == ChannelClosed(Channel.STDIN)

    def test_only_v5_has_a_close_signal(self) -> None:
        assert decode(V4, b"\xff\x00") == ChannelData(255, b"\x00")

    @pytest.mark.parametrize("message", [b"\xff", b"\xff\x00\x00", b"\xff\x09"])
    def test_a_close_signal_names_one_known_channel(self, message: bytes) -> None:
        with pytest.raises(Invalid, match="close signal"):
            decode(V5, message)

    def test_what_is_no_base64_is_refused(self) -> None:
        with pytest.raises(Invalid, match="not base64"):
            decode(V4_BASE64, "0§")
