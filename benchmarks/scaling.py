"""The plans of docs/scaling.md: makes those that are missing, draws the curve, prints the tables.

    python benchmarks/scaling.py FOLDER

Each plan is one `jaxnmt plan ... --json FOLDER/NAME.json`, half a minute to three on one core; a plan that is there already is kept.
Needs the TPU compiler: pip install 'jaxnmt[plan]'. Nothing is run.
"""

import json
import pathlib
import subprocess
import sys

from jaxnmt.analysis import figures

BIG, BASE, BILLION = "wmt14_big", "wmt14_base", "transformer_1b"
SCAN = "--model.scan-layers True"
CHIPS = {1: "1x1", 4: "2x2", 16: "4x4", 64: "8x8", 256: "16x16"}
A_CHIP = 2048  # target positions, whatever the number of chips

PLANS = {
    "big_v5e": f"{BIG} --on v5e:4x4",
    "big_v5p": f"{BIG} --on v5p:2x2x2",
    "1b_v5p": f"{BILLION} --on v5p:4x4x8",
    "1b_v5e": f"{BILLION} --on v5e:16x16",
    "refuse": f"{BILLION} --on v5e:2x2 --mesh.fsdp 1 --model.remat none --batching.tokens 65536",
    "dp": f"{BIG} --on v5p:2x2x2 {SCAN}",
    "fsdp": f"{BIG} --on v5p:2x2x2 {SCAN} --mesh.data 1 --mesh.fsdp 8",
    "tp": f"{BIG} --on v5p:2x2x2 {SCAN} --mesh.data 1 --mesh.tensor 8",
    **{f"remat_{policy}": f"{BILLION} --on v5e:16x16 --model.remat {policy}" for policy in ("none", "full")},
    **{f"depth{n}": f"{BASE} --on v5p:2x2x2 {SCAN} --model.num-encoder-layers {n} --model.num-decoder-layers {n}" for n in (6, 12, 24, 48)},
    **{f"weak_big_{n}": f"{BIG} --on v5e:{size} {SCAN} --batching.tokens {n * A_CHIP}" for n, size in CHIPS.items()},
    **{
        f"weak_1b_{n}": f"{BILLION} --on v5e:{size} --mesh.fsdp {min(n, 16)} --batching.tokens {n * A_CHIP}"
        for n, size in CHIPS.items()
        if n > 1
    },
}


def make(folder: pathlib.Path) -> dict[str, dict]:
    """Every plan's numbers, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, words in PLANS.items():
        file = folder / f"{name}.json"
        if not file.exists():
            print(f"jaxnmt plan {words}", file=sys.stderr, flush=True)
            subprocess.run([sys.executable, "-m", "jaxnmt.cli", "plan", *words.split(), "--json", str(file)], stdout=sys.stderr)
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in PLANS if (folder / f"{name}.json").exists()}


def weak(plans: dict[str, dict]) -> dict[str, figures.Line]:
    """Utilisation over chips, with sending hidden and not."""
    lines = {}
    for label, name in ((f"{BIG}, layers scanned", "weak_big"), (BILLION, "weak_1b")):
        points = {n: plans[f"{name}_{n}"] for n in CHIPS if f"{name}_{n}" in plans}
        y = [100 * point["utilisation"] for point in points.values()]
        lines[label] = figures.Line([float(n) for n in points], y, y, y)
    return lines


def row(name: str, plan: dict) -> str:
    """A line of a Markdown table: what every plan has."""
    shape = plan["shapes"][0]
    gib = [f"{shape[part] / 2**30:.2f}" for part in ("memory", "arguments")]
    if not plan["fits"]:
        return f"| {name} | {plan['devices']} | {' | '.join(gib)} | does not fit |"
    time, sent = shape["time"], f"{plan['sent'] / 1e9:.2f} | {(plan['least_sent'] or 0) / 1e9:.2f}"
    parts = " | ".join(f"{1e3 * time[part]:.1f}" for part in ("computing", "waiting", "overlapped"))
    speed = f"{plan['target_tokens_per_s']:,.0f} | {plan['utilisation']:.1%} | {plan['hours']:.1f}"
    flops = f"{shape['work']['flops'] / 1e12:,.1f} | {plan['model_flops'] / 1e12:,.1f}"
    return f"| {name} | {plan['devices']} | {' | '.join(gib)} | {flops} | {sent} | {parts} | {speed} | {shape['seconds']:.0f} |"


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    plans = make(folder)
    for name, plan in plans.items():
        print(row(name, plan))
    title = "Predicted utilisation at 2,048 target positions a chip, TPU v5e (compiled, not run)"
    chart = figures.chart(weak(plans), title, "chips", "model FLOPs utilisation, %", log_x=True)
    (folder / "scaling.svg").write_text(chart)
    (folder / "scaling.csv").write_text(figures.table(weak(plans)))


if __name__ == "__main__":
    main()
