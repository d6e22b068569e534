"""sacreBLEU's command in a process of its own, and texts to put to it."""

import random
import subprocess
import sys

WORDS = "Ein Mann , eine Frau und zwei Hunde gehen im roten Park spazieren . „ Ach ! “".split()


def corpora(seed=1, sentences=40):
    """A reference and three systems that replace, drop and repeat its words, more and more; some lines end in spaces, some are empty."""
    chance = random.Random(seed)
    reference = [" ".join(chance.choices(WORDS, k=chance.randint(1, 12))) + chance.choice(["", " ", "."]) for _ in range(sentences)]

    def spoil(line, rate):
        words = [chance.choice(WORDS) if chance.random() < rate else word for word in line.split()]
        return " ".join(word for word in words if chance.random() > rate / 2) + chance.choice(["", " \t"])

    return reference, [[spoil(line, rate) for line in reference] for rate in (0.3, 0.35, 0.6)]


def sacrebleu(folder, reference, systems, *flags, others=()):
    """What the command prints: its table's cells, twelve digits after the point, and everything.

    Args:
        others: further references.
    """
    names = [folder / f"{number}.txt" for number in range(len(systems))]
    references = [folder / f"ref{number or ''}.txt" for number in range(1 + len(others))]
    for name, lines in zip([*references, *names], [reference, *others, *systems], strict=True):
        name.write_text("".join(f"{line}\n" for line in lines))
    table = ["-f", "latex", "-w", "12", "--no-color"]  # its JSON breaks off at TER's float32
    command = [sys.executable, "-m", "sacrebleu", *references, "-i", *names, "-m", "bleu", "chrf", "ter", *flags, *table]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.rstrip("\\ ").split("&")[1:] for line in out.splitlines() if ".txt" in line and "&" in line]
    return [[cell.strip() for cell in row] for row in rows], out


def cell(estimate, interval):
    """An estimate as sacreBLEU writes it."""
    mean = f" ({estimate.mean:.12f} ± {estimate.ci:.12f})" if interval else ""
    p = "" if estimate.p is None else f" (p = {estimate.p:.4f}){'*' * (estimate.p <= 0.05)}"
    return f"{estimate.score:.12f}{mean}{p}"
