"""JSON text as RapidJSON reads and prints it; the messages and places are what RapidJSON itself gave."""

from __future__ import annotations

import json
import math
import random
import sys

import grpc
import numpy as np
import pytest

from serving import json_text
from serving.rpc import StatusError


def fault(body: bytes) -> str:
    with pytest.raises(StatusError) as raised:
        json_text.parse(body)
    assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT
    return raised.value.message


@pytest.mark.parametrize(
    ("body", "words", "offset"),
    [
        (b"  \n", "The document is empty.", 3),
        (b"\xef\xbb\xbf", "The document is empty.", 3),
        (b"instances = [1]", "Invalid value.", 0),
        (b'{"a": ', "Invalid value.", 6),
        (b"[1,]", "Invalid value.", 3),
        (b"[tru]", "Invalid value.", 4),
        (b"[nul", "Invalid value.", 4),
        (b"[-]", "Invalid value.", 2),
        (b"[Nan]", "Invalid value.", 3),
        (b"{a: 1}", "Missing a name for object member.", 1),
        (b'{"a":1, }', "Missing a name for object member.", 8),
        (b'{"a" 1}', "Missing a colon after a name of object member.", 5),
        (b'{"a": 1 "b"', "Missing a comma or '}' after an object member.", 8),
        (b'{"a": 1]', "Missing a comma or '}' after an object member.", 7),
        (b'{"a": [1, 2}', "Missing a comma or ']' after an array element.", 11),
        (b'[{"a": "]"} 2]', "Missing a comma or ']' after an array element.", 12),
        (b"[01]", "Missing a comma or ']' after an array element.", 2),
        (b'["\xc3\xa9" 2]', "Missing a comma or ']' after an array element.", 6),
        (b'"abc', "Missing a closing quotation mark in string.", 4),
        (b'["abc\0"]', "Missing a closing quotation mark in string.", 5),
        (b'{"a":"\\x"}', "Invalid escape character in string.", 6),
        (b'["a\nb"]', "Invalid escape character in string.", 3),
        (b'["\\u12g4"]', "Incorrect hex digit after \\u escape in string.", 2),
        (b'["\\ud83d\\ude00\\ud800"]', "The surrogate pair in string is invalid.", 14),
        (b'["\\ud800\\u0041"]', "The surrogate pair in string is invalid.", 2),
        (b'["\\udc00"]', "The surrogate pair in string is invalid.", 2),
        (b'["\\uD800", 1 2]', "The surrogate pair in string is invalid.", 2),
        (b"[1.]", "Miss fraction part in number.", 3),
        (b"[1e]", "Miss exponent in number.", 3),
        (b"[1e+]", "Miss exponent in number.", 4),
    ],
)
def test_what_does_not_parse(body, words, offset):
    assert fault(body) == f"JSON Parse error: {words} at offset: {offset}"


def test_an_empty_body_has_words_of_its_own():
    assert fault(b"") == "JSON Parse error: The document is empty"


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting(opening):
    assert fault(opening * 1_000_000) == "JSON Parse error: The document is nested too deeply."


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, -2.5, "x", true, null]} and more', {"a": [1, -2.5, "x", True, None]}),
        (b"\xef\xbb\xbf [1]", [1]),
        (b'{"a": 1, "b": 2, "a": 3}', {"a": 1, "b": 2}),
        (b'"\\ud83d\\ude00 \\\\ud800"', "\U0001f600 \\ud800"),
        (b'["\xff\xc3"]', ["\udcff\udcc3"]),
        (b"[18446744073709551615, -0]", [2**64 - 1, 0]),
    ],
)
def test_what_parses(body, value):
    assert json_text.parse(body).value == value


def test_constants_are_told_from_numbers_that_are_too_big():
    values = json_text.parse(b"[NaN, Infinity, -Infinity, 1e999]").value
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, math.inf]
    assert [type(value) for value in values] == [json_text.Constant] * 3 + [float]


@pytest.mark.parametrize(
    ("body", "offset"),
    [
        (b'["1e999", -1e999]', 10),
        (b"[1" + b"0" * 400 + b"]", 1),
        (b'{"\\"1e9999": 2, "x": 1e+400}', 21),
    ],
)
def test_numbers_that_are_too_big_where_they_are_used(body, offset):
    document = json_text.parse(body)
    with pytest.raises(StatusError) as raised, document.in_use():
        raise OverflowError
    words = "JSON Parse error: Number too big to be stored in double."
    assert raised.value.message == f"{words} at offset: {offset}"


def test_more_digits_than_python_converts():
    digits = b"9" * (sys.get_int_max_str_digits() + 1)
    assert fault(b"[1, " + digits + b"]").endswith("Number too big to be stored in double. at offset: 4")


