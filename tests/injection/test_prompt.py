import pytest

from harald.errors import PromptError
from harald.injection.prompt import check_names, parse


def test_placeholders_are_found_with_their_names():
    prompt = parse("photo of <person:anna> and <person:ben> on a beach")
    assert prompt.names == ("anna", "ben")
    assert prompt.with_word("person") == "photo of person and person on a beach"
    assert [prompt.with_word("person")[a:b] for a, b in prompt.spans("person")] == ["person", "person"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the prompt is empty"),
        ("  ", "the prompt is empty"),
        ("a woman on a beach", "has no placeholder"),
        ("a <Person> on a beach", "malformed placeholder '<Person>'"),
        ("a <person on a beach", "malformed placeholder"),
        ("a <person:a b> on a beach", "malformed placeholder"),
        ("a </person>", "malformed placeholder"),
    ],
)
def test_unusable_prompts_say_what_is_wrong(text, says):
    with pytest.raises(PromptError, match=says):
        parse(text)


def test_every_placeholder_needs_a_file_and_every_file_a_placeholder():
    with pytest.raises(PromptError, match="no person file for <person:anna>"):
        check_names(parse("<person:anna> laughing"), {"ana"})
    with pytest.raises(PromptError, match=r"does not mention \['ben'\]"):
        check_names(parse("<person:anna> laughing"), {"anna", "ben"})
    check_names(parse("<person:anna> and <person:anna>"), {"anna"})


def test_leading_empty_lines_are_dropped_and_leading_spaces_stay():
    assert parse("\n \r\n  photo of <person>").texts[0] == "  photo of "
    assert parse(" <person>\nlaughing").texts == (" ", "\nlaughing")
