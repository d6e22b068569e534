"""The sentences that `jaxnmt evaluate` scores a run on."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence

from jaxnmt.config import Experiment, UserError
from jaxnmt.data import identity
from jaxnmt.data.cleaning import decode
from jaxnmt.data.sources import languages_of, open_sources
from jaxnmt.data.vocabulary import join


@dataclasses.dataclass(frozen=True)
class TestSet:
    """Sentences and their reference translations.

    Attributes:
        name: where they come from, as the user wrote it.
        sources, references: one for each sentence; the pieces of references that are already split are joined.
        pretokenized: the words are already split by spaces.
        languages: codes of source and target, "" if unknown.
        targets: the references as a model writes them, pieces not joined.
    """

    __test__ = False  # pytest, this is no test

    name: str
    sources: list[str]
    references: list[str]
    pretokenized: bool
    languages: tuple[str, str]
    targets: Sequence[str] = ()


def open_test_set(experiment: Experiment, run: pathlib.Path, split: str, words: tuple[str, ...] = ()) -> TestSet:
    """The test or validation sentences of a run; or those of other sources, `words`.

    Where the run has no test sentences its validation sentences serve, and where it has none of these, the pairs that were
    held out from its training text. Languages that neither fields nor sources name are those of the text it was trained on.

    Raises:
        UserError: a source cannot be read; or pairs were held out of other text than is there now.
    """
    field = "--data" if words else f"data.{split}"
    if not words:
        words = experiment.data.test if split == "test" else experiment.data.validation
    if not words and split == "test":
        words, field = experiment.data.validation, "data.validation"
    trained_on = identity.read(run)
    sources = open_sources(words, field)
    if words:
        pairs = [(decode(source), decode(target)) for source, target in itertools.chain.from_iterable(s.pairs() for s in sources)]
        name = " ".join(source.name for source in sources)
    else:
        from jaxnmt.data.prepared import prepare

        prepared = prepare(experiment, run / "tokenizer", say=lambda line: None)
        if trained_on and not identity.same(trained_on, prepared.fingerprints):
            raise UserError(
                f"data.train is not the text that {run} was trained on ({identity.RECORD} there tells), and so it cannot be known which of "
                "its pairs were held out: restore it, or name test sentences with --data"
            )
        pairs, name = prepared.validation, "pairs held out from the training text"
    pretokenized = experiment.tokenizer.kind == "words"
    references = [join(target, experiment.tokenizer.joiner) if pretokenized else target for _, target in pairs]
    own, trained = languages_of(experiment.data, sources), trained_on.get("languages", ("", ""))
    languages = own[0] or trained[0], own[1] or trained[1]
    return TestSet(name, [source for source, _ in pairs], references, pretokenized, languages, [target for _, target in pairs])
