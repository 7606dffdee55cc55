"""Tests of a network: accuracies with confidence intervals, ReaL labels, activations, extracted features.

`accuracy` tests at one or several resolutions, `job` makes the report of fixres evaluate. Scores of a network and of
extracted probabilities (`predictions`) go through the same `metrics`.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "accuracy": ["EvalResult", "evaluate", "sweep"],
        "activations": ["ActivationStatistics", "activation_statistics"],
        "features": ["ExtractJob", "extract"],
        "job": ["EvaluateJob", "Evaluation", "evaluate_network", "evaluate_softmax"],
    },
)
