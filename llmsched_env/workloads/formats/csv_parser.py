"""Compiled parser of clean rows of comma-separated text; all other rows are left to the slow path of `csv_reader`."""

import numpy as np

from llmsched_env.compiled import compiled

SKIP, INTEGER, NUMBER, STAMP, LABEL = range(5)
"""Kinds of cells: not read, integer, number, time stamp (nanoseconds since 1970), text (its hash)."""

CLEAN, ODD = 0, 1
"""Outcome of a row: its cells are in the arrays, or it needs the slow path."""

FNV_BASIS, FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a, 64 bits

FIRST_YEAR, LAST_YEAR = 1900, 2150
"""Years whose nanoseconds since 1970, and their differences, an int64 holds."""

_COMMA, _NEWLINE, _RETURN, _SPACE, _QUOTE = 44, 10, 13, 32, 34
_ZERO, _NINE, _PLUS, _MINUS, _POINT, _COLON, _T, _Z = 48, 57, 43, 45, 46, 58, 84, 90
_EXACT = 1 << 53  # below it a mantissa is exact, so that one division by a power of ten rounds correctly
_TENS = tuple(10.0**k for k in range(23))


@compiled
def parse_rows(text, kinds, optional, ints, floats, defaults, rows, hard):
    """Parse the rows of `text`, which ends with a line feed.

    Args:
        text: u1[:], bytes of whole lines.
        kinds: i8[k], kind of each column.
        optional: u1[k], whether an empty cell means the default.
        ints: i8[n, k], filled for integers, time stamps and labels.
        floats: f8[n, k], filled for numbers.
        defaults: f8[k], value of an empty cell.
        rows: i8[n, 4], filled with (outcome, first byte, byte after the last, line counted from 0).
        hard: i8[m, 4], filled with (row, column, first byte, byte after the last) of numbers with too many digits to
            convert exactly here.

    Returns:
        (rows filled, numbers in `hard`, lines read, bytes read); it stops early when an array is full.
    """
    size, columns = len(text), len(kinds)
    n, m, line, p = 0, 0, 0, 0
    while p < size and n < len(rows) and m + columns <= len(hard):
        begin = p
        while p < size and text[p] != _NEWLINE:
            p += 1
        end, after = p, p + 1
        if end > begin and text[end - 1] == _RETURN:
            end -= 1
        if end > begin:
            rows[n, 0], rows[n, 1], rows[n, 2], rows[n, 3] = CLEAN, begin, end, line
            first_hard, q = m, begin
            for c in range(columns):
                stop = q
                while stop < end and text[stop] != _COMMA:
                    stop += 1
                last = c == columns - 1
                if (stop == end) != last or not _cell(
                    text, q, stop, kinds[c], optional[c], n, c, ints, floats, defaults[c]
                ):
                    if (stop == end) == last and kinds[c] == NUMBER and _is_decimal(text, q, stop):
                        hard[m, 0], hard[m, 1], hard[m, 2], hard[m, 3] = n, c, q, stop
                        m += 1
                    else:
                        rows[n, 0] = ODD
                        m = first_hard
                        break
                q = stop + 1
            n += 1
        line += 1
        p = after
    return n, m, line, p


@compiled
def mark_backward(times, latest, bad):
    """Mark the times below `latest` or below an unmarked one before them."""
    for i in range(len(times)):
        if times[i] < latest:
            bad[i] = True
        else:
            latest = times[i]


@compiled
def _cell(text, p, end, kind, optional, n, c, ints, floats, default):
    """Parse text[p:end] into row `n`, column `c`; return whether that was possible."""
    while p < end and text[p] == _SPACE:
        p += 1
    while end > p and text[end - 1] == _SPACE:
        end -= 1
    if kind in (SKIP, LABEL):
        digest = FNV_BASIS
        for k in range(p, end):
            if text[k] == _QUOTE:
                return False
            digest = (digest ^ np.uint64(text[k])) * FNV_PRIME
        ints[n, c] = np.int64(digest)
        return True
    if p == end:
        if not optional:
            return False
        floats[n, c] = default
        ints[n, c] = 0 if np.isnan(default) or np.isinf(default) else np.int64(default)
        return True
    if kind == INTEGER:
        return _integer(text, p, end, n, c, ints)
    if kind == NUMBER:
        return _number(text, p, end, n, c, floats)
    return _stamp(text, p, end, n, c, ints)


