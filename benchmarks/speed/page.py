"""docs/performance.md from the records in docs/results/speed and the text beside this file.

python benchmarks/speed/page.py docs/results/speed docs/performance.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cases import CASES

HERE = Path(__file__).resolve().parent
NAMES = {
    "ours": "ours",
    "ours_cached": "ours, reference cached",
    "trl_tuned": "TRL, tuned",
    "trl_documented": "TRL, as documented",
}
Record = Mapping[str, Any]


def table(header: list[str], rows: Iterator[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ratios(records: list[Record]) -> str:
    """One line for each case and way of ours, over TRL tuned and as documented."""

    def rows() -> Iterator[list[str]]:
        for record in records:
            for ours in ("ours", "ours_cached"):
                if ours in record["sides"]:
                    over = [ratio(record, ours, peer) for peer in ("trl_tuned", "trl_documented")]
                    yield [f"{record['case']['title']}, {NAMES[ours]}", *over]

    return table(["samples per CPU second", "over TRL tuned", "over TRL as documented"], rows())


def ratio(record: Record, ours: str, peer: str) -> str:
    found = record["ratios"].get(f"{ours} / {peer}")
    return f"{found['cpu']:.2f} (wall {found['wall']:.2f})" if found else "not run"


def sides(records: list[Record]) -> str:
    def rows() -> Iterator[list[str]]:
        for record in records:
            for side, figures in record["sides"].items():
                yield [
                    record["case"]["title"],
                    NAMES[side],
                    f"{figures['samples_per_cpu_s']:.1f}",
                    f"{figures['logical_tokens_per_cpu_s']:,.0f}",
                    f"{figures['computed_tokens'] / record['logical_tokens']:.2f}",
                    f"{figures['cpu_s_low']:.2f}-{figures['cpu_s_high']:.2f}",
                    f"{len(record['epochs'][side])} x {record.get('epochs_of_a_turn', 1)}",
                    f"{figures['other_load']:.2f}",
                    f"{figures['peak_mb']:.0f}",
                ]

    header = ["case", "side", "samples / CPU s", "real tokens / CPU s", "computed per real token"]
    return table([*header, "CPU s of an epoch", "epochs", "other load", "peak MB"], rows())


def floor(record: Record) -> str:
    """Kinds of operators by their time, then operations and what these take at the plain rate."""
    steps = list(record["steps"].values())

    def rows() -> Iterator[list[str]]:
        for kind in steps[0]["kinds_ms"]:
            spent = [step["kinds_ms"][kind] for step in steps]
            shares = [ms / sum(s["kinds_ms"].values()) for ms, s in zip(spent, steps, strict=True)]
            yield [kind, *(f"{ms:.0f} ({x:.0%})" for ms, x in zip(spent, shares, strict=True))]
        for part in steps[0]["parts_ms"]:
            yield [f"*{part}*", *(f"{step['parts_ms'][part]:.0f}" for step in steps)]
        yield ["**step**", *(f"{sum(step['parts_ms'].values()):.0f}" for step in steps)]
        yield ["tokens", *(f"{step['tokens']:.0f}" for step in steps)]
        for name in ("linear", "attention"):
            yield [f"GFLOP, {name}", *(f"{step[f'{name}_gflop']:.2f}" for step in steps)]
        for number, when in enumerate(("before", "after")):
            rates = (f"{step['gflop_per_s'][number]:.0f}" for step in steps)
            yield [f"plain product, GFLOP/s, {when}", *rates]
        yield ["**floor**", *(f"{step['floor_ms']:.0f}" for step in steps)]

    return table(["CPU ms of a step", *(step["title"] for step in steps)], rows())


def linearity(record: Record) -> str:
    rows = (
        [f"{size['tokens']:,}", str(size["batches"]), f"{size['cpu_us']:.0f}"]
        for size in record["sizes"].values()
    )
    return table(["tokens of a step", "forward passes", "CPU µs a token"], rows)


def shards(record: Record) -> str:
    rows = ([number, f"{found['cpu_us']:.1f}"] for number, found in record["shards"].items())
    return table([f"shards of {record['groups']:,} groups", "CPU µs a token"], rows)


def sampling(record: Record) -> str:
    rates = record["tokens_per_cpu_s"]
    return (
        f"{record['prompts']} prompts of {record['image_tokens']} image tokens, K = "
        f"{record['copies']}, {record['new_tokens']} tokens each: {rates['ours']:.0f} tokens per "
        f"CPU second, `generate` {rates['generate']:.0f}: {record['ratio']:.2f} times as many "
        f"(same tokens: {'yes' if record['same_tokens'] else 'no'})."
    )


def head(record: Record) -> str:
    rows = (
        [f"{int(targets):,}"]
        + [f"{ways[way]['peak_mb']:,.0f}" for way in ("whole", "pieces")]
        + [f"{ways[way]['cpu_s']:.2f}" for way in ("whole", "pieces")]
        for targets, ways in record["sizes"].items()
    )
    return table(
        ["targets", "whole, MB", "in pieces, MB", "whole, CPU s", "in pieces, CPU s"], rows
    )


def main() -> None:
    folder, page = Path(sys.argv[1]), Path(sys.argv[2])
    found = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    records = [found[name] for name in CASES if name in found]
    parts = {"ratios": ratios(records), "sides": sides(records)}
    parts["machine"] = f"{records[0]['cpu']}, {records[0]['threads']} thread"
    parts["versions"] = ", ".join(f"{k} {v}" for k, v in records[0]["versions"].items())
    parts["date"] = records[0]["date"]
    for name, write in (
        ("floor", floor),
        ("linearity", linearity),
        ("shards", shards),
        ("sampling", sampling),
        ("head", head),
    ):
        parts[name] = write(found[name]) if name in found else "Not run yet."
    text = (HERE / "performance.md.in").read_text()
    for name, value in parts.items():
        text = text.replace(f"<<{name}>>", value)
    page.write_text(text)


if __name__ == "__main__":
    main()
