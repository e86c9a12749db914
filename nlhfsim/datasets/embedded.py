"""Real preference data that comes with the package, typed from the published counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nlhfsim.datasets.comparisons import Comparisons
from nlhfsim.errors import ensure_choice
from nlhfsim.games import PreferenceGame


@dataclass(frozen=True)
class Dataset:
    """An embedded table of counts.

    Attributes
    ----------
    name : str
        The name that `load` takes.
    description : str
        What was compared by whom, and what is known about the game.
    citation : str
        BibTeX of the source.
    items : tuple of str
        The items, in the table's order.
    counts : tuple of tuples
        Above the diagonal, row by row: (row wins, column wins, ties).
    """

    name: str
    description: str
    citation: str
    items: tuple[str, ...]
    counts: tuple[tuple[int, int, int], ...]

    @property
    def comparisons(self) -> Comparisons:
        """The counts, without a prior."""
        n = len(self.items)
        wins, ties = np.zeros((1, n, n)), np.zeros((1, n, n))
        above = np.triu_indices(n, 1)
        table = np.array(self.counts, dtype=np.float64)
        wins[0][above], wins[0].T[above], ties[0][above] = table.T
        return Comparisons(self.items, None, wins, ties + ties.swapaxes(1, 2), prior=0.0)


def load(name: str = "regenwetter2012", *, beta: float = 0.1, reference: npt.ArrayLike | None = None) -> PreferenceGame:
    """Return the game of an embedded dataset: the frequencies as published, a tie being half a win each, without a prior.

    Parameters
    ----------
    name : str
        A key of `DATASETS`:

        - ``"regenwetter2012"``: five gambles, the choices of one person; no Condorcet winner, majority cycles;
        - ``"kendall1940-girls"``: eleven school subjects, the votes of 25 girls; no Condorcet winner;
        - ``"mtbench"``: six chat models, 3,355 human votes; transitive, gpt-4 beats all.
    beta : float
        Regularization β ≥ 0.
    reference : array_like, optional
        Reference policy. Default: uniform.

    Returns
    -------
    PreferenceGame
        With ``game.comparisons`` the counts; `cite` gives the source.

    Raises
    ------
    UnknownNameError
        If there is no dataset of that name.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.condorcet_winner(nl.datasets.load("mtbench"))
    'gpt-4'
    """
    return DATASETS[ensure_choice("dataset", name, DATASETS)].comparisons.game(beta, reference)


def cite(name: str) -> str:
    """Return the BibTeX entry of an embedded dataset.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> print(nl.datasets.cite("kendall1940-girls").splitlines()[0])
    @article{kendall1940,
    """
    return DATASETS[ensure_choice("dataset", name, DATASETS)].citation


_REGENWETTER = Dataset(
    name="regenwetter2012",
    description="Choices of one person (participant 9, set 2) between five gambles, 45 a pair (Regenwetter & Davis-Stober, "
    "2012). Majority cycles, no Condorcet winner.",
    citation="""@article{regenwetter2012,
  author  = {Regenwetter, Michel and Davis-Stober, Clintin P.},
  title   = {Behavioral variability of choices versus structural inconsistency of preferences},
  journal = {Psychological Review},
  volume  = {119},
  number  = {2},
  pages   = {408--416},
  year    = {2012},
  doi     = {10.1037/a0027372}
}""",
    items=("gamble a", "gamble b", "gamble c", "gamble d", "gamble e"),
    counts=(
        *((40, 5, 0), (31, 14, 0), (19, 26, 0), (13, 32, 0)),
        *((35, 10, 0), (32, 13, 0), (26, 19, 0)),
        *((41, 3, 1), (30, 15, 0)),
        *((35, 10, 0),),
    ),
)

_GIRLS = (
    *(10, 19, 17, 20, 17, 21, 21, 21, 18, 22),
    *(12, 15, 17, 15, 21, 19, 18, 16, 17),
    *(16, 16, 18, 10, 17, 16, 19, 16),
    *(16, 11, 13, 15, 14, 11, 14),
    *(14, 18, 12, 13, 15, 18),
    *(12, 13, 12, 16, 18),
    *(14, 15, 14, 14),
    *(14, 13, 14),
    *(11, 17),
    *(12,),
)

_KENDALL = Dataset(
    name="kendall1940-girls",
    description="Preferences of 25 girls between eleven school subjects, a vote a girl and pair (Kendall & Babington Smith, "
    "1940). No Condorcet winner.",
    citation="""@article{kendall1940,
  author  = {Kendall, M. G. and Babington Smith, B.},
  title   = {On the method of paired comparisons},
  journal = {Biometrika},
  volume  = {31},
  number  = {3/4},
  pages   = {324--345},
  year    = {1940},
  doi     = {10.2307/2332613}
}""",
    items=(
        *("gymnastics", "science", "art", "domestic", "history", "arithmetic"),
        *("geography", "literature", "religion", "algebra", "grammar"),
    ),
    counts=tuple((wins, 25 - wins, 0) for wins in _GIRLS),
)

_MTBENCH = Dataset(
    name="mtbench",
    description="3,355 human votes between the answers of six chat models to 80 questions (MT-Bench; Zheng et al., 2023), "
    "pooled. Transitive, gpt-4 is the Condorcet winner.",
    citation="""@inproceedings{zheng2023,
  author        = {Zheng, Lianmin and Chiang, Wei-Lin and Sheng, Ying and Zhuang, Siyuan and Wu, Zhanghao and Zhuang, Yonghao
                   and Lin, Zi and Li, Zhuohan and Li, Dacheng and Xing, Eric P. and Zhang, Hao and Gonzalez, Joseph E.
                   and Stoica, Ion},
  title         = {Judging {LLM}-as-a-Judge with {MT}-Bench and {Chatbot Arena}},
  booktitle     = {Advances in Neural Information Processing Systems 36, Datasets and Benchmarks Track},
  year          = {2023},
  eprint        = {2306.05685},
  archiveprefix = {arXiv}
}""",
    items=("alpaca-13b", "claude-v1", "gpt-3.5-turbo", "gpt-4", "llama-13b", "vicuna-13b-v1.2"),
    counts=(
        *((9, 126, 28), (27, 222, 69), (17, 132, 26), (76, 27, 47), (48, 104, 60)),
        *((79, 85, 84), (54, 91, 55), (185, 13, 34), (86, 33, 34)),
        *((60, 131, 88), (231, 10, 31), (167, 69, 125)),
        *((176, 12, 24), (113, 21, 29)),
        *((14, 157, 46),),
    ),
)

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (_REGENWETTER, _KENDALL, _MTBENCH)}
"""The embedded datasets by name."""
