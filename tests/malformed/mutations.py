"""Files that went wrong: bytes lost, doubled or changed, and values of JSON replaced by others."""

import copy
import json

_VALUES = (
    None,
    True,
    -1,
    0,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    -float("inf"),
    2**63,
    -(2**64),
    10**400,
    "",
    "x",
    "1",
    "nan",
    "\udcff\x00",
    "9" * 5000,
    [],
    {},
    [[]],
    [None],
    [1, 2, 3],
    {"a": {"b": [1]}},
)
_TEXTS = (
    b"\x00",
    b"\xff\xfe",
    b'"',
    b"\n",
    b"\r",
    b",",
    b"{",
    b"}",
    b"[[[",
    b"]",
    b"1e999",
    b"-",
    b"9" * 400,
    b"NaN",
    b"#",
)
_DEEP = 990  # just below and far above what a parser can nest
_DEEPER = 100_000


def mutated(text, rng):
    """A damaged copy of a file's bytes; JSON and JSON lines are damaged in their values too."""
    if rng.random() < 0.5:
        lines = text.split(b"\n")
        documents = [text] if _parsed(text) is not None else lines
        k = int(rng.integers(len(documents)))
        value = _parsed(documents[k])
        if value is not None:
            documents = list(documents)
            documents[k] = _dumped(_changed(value, rng), rng)
            return b"\n".join(documents)
    data = bytearray(text)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(data) + 1))
        kind = int(rng.integers(6))
        if kind == 0:
            data[at : at + int(rng.integers(1, 30))] = b""
        elif kind == 1:
            data[at:at] = _TEXTS[int(rng.integers(len(_TEXTS)))]
        elif kind == 2:
            data[at : at + 1] = bytes([int(rng.integers(256))])
        elif kind == 3:
            data[at:at] = data[max(0, at - 200) : at]
        elif kind == 4 and rng.random() < 0.2:
            del data[at:]
        else:
            data[at : at + 3] = str(int(rng.integers(-(10**12), 10**12))).encode()
    return bytes(data)


def _parsed(text):
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict | list) and value else None


def _changed(value, rng):
    value = copy.deepcopy(value)
    for _ in range(int(rng.integers(1, 4))):
        place, key = _place(value, rng)
        kind = rng.random()
        if kind < 0.2:
            del place[key]
        elif kind < 0.3 and isinstance(place, list):
            place.insert(key, copy.deepcopy(place[key]))
        elif kind < 0.4 and isinstance(place[key], float):
            place[key] = place[key] * float(10.0 ** rng.integers(-12, 13))
        elif kind < 0.4 and isinstance(place[key], int):
            place[key] = place[key] * 10 ** int(rng.integers(1, 25))
        else:
            place[key] = copy.deepcopy(_VALUES[int(rng.integers(len(_VALUES)))])
        if not value:
            break
    return value


def _place(value, rng):
    """A random container in `value` and a key of it."""
    while True:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = keys[int(rng.integers(len(keys)))]
        inner = value[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.15:
            return value, key
        value = inner


def _dumped(value, rng):
    text = json.dumps(value)
    if rng.random() < 0.05 and '"' in text:
        depth = _DEEP if rng.random() < 0.5 else _DEEPER
        at = text.find(": ") + 2
        deep = "[" * depth + "]" * depth
        text = f'{text[:at]}{deep}, "b": {text[at:]}' if rng.random() < 0.7 else deep
    return text.encode("utf-8", "surrogatepass")
