"""Names of classes, files and folders: check whether they can be printed, and escape the others."""

import unicodedata
from collections.abc import Sequence

_CONTROLS = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, of surrogates (a file name that is not UTF-8), and of line ends."""
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that change the direction of the text after them, so that a line can look like another."""


def printable(text: str) -> str:
    """Escape, as Python does, characters that cannot be shown or would control a terminal; line ends and tabs stay.

    Example:
        >>> printable("caf\\udce9 \\x1b[31m")
        'caf\\\\udce9 \\\\x1b[31m'
    """
    return "".join(_escaped(one) if _is_control(one) and one not in "\n\t" else one for one in text)


def as_text(name: str) -> str:
    """A file's name as text: bytes that are not UTF-8 are escaped; other names do not change.

    Example:
        >>> as_text("caf\\udce9")
        'caf\\\\xe9'
    """
    if name.isascii() or not any(unicodedata.category(one) == "Cs" for one in name):
        return name
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # not a file's name
        return printable(name)


def short_name(name: str, length: int = 32) -> str:
    """Shorten a long name, for example in a figure, to its beginning and its end.

    Example:
        >>> short_name("a very long name indeed", 11)
        'a ver…ndeed'
    """
    name = printable(name).replace("\n", "\\n").replace("\t", "\\t")
    if len(name) <= length:
        return name
    return f"{name[: length // 2]}…{name[len(name) - (length - 1 - length // 2) :]}"


def check_class_names(classes: Sequence[str]) -> None:
    """Refuse names that tables, figures and files could not show, before anything is trained on them.

    Raises:
        ValueError: a name is empty, is no UTF-8, or has control characters; or two names look the same.
    """
    seen: dict[str, str] = {}
    for name in classes:
        bad = next((one for one in name if _is_control(one)), None)
        if bad is not None or not name.strip():
            why = "is empty" if bad is None else _reason(bad)
            raise ValueError(
                f"the name of the class '{name.encode('unicode_escape').decode()}' {why}: rename it (its folder, "
                "where the classes are folders)"
            )
        alike = seen.setdefault(unicodedata.normalize("NFC", name), name)
        if alike is not name:
            raise ValueError(
                f"two classes look the same, {name!r}: their names are the same letters, written differently in "
                "Unicode: rename one, or put the images together"
            )


def _reason(character: str) -> str:
    if unicodedata.category(character) == "Cs":
        return "is no UTF-8"
    return f"has the control character U+{ord(character):04X}"


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in _CONTROLS or character in _TURNING


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
