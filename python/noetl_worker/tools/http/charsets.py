"""The text encodings that a server may choose for its answer.

Of this list and no other: Python's codec of some names takes quadratic time (punycode: 27 s for 0.8 MB), fails on
anything (idna), or is none of text; each name that is looked up is kept for ever. Those here are the Encoding
Standard's, a codec's own name before its other ones.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ["codec_of", "decoded"]

_PIECE: Final = 1 << 18
_STATELESS: Final = frozenset({"utf-8", "ascii", "latin-1"})
"""Fast whatever the bytes are. The others call back for each byte that they cannot read."""
_LABELS: Final[Mapping[str, str]] = {
    "utf-8": "utf8 unicode-1-1-utf-8",
    "ascii": "us-ascii",
    "latin-1": "latin1 l1 iso-8859-1 iso8859-1 iso88591",
    "iso-8859-2": "iso8859-2 latin2",
    "iso-8859-3": "iso8859-3 latin3",
    "iso-8859-4": "iso8859-4 latin4",
    "iso-8859-5": "iso8859-5 cyrillic",
    "iso-8859-6": "iso8859-6 arabic",
    "iso-8859-7": "iso8859-7 greek",
    "iso-8859-8": "iso8859-8 iso-8859-8-i hebrew",
    "iso-8859-9": "iso8859-9 latin5",
    "iso-8859-10": "iso8859-10 latin6",
    "iso-8859-13": "iso8859-13",
    "iso-8859-14": "iso8859-14",
    "iso-8859-15": "iso8859-15 latin-9 latin9",
    "iso-8859-16": "iso8859-16",
    "cp437": "ibm437",
    "cp850": "ibm850",
    "cp852": "ibm852",
    "cp866": "ibm866",
    "cp874": "windows-874 dos-874 tis-620",
    **{f"cp125{last}": f"windows-125{last} x-cp125{last}" for last in range(9)},
    "koi8-r": "koi8",
    "koi8-u": "koi8-ru",
    "mac-roman": "macintosh x-mac-roman",
    "mac-cyrillic": "x-mac-cyrillic",
    "gbk": "gb2312 x-gbk cp936",
    "gb18030": "",
    "big5": "big5-hkscs x-x-big5 cn-big5",
    "euc-jp": "x-euc-jp",
    "iso-2022-jp": "csiso2022jp",
    "cp932": "shift-jis sjis x-sjis windows-31j ms932",
    "cp949": "euc-kr ks-c-5601-1987 korean windows-949",
    "utf-16": "unicode ucs-2",
    "utf-16-le": "utf-16le",
    "utf-16-be": "utf-16be",
    "utf-32": "",
    "utf-32-le": "utf-32le",
    "utf-32-be": "utf-32be",
}
_CODECS: Final = {label: codec for codec, labels in _LABELS.items() for label in (codec, *labels.split())}


def codec_of(charset: str) -> str | None:
    """The codec of a declared charset; None: it is not one that is read."""
    return _CODECS.get(charset.strip().lower().replace("_", "-"))


def decoded(data: bytes, codec: str, errors: str = "strict") -> str:
    """The text of `data`, read a piece at a time: another thread gets its turn in between.

    Raises:
        UnicodeDecodeError: where it is not in this encoding, with `start` in all of it.
    """
    if codec in _STATELESS or len(data) <= _PIECE:
        return data.decode(codec, errors)
    return "".join(_pieces(data, codec, errors))


def _pieces(data: bytes, codec: str, errors: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(codec)(errors)
    for start in range(0, len(data), _PIECE):
        end = min(start + _PIECE, len(data))
        try:
            yield decoder.decode(data[start:end], final=end == len(data))
        except UnicodeDecodeError as error:
            before = end - len(error.object)  # what the decoder had kept of earlier pieces is part of its object
            raise UnicodeDecodeError(codec, data, before + error.start, before + error.end, error.reason) from None
