from otocod.domain.text import shown, unsafe_character


def test_shown_text_is_quoted_escaped_and_cut() -> None:
    assert shown('a"b\\c') == '"a\\"b\\\\c"'
    assert shown("\x1b[31m\u202e") == '"\\u001b[31m\\u202e"'
    assert shown("x" * 100, limit=5) == '"xxxxx…"'
    assert shown("é日🙂") == '"é日🙂"'


def test_unsafe_characters_are_found_and_ordinary_ones_are_not() -> None:
    assert unsafe_character("plain é 日 🙂") is None
    assert unsafe_character("a\tb") == "\t"
    assert unsafe_character("a\u2067b") == "\u2067"
    assert unsafe_character("a\ud800") == "\ud800"