@compiled
def _digits(text, p, end):
    """(value, position after it) of the digits at `p`, at most 18 of them."""
    value, stop = 0, min(end, p + 18)
    while p < stop and _ZERO <= text[p] <= _NINE:
        value = value * 10 + text[p] - _ZERO
        p += 1
    return value, p


@compiled
def _integer(text, p, end, n, c, ints):
    negative = text[p] == _MINUS
    first = p + 1 if negative or text[p] == _PLUS else p
    value, stop = _digits(text, first, end)
    ints[n, c] = -value if negative else value
    return stop == end and stop > first


@compiled
def _number(text, p, end, n, c, floats):
    negative = text[p] == _MINUS
    if negative or text[p] == _PLUS:
        p += 1
    mantissa, digits, places, after_point = 0, 0, 0, False
    while p < end and digits < 19:
        if text[p] == _POINT and not after_point:
            after_point = True
        elif _ZERO <= text[p] <= _NINE:
            mantissa = mantissa * 10 + text[p] - _ZERO
            digits += mantissa > 0
            places += after_point
        else:
            return False
        p += 1
    if p < end or mantissa >= _EXACT or places > 22 or (digits == 0 and text[end - 1] != _ZERO):
        return False
    value = mantissa / _TENS[places]
    floats[n, c] = -value if negative else value
    return True


@compiled
def _is_decimal(text, p, end):
    """Whether text[p:end], stripped of spaces, is digits with at most one point and one exponent."""
    while p < end and text[p] == _SPACE:
        p += 1
    while end > p and text[end - 1] == _SPACE:
        end -= 1
    if p < end and (text[p] == _MINUS or text[p] == _PLUS):
        p += 1
    digits, after_point = 0, False
    while p < end:
        if text[p] == _POINT and not after_point:
            after_point = True
        elif _ZERO <= text[p] <= _NINE:
            digits += 1
        else:
            break
        p += 1
    if p < end and digits > 0 and (text[p] == 101 or text[p] == 69):  # e, E
        p += 1
        if p < end and (text[p] == _MINUS or text[p] == _PLUS):
            p += 1
        _, stop = _digits(text, p, end)
        return stop == end and stop > p
    return p == end and digits > 0


@compiled
def _two(text, p):
    """The number of two digits at `p`, or -1."""
    if not (_ZERO <= text[p] <= _NINE and _ZERO <= text[p + 1] <= _NINE):
        return -1
    return (text[p] - _ZERO) * 10 + text[p + 1] - _ZERO


@compiled
def _month_days(year, month):
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


@compiled
def _stamp(text, p, end, n, c, ints):
    """Parse YYYY-MM-DD hh:mm:ss with up to nine decimals and an offset from UTC."""
    if end - p < 19 or not (text[p + 4] == text[p + 7] == _MINUS and text[p + 13] == text[p + 16] == _COLON):
        return False
    if text[p + 10] != _SPACE and text[p + 10] != _T:
        return False
    century, of_century, month, day = _two(text, p), _two(text, p + 2), _two(text, p + 5), _two(text, p + 8)
    hour, minute, second = _two(text, p + 11), _two(text, p + 14), _two(text, p + 17)
    if min(century, of_century, hour, minute, second) < 0 or hour > 23 or minute > 59 or second > 59:
        return False
    year = century * 100 + of_century
    if not FIRST_YEAR <= year <= LAST_YEAR or not 1 <= month <= 12 or not 1 <= day <= _month_days(year, month):
        return False
    p += 19
    nanoseconds = 0
    if p < end and text[p] == _POINT:
        first = p + 1
        nanoseconds, p = _digits(text, first, min(end, first + 9))
        if p == first:
            return False
        for _ in range(9 - (p - first)):
            nanoseconds *= 10
    offset = 0
    if p < end:
        if text[p] == _Z and p + 1 == end:
            pass
        elif (text[p] == _PLUS or text[p] == _MINUS) and end - p == 6 and text[p + 3] == _COLON:
            hours, minutes = _two(text, p + 1), _two(text, p + 4)
            if min(hours, minutes) < 0 or hours > 23 or minutes > 59:
                return False
            offset = (hours * 60 + minutes) * (60 if text[p] == _PLUS else -60)
        else:
            return False
    # Days since 1970 of the proleptic Gregorian calendar, years counted from March (H. Hinnant, "chrono-Compatible
    # Low-Level Date Algorithms").
    if month <= 2:
        year -= 1
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    days = era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
    ints[n, c] = (days * 86400 + hour * 3600 + minute * 60 + second - offset) * 10**9 + nanoseconds
    return True
