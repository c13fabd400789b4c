import pytest

from otocod.domain.strict_json import MAX_BYTES, JsonNumber, NotJson, Reasons, joined, read_json


@pytest.mark.covers("F104", "F106")
def test_numbers_stay_text_however_large() -> None:
    digits = "9" * 5000
    read = read_json(f'{{"a": 1e400, "b": {digits}, "c": 9007199254740993, "d": NaN}}', Reasons())
    assert read == {
        "a": JsonNumber("1e400"),
        "b": JsonNumber(digits),
        "c": JsonNumber("9007199254740993"),
        "d": JsonNumber("NaN"),
    }


@pytest.mark.covers("F106")
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"a": 1}}', "not JSON"),
        ('{"a": "\x00"}', "not JSON"),
        ("[" * 60_000, "nested deeper"),
        ('{"a":' * 20 + "1" + "}" * 20, "nested deeper"),
        ('"' + "x" * MAX_BYTES + '"', "larger than 64 KiB"),
        ('"' + "é" * (MAX_BYTES // 2) + '"', "larger than 64 KiB"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(text: str, told: str) -> None:
    with pytest.raises(NotJson, match=told) as refused:
        read_json(text, Reasons())
    assert "\n" not in refused.value.reason


def test_brackets_inside_a_text_are_no_depth() -> None:
    assert read_json('{"a": "\\"[[[[[[[[[[[[[[[[[[[[[[{{{{"}', Reasons()) == {"a": '"[[[[[[[[[[[[[[[[[[[[[[{{{{'}


def test_largest_text_is_read() -> None:
    reasons = Reasons()
    assert isinstance(read_json('"' + "x" * (MAX_BYTES - 2) + '"', reasons), str)
    assert not reasons


def test_duplicate_keys_are_named_with_their_path_at_any_depth() -> None:
    reasons = Reasons()
    read_json('{"a": 1, "b": [{"c": 1, "c": 2}], "a": 3}', reasons)
    assert reasons.lines == (
        "b[0].c: the key stands twice: keep one",
        "a: the key stands twice: keep one",
    )


@pytest.mark.covers("F106", "F117")
@pytest.mark.parametrize("unsafe", ["\\u0000", "\\u001b", "\\n", "\\u202e", "\\ud800", "\\u2028", "\\u0085"])
def test_unsafe_characters_are_refused_in_texts_and_keys_and_never_shown(unsafe: str) -> None:
    for text in (f'{{"a": "x{unsafe}y"}}', f'{{"x{unsafe}y": "a"}}'):
        reasons = Reasons()
        read_json(text, reasons)
        assert len(reasons.lines) == 1
        assert reasons.lines[0].isprintable()


def test_reasons_are_bounded_and_the_rest_counted() -> None:
    reasons = Reasons()
    for number in range(60):
        reasons.add("a", f"reason {number}")
    reasons.add("a", "reason 0")
    assert len(reasons.lines) == 51
    assert reasons.lines[-1] == "and 10 more"


def test_path_of_a_strange_key_is_quoted_and_cut() -> None:
    assert joined("entry", "price") == "entry.price"
    assert joined("", "a b") == '"a b"'
    assert len(joined("tags", "x" * 1000)) < 80
