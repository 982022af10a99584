"""The text encodings that a server may choose for its answer.

Only the listed codecs are used. Some other codecs of Python take quadratic time (punycode: 27 s for 0.8 MB) or fail on
ordinary text (idna). Others do not decode text at all. Python's codec registry caches each name that is looked up, for
ever. So this module first looks in Python's table of aliases, and asks the registry only for listed codecs.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from encodings.aliases import aliases
from typing import Final

from noetl_worker.process.threads import take_turns

_PIECE: Final = 1 << 18
_READ: Final = """
utf-8 utf-16 utf-16-le utf-16-be utf-32 utf-32-le utf-32-be ascii latin-1 iso8859-2 iso8859-3 iso8859-4 iso8859-5
iso8859-6 iso8859-7 iso8859-8 iso8859-9 iso8859-10 iso8859-13 iso8859-14 iso8859-15 iso8859-16 cp437 cp850 cp852 cp866
cp874 cp932 cp949 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 koi8-r koi8-u mac-roman mac-cyrillic
gbk gb18030 big5 euc-jp iso2022-jp
"""
_READ_AS: Final = """
gb2312:gbk big5hkscs:big5 cn-big5:big5 shift-jis:cp932 windows-31j:cp932 euc-kr:cp949 windows-949:cp949 tis-620:cp874
windows-874:cp874 dos-874:cp874 koi8:koi8-r koi8-ru:koi8-u unicode:utf-16 ucs-2:utf-16 unicode-1-1-utf-8:utf-8
iso88591:latin-1 iso-8859-8-i:iso8859-8 latin-9:iso8859-15
"""
"""Charset name in an answer -> codec to use. The table has names that Python does not know. It also has names under
which servers send a larger charset: `gb2312` is read as `gbk`."""
_CODECS: Final = {codec: codec for codec in _READ.split()} | dict(pair.split(":") for pair in _READ_AS.split())


def find_codec(charset: str) -> str | None:
    """Return the codec of a declared charset; None if it is not supported."""
    name = charset.strip().lower().replace("-", "_").removeprefix("x_").removeprefix("x_")
    return _CODECS.get(aliases.get(name, name).replace("_", "-"))


def decoded(data: bytes, codec: str, errors: str = "strict") -> str:
    """Decode `data` in pieces of 256 KiB, so that other threads can run in between.

    Raises:
        UnicodeDecodeError: the data is not in this encoding; `start` counts from the beginning of `data`.
    """
    if len(data) <= _PIECE:
        return data.decode(codec, errors)
    return "".join(_pieces(data, codec, errors))


def _pieces(data: bytes, codec: str, errors: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(codec)(errors)
    for start in range(0, len(data), _PIECE):
        take_turns()
        end = min(start + _PIECE, len(data))
        try:
            yield decoder.decode(data[start:end], final=end == len(data))
        except UnicodeDecodeError as error:
            before = end - len(error.object)  # error.object includes bytes kept from earlier pieces
            raise UnicodeDecodeError(codec, data, before + error.start, before + error.end, error.reason) from None
