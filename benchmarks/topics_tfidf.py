"""The baseline of docs/classification.md: logistic regression on TF-IDF of words and pairs of words, by scikit-learn.

Command: python benchmarks/topics_tfidf.py train.tsv test.tsv      (lines of text TAB label; scikit-learn is in the extra `test`)

The features are sublinear TF-IDF of the 200,000 most frequent words and pairs of words; the strength of the regularisation is scikit-learn's
default but for C=10. Scores are those of `jaxnmt evaluate`.
"""

import sys

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from jaxnmt.evaluation import labels
from jaxnmt.io.text import read_lines


def main() -> None:
    train, test = ([line.split("\t") for line in read_lines(file, "argument")] for file in sys.argv[1:3])
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=200_000)
    model = LogisticRegression(C=10, max_iter=1000).fit(features.fit_transform([text for text, _ in train]), [label for _, label in train])
    rows = features.transform([text for text, _ in test])
    print(labels.score("one", model.predict(rows), [label for _, label in test], model.predict_proba(rows).max(1)))


if __name__ == "__main__":
    main()
