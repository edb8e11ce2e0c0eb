"""Tables in pages of the documentation, written between two markers by the scripts here."""

import sys
from pathlib import Path


def write_or_check(page: Path, markers: tuple[str, str], table: str, check: bool) -> int:
    """Writes a table into a page, or checks that the page has it.

    Args:
        page: the page.
        markers: the lines before and after the table.
        table: the table in Markdown.
        check: writes nothing.

    Returns:
        the exit code: 1 if the page was checked and is not what would be written.
    """
    begin, end = markers
    text = page.read_text()
    before, rest = text.split(begin)
    made = f"{before}{begin}\n\n{table}\n\n{end}{rest.split(end)[1]}"
    if not check:
        page.write_text(made)
        return 0
    if made != text:
        print(f"{page} is out of date: run python {sys.argv[0]}", file=sys.stderr)
    return int(made != text)
