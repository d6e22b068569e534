"""The baseline of docs/classification.md: a linear model on TF-IDF of words and pairs of words, by scikit-learn.

Command: python benchmarks/topics_tfidf.py train.tsv test.tsv      (lines of text TAB label; scikit-learn is in the extra `test`)

The features are the sublinear TF-IDF of the 200,000 most frequent words and pairs of words. The model is logistic regression, one label
against the rest, trained by SGD, which takes seconds where scikit-learn's exact solver takes tens of minutes. Scores are those of
`jaxnmt evaluate`.
"""

import sys

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import SGDClassifier

from jaxnmt.evaluation import labels
from jaxnmt.io.text import read_lines


def main() -> None:
    train, test = ([line.partition("\t")[::2] for line in read_lines(file, "argument")] for file in sys.argv[1:3])
    texts, known = zip(*(pair for pair in train if all(pair)), strict=True)
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=200_000)
    model = SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=20, tol=None, random_state=0).fit(features.fit_transform(texts), known)
    rows = features.transform([text for text, _ in test])
    print(labels.score("one", model.predict(rows).tolist(), [label for _, label in test], model.predict_proba(rows).max(1)))


if __name__ == "__main__":
    main()