def test_large_documents_are_read_like_small_ones():
    values = [{"x": [1, -2.5e-3, 10**17], "y": "é"}] * 25_000
    body = json.dumps(values).encode()
    assert len(body) > 1 << 20
    assert json_text.parse(body).value == values
    assert fault(body[:-1] + b" 1]").startswith("JSON Parse error: Missing a comma or ']'")


@pytest.mark.parametrize(
    ("value", "text", "name"),
    [
        (None, "null", "Null"),
        (True, "true", "True"),
        (False, "false", "False"),
        (17, "17", "Number"),
        (-(2**63), "-9223372036854775808", "Number"),
        (2**64, "1.84467441e+19", "Number"),
        (1.5, "1.5", "Number"),
        (3.0, "3.0", "Number"),
        (1e300, "1e+300", "Number"),
        (json_text.Constant("nan"), "NaN", "Number"),
        (-(10**400), "-Infinity", "Number"),
        ('a"\x1f\t', '"a\\"\\u001F\\t"', "String"),
        ([], "[]", "Array"),
        ({}, "{}", "Object"),
        ([1, [0.1]], "[\n    1,\n    [\n        0.1\n    ]\n]", "Array"),
        ({"a": {"b": []}}, '{\n    "a": {\n        "b": []\n    }\n}', "Object"),
    ],
)
def test_values_in_messages(value, text, name):
    assert json_text.shown(value) == text
    assert json_text.type_name(value) == name


def test_long_and_deep_values_are_cut_in_messages():
    deep = []
    for _ in range(900):
        deep = [deep]
    for value in (list(range(10_000)), "x" * 10_000_000, deep):
        shown = json_text.shown(value)
        assert len(shown) == 1024 + len("...TRUNCATED")
        assert shown.endswith("...TRUNCATED")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (9000000, "9e+06"),
        (999999, "999999.0"),
        (0.5, "0.5"),
        (0.0003, "0.0003"),
        (0.00003, "3e-05"),
        (555557.5, "555557.5"),
        (0.2, "0.2"),
        (3, "3.0"),
        (1 / 3, "0.333333343"),
        (16777216, "16777216.0"),
        (0, "0.0"),
        (-0.0, "-0.0"),
        (3.4028235e38, "3.40282347e+38"),
        (1e-45, "1.4013e-45"),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
    ],
)
def test_floats(number, text):
    assert json_text.decimals(np.array([number], np.float32)) == [text]


def test_doubles():
    numbers = np.array([0.2, 1 / 3, 3, 1e300, 5e-324, 123456.5, 0.1 + 0.2])
    texts = ["0.2", "0.33333333333333331", "3.0", "1e+300", "4.94066e-324", "123456.5"]
    assert json_text.decimals(numbers) == [*texts, "0.30000000000000004"]


@pytest.mark.parametrize(("dtype", "digits"), [(np.float32, 9), (np.float64, 17)])
def test_six_digits_are_printed_exactly_where_they_suffice(dtype, digits):
    chance = random.Random(1)
    bits = np.array([chance.getrandbits(8 * dtype().itemsize) for _ in range(10_000)], f"u{dtype().itemsize}")
    short = np.array(
        [
            float(f"{chance.uniform(-1, 1):.{chance.randint(1, 7)}g}e{chance.randint(-20, 20)}")
            for _ in range(10_000)
        ]
    )
    numbers = np.concatenate([bits.view(dtype), short.astype(dtype)])
    numbers = numbers[np.isfinite(numbers)]
    wanted = []
    for number in numbers:
        text = f"{number:.6g}"
        if dtype(text) != number:
            text = f"{number:.{digits}g}"
        wanted.append(text if "." in text or "e" in text else text + ".0")
    assert json_text.decimals(numbers) == wanted
    assert sum(len(text) < 9 for text in wanted) > 4000  # both kinds are there
    assert (np.array([dtype(text) for text in wanted]) == numbers).all()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 2), (0,), (2, 0), (0, 2), (2, 0, 2)])
@pytest.mark.parametrize("kept", [0, 1])
def test_arrays_have_their_shape(shape, kept):
    if kept > len(shape):
        return
    numbers = np.arange(math.prod(shape)).reshape(shape)
    for depth in (None, 0, 3):
        texts = json_text.arrays(list(map(str, numbers.reshape(-1))), shape, kept, depth)
        assert [json.loads(text) for text in texts] == (numbers.tolist() if kept else [numbers.tolist()])
    if not kept:  # at the outside, indentation is that of the standard library
        (text,) = json_text.arrays(list(map(str, numbers.reshape(-1))), shape, 0, 0)
        assert text == json.dumps(numbers.tolist(), indent=4)
        (text,) = json_text.arrays(list(map(str, numbers.reshape(-1))), shape, 0, None)
        assert text == json.dumps(numbers.tolist())
