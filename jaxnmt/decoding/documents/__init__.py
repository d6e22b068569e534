"""Documents that are translated as a whole: PO, XLIFF, HTML and plain text, each by a module.

A document gives lines to translate, and is written with their translations. Everything else of it stays as it is, byte for byte.
"""

from __future__ import annotations

import os
import pathlib
import pkgutil

from jaxnmt.decoding.documents.document import Document
from jaxnmt.errors import UserError
from jaxnmt.io.text import existing_file, open_text, suffix_of

LARGEST = 32 << 20
"""The most bytes of a document, which is held in memory."""

_KINDS = {
    ".po": "po:Po",
    ".pot": "po:Po",
    ".xlf": "xliff:Xliff",
    ".xliff": "xliff:Xliff",
    ".html": "html:Html",
    ".htm": "html:Html",
    ".txt": "plain:Plain",
}


def open_document(
    name: str | os.PathLike[str], overwrite: bool = False, languages: tuple[str, str] = ("", ""), field: str = "document"
) -> Document:
    """Read a document. Its suffix says what it is.

    Args:
        name: the file, in UTF-8, plain or compressed. A PO file may have another encoding, which its header names.
        overwrite: also translate what has a translation.
        languages: the run's; "" if unknown. They are written into a document that has a place for them and does not name them.
        field: the setting that names the file, for messages.

    Raises:
        UserError: the file is missing, damaged, too large, or of a kind that is not known.
    """
    file = existing_file(os.fspath(name), field)
    suffix = suffix_of(file.name)
    if suffix not in _KINDS:
        kinds = f"{', '.join(list(_KINDS)[:-1])} or {list(_KINDS)[-1]}"
        raise UserError(f"{field}: {name} is not a document whose structure is known: name a file that ends in {kinds}")
    kind = pkgutil.resolve_name(f"{__name__}.{_KINDS[suffix]}")
    with open_text(file, field) as opened:
        data = opened.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise UserError(f"{field}: {name} has more than {LARGEST >> 20} MB: split it")
    return kind(data, f"{field}: {pathlib.PurePath(name)}", overwrite, languages)
