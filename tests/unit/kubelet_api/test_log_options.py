import pytest

from vk_provider.common.errors import Invalid
from vk_provider.kubelet_api.log_options import (
    LogOptions,
    Undecodable,
    parse_log_options,
    parse_time_ns,
)


class TestReading:
    def test_nothing_asked_is_the_whole_log(self) -> None:
        assert parse_log_options({}) == LogOptions()

    def test_everything(self) -> None:
        query = {
            "follow": "true",
            "previous": "false",
            "timestamps": "1",
            "sinceSeconds": "60",
            "tailLines": "0",
            "limitBytes": "1",
            "stream": "All",
            "insecureSkipTLSVerifyBackend": "true",
        }
        assert parse_log_options(query) == LogOptions(
            follow=True, timestamps=True, since_seconds=60, tail_lines=0, limit_bytes=1
        )

    @pytest.mark.parametrize(
        ("text", "value"),
        [("", True), ("yes", True), ("False", False), ("0", False), ("true", True)],
    )
    def test_flags_as_apimachinery_reads_them(self, text: str, value: bool) -> None:
        assert parse_log_options({"follow": text}).follow is value

    @pytest.mark.parametrize(("tail", "lines"), [("5", 5), ("all", None)])
    def test_the_old_name_of_tail_lines_wins(self, tail: str, lines: int | None) -> None:
        assert parse_log_options({"tail": tail, "tailLines": "9"}).tail_lines == lines

    @pytest.mark.parametrize(
        "query",
        [
            {"tailLines": "x"},
            {"limitBytes": ""},
            {"sinceSeconds": "1.5"},
            {"sinceTime": "yesterday"},
            {"sinceTime": "2026-02-30T00:00:00Z"},
            {"tailLines": "9" * 30},
        ],
    )
    def test_what_is_no_value_is_undecodable(self, query: dict[str, str]) -> None:
        with pytest.raises(Undecodable):
            parse_log_options(query)

    @pytest.mark.parametrize(
        "query",
        [
            {"tailLines": "-1"},
            {"limitBytes": "0"},
            {"sinceSeconds": "0"},
            {"sinceSeconds": "5", "sinceTime": "2026-01-01T00:00:00Z"},
            {"stream": "stdout"},
            {"stream": "Stderr", "tailLines": "1"},
        ],
    )
    def test_values_out_of_place_are_invalid(self, query: dict[str, str]) -> None:
        with pytest.raises(Invalid) as caught:
            parse_log_options(query)
        assert not isinstance(caught.value, Undecodable)


class TestTimes:
    @pytest.mark.parametrize(
        ("text", "time_ns"),
        [
            ("1970-01-01T00:00:01Z", 1_000_000_000),
            ("1970-01-01T01:00:01+01:00", 1_000_000_000),
            ("1970-01-01T00:00:00.000000001Z", 1),
            ("1970-01-01T00:00:00.1234567899Z", 123_456_789),
        ],
    )
    def test_to_the_nanosecond(self, text: str, time_ns: int) -> None:
        assert parse_time_ns(text) == time_ns

    def test_seconds_count_back_from_now(self) -> None:
        assert LogOptions(since_seconds=2).since_ns(10_000_000_000) == 8_000_000_000
        assert LogOptions(since_seconds=99).since_ns(10_000_000_000) == 1
        assert LogOptions(since_time_ns=5).since_ns(10) == 5
