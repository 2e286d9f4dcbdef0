"""Decide when two names mean the same: one rule for every text column, option and map.

Two spellings are *the same* if a reader cannot tell them apart: other Unicode normal forms, invisible characters, other kinds of
blanks, blanks at the ends. These are always taken as one name. Two spellings are *alike* if they may well mean the same, but need
not: upper and lower case, accents, umlauts as two letters, leading zeros, `.0`, `1E+03`, inner blanks, separators, quotes, "Last,
First", letters of other scripts that look the same, UTF-8 read as something else. Of these a person has to decide.
"""

import codecs
import html
import re
import unicodedata
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from speaker_invariant_ser.errors import shorten, shown

JOINERS = "\u200c\u200d"  # invisible, but scripts such as Bengali and Persian need them to look right
INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u3164\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # beside category Cf
DASHES = "\u2010-\u2015\u2212-"
QUOTES = "'`\"\u2018-\u201f\u2032\u2033\u02b9-\u02bd\u00ab\u00bb\u2039\u203a"
SEPARATORS = re.compile(  # what file systems, exports and keyboards put for each other; points and commas between digits are none
    rf"(?:[\s_{QUOTES}()\[\]{{}}<>|/\\:;*?!=+#@&%$~^\u00b7\u2022\u30fb{DASHES}]|(?<!\d)[.,]|[.,](?!\d))+"
)
SIGN = re.compile(rf"[{DASHES}](?=\d)")
SMALL = (  # letters of Cyrillic and Greek, of which the small ones or the capitals look like Latin letters
    "\u0430\u0432\u0435\u0455\u0456\u0458\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0501\u051b\u051d"
    "\u03b1\u03b2\u03b5\u03b6\u03b7\u03b9\u03ba\u03bc\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7"
)
LATIN = "abesijkmhopctyxdqwabezhikmnoptyx"
LOOKALIKES = str.maketrans(SMALL + SMALL.upper(), LATIN + LATIN.upper())
MARKS = re.compile("(?<=[a-z])[\u0300-\u036f]+")  # accents
POINTS = re.compile("[\u0591-\u05bd\u05bf-\u05c7\u0640\u064b-\u065f\u0670]")  # of Hebrew and Arabic, which are seldom written
STROKES = str.maketrans(  # no accents in Unicode; and two letters of Persian and Arabic keyboards
    {"ı": "i", "ł": "l", "ø": "o", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th", "\u064a": "\u06cc", "\u0643": "\u06a9"}
)
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})  # as two letters, where there are no others
LAST_FIRST = re.compile(r"([^\W\d][^,\d]*),\s*([^\W\d][^,\d]*)")
NUMPY = re.compile(r"np\.\w+\((.*)\)", re.DOTALL)  # how Python prints numbers and text of NumPy
PYTHON = re.compile(r"b?(['\"])(.*)\1", re.DOTALL)  # and bytes and text
ESCAPES = re.compile(r"\\(?:u([\da-fA-F]{4})|x([\da-fA-F]{2}))")  # of JSON and Python
MISREAD = {byte: byte for byte in range(256)}  # Windows-1252 and Latin-1, also mixed: character -> byte
MISREAD |= {ord(sign): byte for byte in range(128, 160) if (sign := bytes([byte]).decode("cp1252", "ignore"))}
ENCODINGS = (  # other ones that programs take UTF-8 for: of a Mac, DOS, and Windows in other countries
    *("mac_roman", "cp437", "cp850", "cp866", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp874"),
    *("gbk", "cp932", "cp949", "big5"),
)
LOST = re.compile("[?\ufffd]")  # what programs put for a letter that an encoding lacks
UNSURE = re.compile("[?\ufffd\u0080-\U0010ffff]+")  # runs of letters that may have been lost, or are
MANGLED = re.compile(r"\ufffd|(?<=\w)\?(?=\w)")
DECIMAL = re.compile(r"(-?\d+)[.,](\d*?)0*")
POWER = re.compile(r"([+-]?)(\d+)(?:[.,](\d+))?e\+?(\d{1,3})")  # as spreadsheets and R write 1000, or what they took for it
ROUNDED = re.compile(r"\d[.,](\d+)e\+(\d\d+)")
THOUSANDS = re.compile(r"([+-]?[1-9]\d{0,2})((?:[,' \u2019]\d{3})+)")
TELEPHONE = re.compile(rf"[+0](?:[\s().,/{DASHES}]*\d){{7,}}")
MISSING = frozenset(
    (
        *("", "nan", "nat", "none", "null", "nil", "na", "n/a", "#n/a", "undefined", "missing", "tbd", "tba", "todo"),
        *("not available", "not applicable", "unlabelled", "unlabeled", "unannotated", "no label", "\\n", "n/d"),
        *("not labelled", "not labeled", "not annotated", "not rated", "unrated", "unassigned", "not assigned", "not set"),
        *("no value", "no data", "no annotation", "pending"),
        *("keine angabe", "nicht verfügbar", "non disponible", "non renseigné", "no disponible", "non disponibile"),
        *("não disponível", "niet beschikbaar", "brak danych", "нет данных", "н/д"),
    )
)
PLACEHOLDER = re.compile(rf"[?._\u2026{DASHES}]+|#(?:name|null|num|ref|value|div/0)[!?]")  # signs; errors of spreadsheets
DOUBTFUL = frozenset(  # also abbreviations of "not specified" that may be somebody's initials
    (
        *("unknown", "unk", "other", "others", "oth", "unsure", "unclear", "ambiguous", "mixed", "xxx", "k.a.", "n.d.", "s.d."),
        *("unspecified", "notspecified", "blank", "empty", "anonymous", "anonym", "anonyme", "withheld", "private", "restricted"),
        *("unavailable", "guest", "nobody", "noname", "n.n.", "multiple", "several", "various"),
        *("unbekannt", "inconnu", "inconnue", "desconocido", "desconocida", "desconhecido", "sconosciuto", "onbekend"),
        *("nieznany", "неизвестно", "不明", "未知", "sonstige", "sonstiges", "andere", "autre", "otro", "altro"),
        *("na", "n-a"),  # N_A or N-A: folders for n/a, whose names cannot have a slash
    )
)

WHOLE = re.compile(rf"([{DASHES}]?)(\d{{1,18}})(?:[.,]0+)?")


def is_missing(text: str) -> bool:
    """Return whether a cell is empty or holds what programs and people write for a missing value.

    >>> [is_missing(text) for text in ("", "NaN", "n.a.", "\u2013", "TBD", "#REF!", "(none)", "[null]", "'-'", "()")]
    [True, True, True, True, True, True, True, True, True, True]
    >>> [is_missing(text) for text in ("Nana", "none of these", "unknown", "-1")]
    [False, False, False, False]
    """
    word = same_key(text).casefold().strip(" ()[]<>'\"")  # also in brackets or quotes
    return word.replace(".", "").replace("_", " ").strip() in MISSING or bool(PLACEHOLDER.fullmatch(word))


def doubtful(values: Iterable[str]) -> set[str]:
    """Return the names that probably say that the name is not known: some words, codes such as -1 or 999, and rounded numbers.

    >>> sorted(doubtful(["1", "2", "-1", "Unknown", "K. A.", "N_A"])), doubtful(["-1", "0", "1"]), doubtful(["98", "99"])
    (['-1', 'K. A.', 'N_A', 'Unknown'], set(), set())
    """
    texts = {value: same_key(value).casefold().replace(" ", "") for value in set(values)}
    numbers = {value: int("-" * bool(match[1]) + match[2]) for value, text in texts.items() if (match := WHOLE.fullmatch(text))}
    ordered = sorted(set(numbers.values()))
    codes = {value for value, number in numbers.items() if is_code(number, ordered)}
    codes |= {value for value in texts if MANGLED.search(value)}
    return codes | {value for value, text in texts.items() if text.replace("_", "") in DOUBTFUL or is_rounded(text)}


def is_code(number: int, ordered: list[int]) -> bool:
    """Return whether a number looks like a code for a missing value among different numbers, which are sorted and include it.

    That is the only negative number, but for a scale such as -1, 0, 1; and 99, 999 ... far above every other number.
    """
    below = ordered[: ordered.index(number)]
    if number < 0:
        return not below and all(other >= 0 for other in ordered[1:]) and ordered[-1] != -number
    return number > 9 and set(str(number)) == {"9"} and number == ordered[-1] and all(2 * other < number for other in below)


def is_rounded(text: str) -> bool:
    """Return whether a spreadsheet has rounded a long number to this, so that different ones may have become one.

    >>> is_rounded("4.91701e+11"), is_rounded("1.5e+01"), is_rounded("1e+05")
    (True, False, False)
    """
    match = ROUNDED.fullmatch(text)
    return match is not None and int(match[2]) > len(match[1])


def clean(text: str) -> str:
    """Return a name in the normal form NFC, without invisible characters or blanks at the ends; joiners stay.

    >>> clean(" o\u0308\u200b ") == "\u00f6"
    True
    """
    if text.isascii() and text.isprintable():
        return text.strip()
    visible = (c for c in INVISIBLE.sub("", text) if unicodedata.category(c) != "Cf" or c in JOINERS)
    plain = "".join(" " if c.isspace() else c for c in visible)
    return unicodedata.normalize("NFC", plain).strip().strip(JOINERS)


def same_key(text: str) -> str:
    """Return a text that is equal for the same names."""
    name = clean(text)
    return name if name.isascii() else unicodedata.normalize("NFC", name.replace("\u200c", "").replace("\u200d", "")).strip()


def file_key(name: str) -> str:
    """Return a text that is equal for names of files that a file system may take as one: they differ in case or form alone.

    >>> file_key("Anna") == file_key("anna"), file_key("A\N{COMBINING RING ABOVE}") == file_key("\N{ANGSTROM SIGN}")
    (True, True)
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def alike_key(text: str) -> str:
    """Return a text that is equal for names that are the same or alike, but for names with a second spelling (`alike_among`).

    >>> alike_key("Anna B") == alike_key("annab"), alike_key("s03") == alike_key("S3"), alike_key("3.0") == alike_key("3")
    (True, True, True)
    >>> alike_key("spk_1") == alike_key("spk-01") == alike_key("SPK 1"), alike_key("1_1") == alike_key("1-1")
    (True, True)
    >>> alike_key("1 1") == alike_key("11"), alike_key("1.05") == alike_key("1.5"), alike_key("-1") == alike_key("1")
    (False, False, False)
    >>> alike_key("\u0130rem") == alike_key("irem"), alike_key("Ren\u00e9e") == alike_key("Renee")
    (True, True)
    >>> alike_key("+49 (30) 12345") == alike_key("0049 30 12345"), alike_key("1.00E+03") == alike_key("1,000") == alike_key("1e3")
    (True, True)
    """
    name = without_escapes(text.strip(" \t").replace("\u00b4", "'"))  # an acute accent by itself
    name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", same_key(name)).casefold())
    if not name.isascii():
        name = "".join(str(unicodedata.decimal(c, c)) for c in latin(name))
        name = POINTS.sub("", MARKS.sub("", unicodedata.normalize("NFD", name)))
        name = unicodedata.normalize("NFC", name.translate(STROKES))
    if TELEPHONE.fullmatch(name):
        return re.sub(r"\D", "", name).lstrip("0")
    name = without_notation(name)
    name = ("-" if SIGN.match(name) else "") + SEPARATORS.sub(" ", name)
    name = re.sub(r"(?<!\d) +| +(?!\d)", "", name)  # between two digits one stays
    if match := DECIMAL.fullmatch(name):
        name = f"{match[1]}.{match[2]}".rstrip(".")
    return re.sub(r"(?<!\d)(?<!\d[.,])0+(?=\d)", "", name)


def without_escapes(text: str) -> str:
    r"""Return a text without what exports, programs and encodings make of its letters.

    >>> {without_escapes(text) for text in ("M\u00c3\u00bcller", "M\u221a\u00baller", "M&amp;uuml;ller", "M%C3%BCller")}
    {'Müller'}
    >>> without_escapes(r"M\u00fcller"), without_escapes(r"b'M\xc3\xbcller'"), without_escapes("np.int64(3)")
    ('Müller', 'Müller', '3')
    """
    for _ in range(4):  # some are written twice
        before, text = text, urllib.parse.unquote(html.unescape(text))
        for printed in (NUMPY, PYTHON):
            text = match[match.lastindex or 0] if (match := printed.fullmatch(text)) else text
        text = as_utf8(ESCAPES.sub(lambda match: chr(int(match[1] or match[2], 16)), text))
        if text == before:
            break
    return text


def as_utf8(text: str) -> str:
    """Return what UTF-8 says that was read as another encoding; other text, which is hardly ever valid UTF-8 then, as it is."""
    for encoding in () if text.isascii() else ("", *ENCODINGS):
        try:
            return (text.encode(encoding) if encoding else codecs.charmap_encode(text, "strict", MISREAD)[0]).decode("utf-8")
        except ValueError:
            continue
    return text


def without_notation(text: str) -> str:
    """Return a number that is written with an exponent or separated thousands as digits; other text as it is.

    >>> [without_notation(text) for text in ("1.00e+03", "12e1", "0e7", "1,000", "1 000 000", "1.000")]
    ['1000', '120', '0e7', '1000', '1000000', '1.000']
    """
    if match := THOUSANDS.fullmatch(text):
        return match[1] + re.sub(r"\D", "", match[2])
    match = POWER.fullmatch(text)
    digits = (match[2] + (match[3] or "")).lstrip("0") if match else ""
    if not match or not digits:  # 0e7 and 0e8 are rather ids in base 16
        return text
    zeros = int(match[4]) - len(match[3] or "")
    short = digits.rstrip("0")
    zeros += len(digits) - len(short)
    return match[1] + (short + "0" * zeros if zeros >= 0 else f"{short}e{zeros}")


def alike_keys(text: str) -> dict[str, None]:
    """Return all keys of a name, `alike_key` first: also with umlauts as two letters, and with the first name first.

    >>> list(alike_keys("M\u00fcller")), list(alike_keys("Doe, Jo"))
    (['muller', 'mueller'], ['doejo', 'jodoe'])
    """
    reordered = LAST_FIRST.fullmatch(text.strip())
    orders = [text, f"{reordered[2]} {reordered[1]}"] if reordered else [text]
    plain = [unicodedata.normalize("NFC", without_escapes(order.strip(" \t")).casefold()) for order in orders]
    orders += [spelled for order in plain if (spelled := order.translate(UMLAUTS)) != order]
    return dict.fromkeys(map(alike_key, orders))


def alike_among(names: Iterable[str]) -> Callable[[str], str]:
    """Return a function to a text that is equal for names that are alike, directly or by others of these names.

    >>> key = alike_among(["M\u00fcller", "Mueller", "Muller", "Joe", "Jo"])
    >>> key("M\u00fcller") == key("Mueller") == key("Muller"), key("Joe") == key("Jo")
    (True, False)
    """
    keys = {name: list(alike_keys(name)) for name in set(names)}
    joined: dict[str, str] = {}

    def root(key: str) -> str:
        while key in joined:
            key = joined[key]
        return key

    for first, *others in [*keys.values(), *by_lost_letters(keys)]:
        for other in others:
            if root(other) != root(first):
                joined[root(other)] = root(first)
    return lambda name: root(keys[name][0] if name in keys else alike_key(name))


def by_lost_letters(keys: Mapping[str, list[str]]) -> Iterator[list[str]]:
    """Yield a key of each name in groups that may be one name, of which some spellings have lost letters, as `M?ller`.

    >>> list(by_lost_letters({"M?ller": ["a"], "M\u00fcller": ["b"], "M\u00f6ller": ["c"], "Miller": ["d"]}))
    [['a', 'b', 'c']]
    """
    groups = defaultdict(list)
    for name in keys:
        groups[UNSURE.sub("\0", same_key(name))].append(name)
    for kept, group in groups.items():
        if kept.strip("\0") and len(group) > 1 and any(map(LOST.search, group)):
            yield [keys[name][0] for name in group]


def latin(text: str) -> str:
    """Return a text with Latin letters in place of Cyrillic and Greek ones that look like them.

    >>> latin("\u0430nn\u0430"), latin("\u039d\u0430t")
    ('anna', 'Nat')
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).translate(LOOKALIKES))


