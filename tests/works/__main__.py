"""`python -m tests.works`: run every example on every engine and write the tables.

It needs both checkouts of text-generation-webui: WEBUI_CLASSIC_DIR and WEBUI_CURRENT_DIR.
"""

from __future__ import annotations

import asyncio

from tests.works.engines import embedded, real_classic, real_current
from tests.works.examples import ROOT, examples
from tests.works.table import Columns, endpoint_rows, put_into, rows


async def columns() -> Columns:
    """What came of each example, by engine."""
    found = {}
    for engine, start in (
        ("embedded", embedded),
        ("current", real_current),
        ("classic", real_classic),
    ):
        async with start() as works:
            found[engine] = await works.column(examples())
    return found


def main() -> None:
    """Write docs/engines.md and README.md."""
    found = asyncio.run(columns())
    for name, table in (("docs/engines.md", rows), ("README.md", endpoint_rows)):
        path = ROOT / name
        text = path.read_text("utf-8")
        path.write_text(put_into(text, table(examples(), found)), "utf-8")


if __name__ == "__main__":
    main()
