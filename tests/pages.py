"""Read README and the pages of docs: their links, headings, code blocks and commands."""

import itertools
import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.M | re.S)
COMMAND = r"(?:\.venv/bin/)?jaxnmt(?= )"
PLACEHOLDERS = {"CONFIG": "quickstart", "STUDY": "heads", "NAME": "length", "POLICY": "dots", "N": "4"}


def read(page: pathlib.Path) -> str:
    return page.read_text(encoding="utf-8")


def name(page: pathlib.Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(text: str) -> list[tuple[str, str]]:
    """Return (language, content) of each fenced block."""
    return FENCE.findall(text)


def prose(text: str) -> str:
    """Return the text without its fenced blocks."""
    return FENCE.sub("", text)


def code(text: str) -> list[str]:
    """Return what stands in backquotes outside of fenced blocks; a line may end inside."""
    return [" ".join(each.split()) for each in re.findall(r"`((?:[^`\n]|\n(?!\n))+)`", prose(text))]


def links(text: str) -> list[str]:
    """Return the targets of links and images."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]+`", "", prose(text)))


def anchors(text: str) -> set[str]:
    """Return the anchors that a forge gives the headings: lower case, punctuation removed, spaces as hyphens."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> list[list[str]]:
    """Return the words after `jaxnmt` of each command of a page: in blocks, in backquotes, and in tables.

    A table whose first heading is a command has its further words in the first cell of each row.
    """
    lines = [line for language, block in blocks(text) if language != "python" for line in block.replace("\\\n", " ").splitlines()]
    lines += [re.sub(r"^launch/local.sh \d+ ", "jaxnmt ", line) for line in lines if line.startswith("launch/local.sh")]
    incomplete = set()
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        heading, _, *rows = table.splitlines()
        if found := re.match(rf"\| `({COMMAND}[^`]*)`", heading):
            incomplete.add(found[1])
            lines += [f"{found[1]} {row[1]}" for row in map(re.compile(r"\| `([^`]*)`").match, rows) if row]
    lines += [each for each in code(text) if re.match(COMMAND, each) and each not in incomplete]
    return [words for line in lines for words in _commands_of(line)]


def _commands_of(line: str) -> list[list[str]]:
    """Return the words of each jaxnmt command in a line of shell, or of usage: `[settings]`, `a|b`, `RUN ...`, `CONFIG`."""
    found = re.search(rf"(?:^|[ =|]){COMMAND}", line)
    if not found:
        return []
    line = re.sub(r" \[settings\]|(?<= )\[|\](?= |$)| ?(?:…|\.\.\.)(?= |$)", "", line)
    parts = re.split(r"(?<=[ ])(\w+(?:\|\w+)+)", line)
    options = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return [words for choice in itertools.product(*options) for words in _simple_commands("".join(choice))]


def _simple_commands(line: str) -> list[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>;&")
    lexer.whitespace_split = True
    found = []
    for is_operator, group in itertools.groupby(lexer, lambda word: not word.strip("|<>;&") and word != ""):
        words = list(group)
        while words and re.fullmatch(r"\$|[A-Z_]+=.*", words[0]):
            del words[0]
        if not is_operator and words and re.fullmatch(COMMAND.replace("(?= )", ""), words[0]):
            found.append([PLACEHOLDERS.get(word, word) for word in words[1:]])
    return found