def one_spelling(names: Iterable[str], key: Callable[[str], str] = same_key) -> dict[str, str]:
    """Choose one spelling for all names with the same key: the most frequent, of equally frequent ones the first in order.

    Args:
        names: Names, as often as they occur.
        key: `same_key`, or of `alike_among`.

    Returns:
        Each distinct name -> its chosen spelling, cleaned.

    >>> one_spelling(["anna", "Anna", "Anna"], alike_among(["anna", "Anna"]))
    {'anna': 'Anna', 'Anna': 'Anna'}
    """
    counts = Counter(names)
    spellings: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, count in counts.items():
        spellings[key(name)][clean(name)] += count
    chosen = {k: min(group, key=lambda name: (-group[name], name)) for k, group in spellings.items()}
    return {name: chosen[key(name)] for name in counts}


def groups(names: Iterable[str], key: Callable[[str], str] | None = None) -> list[list[str]]:
    """Return the groups of several distinct names with the same key, or that are alike, each sorted.

    >>> groups(["3", "anna", "03", "bob", "Anna"])
    [['03', '3'], ['Anna', 'anna']]
    """
    names, by_key = set(names), defaultdict(set)
    key = key or alike_among(names)
    for name in names:
        by_key[key(name)].add(name)
    return sorted(sorted(group) for group in by_key.values() if len(group) > 1)


