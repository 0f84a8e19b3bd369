"""Message catalogues of the console: collect, compile, check.

templates, modules ── collect ── locale/zh_CN/LC_MESSAGES/console.po ── compile ── console.mo

translations.py update    brings the .po up to date with the code (new messages come untranslated)
translations.py compile   writes the .mo, which is committed: an installation needs no Babel
translations.py check     exit 1 when a message has no translation, or the .mo is old
"""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

CONSOLE = Path(__file__).resolve().parent.parent / "gateway" / "console"
CATALOGUE = CONSOLE / "locale" / "zh_CN" / "LC_MESSAGES" / "console.po"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
SOURCES = [("templates/**.html", "jinja2"), ("static/js/**.js", "javascript")]


def collect() -> Catalog:
    """Every message of templates and modules."""
    catalogue = Catalog(project="hazard-gateway", charset="utf-8")
    found = extract_from_dir(
        CONSOLE, SOURCES, options_map={"templates/**.html": {"trimmed": "true"}}
    )
    for name, _line, message, comments, context in sorted(found, key=lambda row: row[:2]):
        # Files without line numbers: a catalogue that changes with every edit is not reviewed.
        catalogue.add(message, None, [(name, 0)], auto_comments=comments, context=context)
    return catalogue


def stored() -> Catalog:
    """The committed catalogue, its header without what changes by itself."""
    with CATALOGUE.open("rb") as file:
        catalogue = read_po(file, locale="zh_CN")
    catalogue.header_comment = "# Chinese messages of the console. See deploy/translations.py."
    catalogue.project, catalogue.version = "hazard-gateway", "1"
    catalogue.msgid_bugs_address = catalogue.last_translator = catalogue.language_team = ""
    catalogue.creation_date = catalogue.revision_date = EPOCH  # git knows when
    catalogue.fuzzy = False
    return catalogue


def compiled(catalogue: Catalog) -> bytes:
    target = io.BytesIO()
    write_mo(target, catalogue)
    return target.getvalue()


def update() -> None:
    catalogue = stored() if CATALOGUE.exists() else Catalog(locale="zh_CN", charset="utf-8")
    catalogue.update(collect(), no_fuzzy_matching=True, update_creation_date=False)
    catalogue.obsolete.clear()
    CATALOGUE.parent.mkdir(parents=True, exist_ok=True)
    with CATALOGUE.open("wb") as file:
        write_po(
            file, catalogue, width=100, sort_by_file=True, omit_header=False, include_lineno=False
        )


def faults() -> list[str]:
    """What is wrong with the committed catalogue, in words."""
    catalogue, wanted = stored(), collect()
    found = []
    for message in wanted:
        if not message.id:
            continue
        translated = catalogue.get(message.id)
        if translated is None or not translated.string:
            found.append(f"not translated: {message.id!r}")
    known = {message.id for message in wanted}
    found += [f"no longer used: {m.id!r}" for m in catalogue if m.id and m.id not in known]
    if CATALOGUE.with_suffix(".mo").read_bytes() != compiled(catalogue):
        found.append("console.mo is older than console.po: run deploy/translations.py compile")
    return found


def main(arguments: list[str]) -> int:
    if arguments == ["update"]:
        update()
    elif arguments == ["compile"]:
        CATALOGUE.with_suffix(".mo").write_bytes(compiled(stored()))
    elif arguments == ["check"]:
        found = faults()
        sys.stderr.writelines(f"{line}\n" for line in found)
        return 1 if found else 0
    else:
        sys.stderr.write(f"{__doc__}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
