"""The model card of an export: README.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxnmt.data import identity
from jaxnmt.interop.check import Agreement

if TYPE_CHECKING:
    from jaxnmt.run import Run


def card(run: Run, to: str, name: str, usage: str, software: str, found: Sequence[Agreement]) -> str:
    """Return the model card of an export, in Markdown with a YAML head as model hubs read it.

    Args:
        run: what was exported.
        to: the format.
        name: of the folder.
        usage: how the files are used, in Markdown.
        software: what checked the files; "": nothing did.
        found: what the check found.
    """
    import jaxnmt

    source, target = languages = identity.languages(run.folder, run.config.data)
    known = [code for code in languages if code]
    head = ["---", "library_name: transformers" if to in ("marian", "pegasus") else "tags: [jaxnmt]"]
    head += [f"language: [{', '.join(json.dumps(code) for code in dict.fromkeys(known))}]"] if known else []
    head += ["pipeline_tag: translation", "---"]
    lines = [
        f"# {name}",
        "",
        f"Translates {_named(source)} to {_named(target)}. "
        f"Made by jaxnmt {jaxnmt.__version__} from {run.checkpoint} of the run `{run.folder.name}`, in the format {to}.",
        "",
        "## Use",
        "",
        usage.strip(),
        "",
        "## Quality",
        "",
        *_quality(run),
        "",
        f"Sentences that {software} and jaxnmt translate to the same tokens: {'; '.join(map(str, found))}."
        if found
        else "These files have not been compared with the run by the format's own software.",
        "",
        "## Training data",
        "",
        *_data(run),
    ]
    return "\n".join([*head, "", *lines]) + "\n"


def _named(code: str) -> str:
    """Return a language's name in English, or its code if it has no name."""
    from babel import Locale

    return Locale("en").languages.get(code.replace("-", "_"), code) or "an unnamed language"


def _quality(run: Run) -> list[str]:
    from jaxnmt.training.saved import CheckpointReader

    step = run.pinned
    score = CheckpointReader(run.folder).scores().get(step) if isinstance(step, int) else None
    if score is None:
        return ["The checkpoint has no validation score."]
    name, value = {"bleu": ("BLEU", score.value), "loss": ("loss", -score.value)}.get(score.metric, (score.metric, score.value))
    signature = f" (sacreBLEU `{score.signature}`)" if score.signature else ""
    return [f"Validation {name} at step {step:,}: {value:.4g}{signature}."]


def _data(run: Run) -> list[str]:
    """Return a line for each source of text, with its fingerprint."""
    known = identity.read(run.folder)
    rows = [(part, source) for part in ("train", "validation") for source in known.get(part, ())]
    if not rows:
        return ["The run does not say what it was trained on."]
    return [
        "| part | source | fingerprint |",
        "|---|---|---|",
        *(f"| {part} | {_file_names(source['name'])} | `{source['fingerprint']}` |" for part, source in rows),
    ]


def _file_names(source: str) -> str:
    """Return a source without the folders of its files, which mean nothing elsewhere."""
    is_path = source.startswith(("/", "~", "."))
    return (",".join(part.rpartition("/")[2] for part in source.split(",")) if is_path else source).replace("|", r"\|")