def describe_groups(alike: Iterable[Iterable[str]], maximum: int = 5) -> str:
    r"""Return groups of spellings in words; those that look the same are written as escapes.

    >>> describe_groups([["03", "3"], ["Anna", "anna"]])
    "'03' and '3', 'Anna' and 'anna'"
    >>> print(describe_groups([["a  b", "a b"]]))
    'a \x20b' and 'a b'
    """
    return shorten((" and ".join(quoted(group)) for group in map(list, alike)), maximum)


def quoted(names: list[str]) -> list[str]:
    """Return names in quotation marks, as escapes where they are the same to the eye."""
    hidden = len({latin(" ".join(same_key(name).split())) for name in names}) < len(names)
    return [ascii(name).replace("  ", r" \x20") if hidden else f"'{name}'" for name in names]


def find(name: str, known: Iterable[str]) -> str:
    """Return the spelling among known names that is the same as `name`; `name` itself if none or several are.

    >>> find("Jo\u0308rg", ["J\u00f6rg", "Anna"]) == "J\u00f6rg"
    True
    """
    known = list(known)
    if name in known:
        return name
    same = [other for other in known if same_key(other) == same_key(name)]
    return same[0] if len(same) == 1 else name


def contains(names: Collection[str], name: str) -> bool:
    """Return whether a name, in any spelling that is the same, is among `names`."""
    return name in names or any(same_key(other) == same_key(name) for other in names)


def segment_id(path: str, start: float, end: float) -> str:
    """Return the id of an utterance without one: its path, and the segment if it is not the whole file."""
    return f"{path}@{start:.12g}-{end:.12g}" if start or end else path


def number_of(cell: str) -> float:
    """Return a cell as a number; raise ValueError for other text, also for what Python alone takes as a number.

    >>> number_of("1.5e3")
    1500.0
    >>> number_of("1_000")
    Traceback (most recent call last):
    ValueError: '1_000' is no number
    """
    if "_" in cell or not cell.isascii():
        raise ValueError(f"{shown(cell)} is no number")
    return float(cell)


def is_utf8(text: str) -> bool:
    """Return whether a text can be encoded in UTF-8; undecodable bytes, which Python keeps as surrogates, cannot."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
