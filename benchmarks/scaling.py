"""The plans of docs/scaling.md: makes those that are missing, draws the curve, prints the tables.

    python benchmarks/scaling.py FOLDER

Each plan is one `jaxnmt plan ... --json FOLDER/NAME.json`, half a minute to three on one core; a plan that is there already is kept.
Needs the compilers for TPUs and GPUs: pip install 'jaxnmt[plan,plan-gpu]'. Nothing is run.
"""

import json
import pathlib
import subprocess
import sys

from jaxnmt.lab import figures

BIG, BASE, BILLION = "wmt14_big", "wmt14_base", "transformer_1b"
SCAN = "--model.scan-layers True"
CHIPS = {1: "1x1", 4: "2x2", 16: "4x4", 64: "8x8", 256: "16x16"}
A_CHIP = 2048  # target positions, whatever the number of chips

PLACES = {"h100:1": 1, "h100:8": 8, "h100:2x8": 16, "v5e:4x4": 16, "v5p:2x2x2": 8}  # of the table of both families, and devices
A_DEVICE = {"h100": 8192, "v5e": 2048, "v5p": 4096}  # target positions of transformer_1b

PLANS = {
    **{f"base_{on}": f"{BASE} --on {on}" for on in PLACES},
    **{f"big_{on}": f"{BIG} --on {on}" for on in PLACES},
    **{f"big_{on}_fsdp": f"{BIG} --on {on} --mesh.fsdp {min(n, 8)}" for on, n in PLACES.items() if n > 1},
    **{
        f"1b_{on}": f"{BILLION} --on {on} --mesh.fsdp {min(n, 16 if 'v5e' in on else 8)} --batching.tokens {n * A_DEVICE[on.split(':')[0]]}"
        for on, n in PLACES.items()
    },
    "1b_v5p": f"{BILLION} --on v5p:4x4x8",
    "1b_v5e": f"{BILLION} --on v5e:16x16",
    "refuse": f"{BILLION} --on v5e:2x2 --mesh.fsdp 1 --model.remat none --batching.tokens 65536",
    "fsdp": f"{BIG} --on v5p:2x2x2 {SCAN} --mesh.data 1 --mesh.fsdp 8",
    "tp": f"{BIG} --on v5p:2x2x2 {SCAN} --mesh.data 1 --mesh.tensor 8",
    **{f"remat_{policy}": f"{BILLION} --on v5e:16x16 --model.remat {policy}" for policy in ("none", "full")},
    **{f"depth{n}": f"{BASE} --on v5p:2x2x2 {SCAN} --model.num-encoder-layers {n} --model.num-decoder-layers {n}" for n in (6, 12, 24, 48)},
    **{f"weak_big_{n}": f"{BIG} --on v5e:{size} {SCAN} --batching.tokens {n * A_CHIP}" for n, size in CHIPS.items()},
    **{
        f"weak_1b_{n}": f"{BILLION} --on v5e:{size} --mesh.fsdp {min(n, 16)} --batching.tokens {n * A_CHIP}"
        for n, size in CHIPS.items()
        if 1 < n < 256
    },
}


