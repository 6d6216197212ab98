"""The results -> docs/performance.md's tables and a plot for each benchmark.

Text between the two marks in docs/performance.md is replaced, the rest is left alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import scaling

_ROOT = Path(__file__).parent.parent
RESULTS = _ROOT / "benchmarks" / "results"
PAGE = _ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def main() -> int:
    """Draw everything that there are results of."""
    records = kept(RESULTS)
    for record in records:
        draw(record, PAGE.parent / "performance" / f"{record['benchmark']}.png")
    scaling.draw(PAGE.parent / "performance" / "scaling.png")
    PAGE.write_text(with_tables(PAGE.read_text(), records, scaling.section()))
    return 0


def kept(folder: Path) -> list[dict[str, Any]]:
    """The record of each benchmark."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def with_tables(page: str, records: list[dict[str, Any]], *more: str) -> str:
    """The page with new tables between its marks; raises ValueError when it has no marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the marks {BEGIN} and {END}")
    sections = "\n".join([*(_section(record) for record in records), *more])
    return f"{before}{BEGIN}\n\n{sections}\n{END}{after}"


def _section(record: dict[str, Any]) -> str:
    """One benchmark: the machine, the plot, a table."""
    name, machine = record["benchmark"], record["machine"]
    lines = [
        f"### {name}",
        "",
        f"{record['time']}: {machine['cpu']}, {machine['cores']} cores, Python "
        f"{machine['python']}; load average {machine['load_average']} before, "
        f"{record['load_average_after']} after.",
        "",
        f"![{name}](performance/{name}.png)",
        "",
        "| what | side | median | middle half | ratio | of the best rounds | reach |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        lines += _table_rows(row)
        if row["note"]:
            lines.append(f"| | | {row['note']} | | | | |")
    return "\n".join([*lines, ""])


def _table_rows(row: dict[str, Any]) -> list[str]:
    lines = []
    what, reach = row["what"], row["reach"]
    for name, side in row["sides"].items():
        ratio = f"{row['ratios'][name]:.2f} x {row['base']}" if name in row["ratios"] else ""
        best = f"{row['best_ratios'][name]:.2f} x" if name in row["best_ratios"] else ""
        figure = f"{side['median']:.4g} {row['unit']}"
        spread = f"{side['low']:.4g} to {side['high']:.4g}"
        lines.append(f"| {what} | {name} | {figure} | {spread} | {ratio} | {best} | {reach} |")
        what = reach = ""
    return lines


def draw(record: dict[str, Any], path: Path) -> None:
    """Bars with their spread, a panel for each row."""
    # only drawing needs it, and the tools of development don't
    import matplotlib as mpl  # type: ignore[import-not-found] # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above, and after the choice

    rows = record["rows"]
    columns = 2
    lines = -(-len(rows) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(13, 2.4 * lines), squeeze=False)
    for axis in axes.flat[len(rows) :]:
        axis.axis("off")
    for axis, row in zip(axes.flat, rows, strict=False):
        _panel(axis, row)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _panel(axis: Any, row: dict[str, Any]) -> None:
    names = list(row["sides"])
    medians = [side["median"] for side in row["sides"].values()]
    below = [side["median"] - side["low"] for side in row["sides"].values()]
    above = [side["high"] - side["median"] for side in row["sides"].values()]
    colours = ["#c2185b" if name.startswith("ours") else "#90a4ae" for name in names]
    axis.barh(names, medians, xerr=[below, above], color=colours, capsize=3)
    axis.invert_yaxis()
    better = "less" if row["lower_is_better"] else "more"
    axis.set_title(f"{row['what']} [{row['unit']}, {better} is better]", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.margins(x=0.15)
    for place, median in enumerate(medians):
        axis.text(median, place, f" {median:.3g}", va="center", fontsize=8)


if __name__ == "__main__":
    sys.exit(main())