def make(folder: pathlib.Path) -> dict[str, dict]:
    """Every plan's numbers, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, words in PLANS.items():
        file = folder / f"{name}.json"
        if not file.exists():
            print(f"jaxnmt plan {words}", file=sys.stderr, flush=True)
            subprocess.run([sys.executable, "-m", "jaxnmt", "plan", *words.split(), "--json", str(file)], stdout=sys.stderr)
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in PLANS if (folder / f"{name}.json").exists()}


def weak(plans: dict[str, dict]) -> dict[str, figures.Line]:
    """Utilisation over chips, with sending hidden and not."""
    lines = {}
    plans = plans | {"weak_1b_256": plans["1b_v5e"]} if "1b_v5e" in plans else plans
    for label, name in ((f"{BIG}, layers scanned", "weak_big"), (BILLION, "weak_1b")):
        points = {n: plans[f"{name}_{n}"] for n in CHIPS if f"{name}_{n}" in plans}
        y = [100 * point["utilisation"] for point in points.values()]
        lines[label] = figures.Line([float(n) for n in points], y, y, y)
    return lines


def _table(header: str, rows: list[list[str]]) -> str:
    names = header.split(" | ")
    lines = [names, ["---"] + ["---:"] * (len(names) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f}"


def _mesh(plan: dict) -> str:
    return " x ".join(map(str, plan["mesh"].values()))


def _ms(plan: dict, part: str) -> str:
    return f"{1e3 * plan['shapes'][0]['time'][part]:.1f}"


def runs(plans: dict[str, dict]) -> str:
    """What whole runs need and take."""
    header = (
        "`jaxnmt plan` | mesh | memory, GiB | of it state | FLOPs, T | sent, GB | computing, ms | sending, waited for | sending, hidden "
        "| target tokens/s | utilisation | hours"
    )
    rows = []
    for name in (
        *(f"{model}_{on}{form}" for model in ("base", "big", "1b") for on in PLACES for form in ("", "_fsdp")),
        "1b_v5p",
        "1b_v5e",
    ):
        if plan := plans.get(name):
            shape = plan["shapes"][0]
            memory, times = (
                (_gib(shape["memory"]), _gib(shape["arguments"])),
                [_ms(plan, p) for p in ("computing", "waiting", "overlapped")],
            )
            work = f"{shape['work']['flops'] / 1e12:,.0f}", f"{plan['sent'] / 1e9:.2f}"
            speed = f"{plan['target_tokens_per_s']:,.0f}", f"{plan['utilisation']:.1%}", f"{plan['hours']:.1f}"
            rows.append([f"`{PLANS[name]}`", _mesh(plan), *memory, *work, *times, *speed])
    return _table(header, rows)


def sending(plans: dict[str, dict]) -> str:
    """What is sent against the least that must be."""
    rows = []
    for name in ("big_v5p:2x2x2", "big_h100:8", "big_h100:8_fsdp", "fsdp", "tp"):
        if plan := plans.get(name):
            numbers = [f"{plan[key] / 1e9:.2f}" for key in ("sent", "least_sent")]
            rows.append([f"`{PLANS[name].partition(' --on ')[2]}`", _mesh(plan), *numbers, f"{plan['sent'] / plan['least_sent']:.2f}"])
    return _table("`jaxnmt plan wmt14_big --on` | mesh | sent, GB | least, GB | ratio", rows)


def depth(plans: dict[str, dict]) -> str:
    """Compilation over depth."""
    rows = []
    for n in (6, 12, 24, 48):
        if plan := plans.get(f"depth{n}"):
            shape = plan["shapes"][0]
            rows.append([f"{n} + {n}", f"{plan['parameters']:,}", f"{shape['seconds']:.1f}", _gib(shape["memory"])])
    return _table("layers | parameters | traced and compiled in, s | memory, GiB", rows)


def remat(plans: dict[str, dict]) -> str:
    """Memory and time of each policy."""
    rows = []
    for policy, name in (("none", "remat_none"), ("dots", "1b_v5e"), ("full", "remat_full")):
        if plan := plans.get(name):
            shape = plan["shapes"][0]
            memory = _gib(shape["memory"]), _gib(shape["temporaries"])
            time = (f"{shape['work']['flops'] / 1e12:,.0f}", _ms(plan, "computing")) if plan["fits"] else ("", "does not fit")
            rows.append([f"`{policy}`", *memory, *time])
    return _table("policy | memory, GiB | of it activations and the rest | FLOPs, T | computing, ms", rows)


def over_chips(plans: dict[str, dict]) -> str:
    """The numbers of the curve, and whether sending takes longer than computing."""
    rows, plans = [], plans | {"weak_1b_256": plans["1b_v5e"]} if "1b_v5e" in plans else plans
    for name in ("weak_big", "weak_1b"):
        for n in CHIPS:
            if plan := plans.get(f"{name}_{n}"):
                time = plan["shapes"][0]["time"]
                sent = time["waiting"] + time["overlapped"]
                longer = "sending" if sent > time["computing"] else "computing"
                numbers = _ms(plan, "computing"), f"{1e3 * sent:.1f}", f"{plan['utilisation']:.1%}"
                rows.append([f"`{plan['config']}`", str(n), _mesh(plan), *numbers, longer])
    return _table("config | chips | mesh | computing, ms | sending, ms | utilisation | what takes longer", rows)


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    plans = make(folder)
    for table in (runs, sending, depth, remat, over_chips):
        print(f"{table.__doc__}\n\n{table(plans)}")
    title = "Compiled, not run: TPU v5e, 2,048 target positions a chip"
    chart = figures.chart(weak(plans), title, "chips", "predicted model FLOPs utilisation, %", log_x=True)
    (folder / "scaling.svg").write_text(chart)
    (folder / "scaling.csv").write_text(figures.lines_csv(weak(plans)))


if __name__ == "__main__":
    main()
