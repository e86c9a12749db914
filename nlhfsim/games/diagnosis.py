"""Everything that can be said about a game before a method is run on it, in one object and one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from nlhfsim.games.decomposition import TransitiveCyclicSplit, transitive_cyclic_split
from nlhfsim.games.diagnostics import CyclicTriples, condorcet_winner, cyclic_triples, has_majority_cycle, top_cycle
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.games.goodness_of_fit import BradleyTerryTest, bradley_terry_test
from nlhfsim.games.reward_model import BradleyTerryFit, RewardModelOptimum, fit_bradley_terry, reward_model_optimum

_LEVEL = 0.05
_NAMED = 6
_FEW = 10


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """How far a game is from what a reward model can express; ``str()`` of it is a table.

    What is not an average over contexts (with the game's weights) is a list for a game with a context axis, one entry a context.

    Attributes
    ----------
    condorcet_winner : str or None
        See `condorcet_winner`.
    top_cycle : tuple of str
        See `top_cycle`.
    cycles : bool
        See `has_majority_cycle`.
    cyclic_triples : CyclicTriples
        See `cyclic_triples`.
    cyclic_triple_share : float
        Share of the triples that are cyclic, averaged.
    split : TransitiveCyclicSplit
        See `transitive_cyclic_split`.
    cyclic_share : float
        Cyclic share of the squared advantages, averaged.
    bradley_terry : BradleyTerryFit
        See `fit_bradley_terry`.
    bradley_terry_test : BradleyTerryTest
        See `bradley_terry_test`.
    reward_model : RewardModelOptimum or None
        See `reward_model_optimum`; None unless an equilibrium was given.
    labels : tuple of str
        The actions.
    beta : float
        The game's β.
    n_contexts : int
        Number of contexts.
    batched : bool
        Whether the game has a context axis.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.datasets.load("regenwetter2012", beta=0.02)
    >>> print(game.diagnose(nl.solve(game)))
    Preference game of 5 actions, beta = 0.02
    Condorcet winner   none
    majority cycle     yes
    top cycle          all 5 actions: gamble a, gamble b, gamble c, gamble d, gamble e
    cyclic triples     4 of 10, 40.0%
    cyclic part        90.6% of the squared advantages
    Bradley–Terry      rejected, p = 0.001 (deviance 117.6 on 6 degrees of freedom, 1000 draws)
    π* over π_r        preferred in 49.2% (regularized: 52.0%)
    E_beta             0.2063 of π_r, ... of π*
    E_0                0.2076 of π_r, 0.007909 of π*
    π*: the equilibrium; π_r: the regularized optimum of the Bradley–Terry reward; E_beta, E_0: exploitability
    """

    condorcet_winner: str | None | list[str | None]
    top_cycle: tuple[str, ...] | list[tuple[str, ...]]
    cycles: bool | list[bool]
    cyclic_triples: CyclicTriples | list[CyclicTriples]
    cyclic_triple_share: float
    split: TransitiveCyclicSplit | list[TransitiveCyclicSplit] = field(repr=False)
    cyclic_share: float
    bradley_terry: BradleyTerryFit | list[BradleyTerryFit] = field(repr=False)
    bradley_terry_test: BradleyTerryTest | list[BradleyTerryTest] = field(repr=False)
    reward_model: RewardModelOptimum | None = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    beta: float
    n_contexts: int
    batched: bool

    def __str__(self) -> str:
        return self.summary()

    def rows(self) -> list[tuple[str, str]]:
        """Return the table's rows, what is meant and what it is, as text."""
        return [*self._majority_rows(), *self._fit_rows(), *self._reward_rows()]

    def legend(self) -> list[str]:
        """Return what stands below the table."""
        if self.reward_model is None or self.reward_model.policy is None:
            return []
        return ["π*: the equilibrium; π_r: the regularized optimum of the Bradley–Terry reward; E_beta, E_0: exploitability"]

    def summary(self) -> str:
        """Return a short table in plain text."""
        contexts = f", {self.n_contexts} contexts" if self.batched else ""
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}   {value}" for name, value in rows]
        lines += self.legend()
        return "\n".join([f"Preference game of {len(self.labels)} actions{contexts}, beta = {self.beta:g}", *lines])

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts, for JSON; matrices and the bootstrap's draws are left out."""
        return {
            "condorcet_winner": self.condorcet_winner,
            "top_cycle": self._each(self.top_cycle, list),
            "cycles": self.cycles,
            "cyclic_triples": self._each(self.cyclic_triples, lambda triples: triples._asdict()),
            "cyclic_triple_share": self.cyclic_triple_share,
            "transitive_scores": self._each(self.split, lambda split: split.scores.tolist()),
            "cyclic_shares": self._each(self.split, lambda split: split.cyclic_share),
            "cyclic_share": self.cyclic_share,
            "bradley_terry": self._each(self.bradley_terry, _plain),
            "bradley_terry_test": self._each(self.bradley_terry_test, lambda test: _plain(test, "null_deviances")),
            "reward_model": None if self.reward_model is None else _plain(self.reward_model, "log_policy"),
            "labels": list(self.labels),
            "beta": self.beta,
        }

    def _each(self, value: Any, plain: Callable[[Any], Any]) -> Any:
        return [plain(one) for one in value] if self.batched else plain(value)

    def _list(self, value: Any) -> list[Any]:
        return list(value) if self.batched else [value]

    def _majority_rows(self) -> list[tuple[str, str]]:
        triples = self._list(self.cyclic_triples)
        mean = " on average" if self.batched else ""
        share = f"{sum(t.cyclic for t in triples)} of {sum(t.triples for t in triples)}, {self.cyclic_triple_share:.1%}{mean}"
        rows = [("cyclic triples", share), ("cyclic part", f"{self.cyclic_share:.1%} of the squared advantages{mean}")]
        if not self.batched:
            return [
                ("Condorcet winner", "none" if self.condorcet_winner is None else str(self.condorcet_winner)),
                ("majority cycle", "yes" if self.cycles else "no"),
                ("top cycle", _named(self._list(self.top_cycle)[0], len(self.labels))),
                *rows,
            ]
        sizes = [len(top) for top in self.top_cycle]
        won = sum(winner is not None for winner in self._list(self.condorcet_winner))
        return [
            ("Condorcet winner", f"in {won} of {self.n_contexts} contexts"),
            ("majority cycle", f"in {sum(self._list(self.cycles))} of {self.n_contexts} contexts"),
            ("top cycle", f"{min(sizes)} to {max(sizes)} actions, median {np.median(sizes):g}"),
            *rows,
        ]

    def _fit_rows(self) -> list[tuple[str, str]]:
        fits: list[BradleyTerryFit] = self._list(self.bradley_terry)
        tests: list[BradleyTerryTest] = self._list(self.bradley_terry_test)
        missing = [fit for fit in fits if fit.scores is None]
        words = _verdicts(tests) if self.batched else _verdict(tests[0])
        rows = [("Bradley–Terry", words)]
        if missing:
            unconnected = f"none in {len(missing)} of {len(fits)} contexts, whose win graphs are not strongly connected"
            rows.append(("finite scores", unconnected if self.batched else f"none: {missing[0].message}"))
        return rows

    def _reward_rows(self) -> list[tuple[str, str]]:
        found = self.reward_model
        if found is None:
            return []
        if found.policy is None:
            return [("reward model", found.message)]
        words = f"preferred in {found.preference_rate:.1%}"
        if self.beta > 0:
            words += f" (regularized: {found.regularized_preference_rate:.1%})"
        rows = [("π* over π_r", words)]
        if self.beta > 0:
            rows.append(("E_beta", _against(found.exploitability, found.equilibrium_exploitability)))
        rows.append(("E_0", _against(found.gap0, found.equilibrium_gap0)))
        return [*rows, ("reward model", found.message)] if found.message else rows


def diagnose(
    game: PreferenceGame,
    equilibrium: Any = None,
    *,
    votes_per_pair: int | None = None,
    draws: int = 1000,
    rng: np.random.Generator | int = 0,
) -> Diagnosis:
    """Return the diagnosis of a game; `PreferenceGame.diagnose` describes the arguments."""
    ensure_game(game)
    triples, splits = cyclic_triples(game), transitive_cyclic_split(game)
    optimum = None if equilibrium is None else reward_model_optimum(game, equilibrium, votes_per_pair=votes_per_pair)
    return Diagnosis(
        condorcet_winner=condorcet_winner(game),
        top_cycle=top_cycle(game),
        cycles=has_majority_cycle(game),
        cyclic_triples=triples,
        cyclic_triple_share=_average(game, [t.share for t in (triples if isinstance(triples, list) else [triples])]),
        split=splits,
        cyclic_share=_average(game, [s.cyclic_share for s in (splits if isinstance(splits, list) else [splits])]),
        bradley_terry=fit_bradley_terry(game, votes_per_pair=votes_per_pair),
        bradley_terry_test=bradley_terry_test(game, votes_per_pair=votes_per_pair, draws=draws, rng=rng),
        reward_model=optimum,
        labels=game.labels,
        beta=game.beta,
        n_contexts=game.n_contexts,
        batched=game.batched,
    )


def _average(game: PreferenceGame, by_context: list[float]) -> float:
    return float(game.average(np.array(by_context)))


def _verdict(test: BradleyTerryTest) -> str:
    if test.p_value is None:
        return f"not tested ({test.reason})"
    rejected = "rejected" if test.p_value <= _LEVEL else "not rejected"
    numbers = f"deviance {test.deviance:.4g} on {test.degrees_of_freedom} degrees of freedom, {test.draws} draws"
    return f"{rejected}, p = {test.p_value:.2g} ({numbers}){_caution([test])}"


def _verdicts(tests: list[BradleyTerryTest]) -> str:
    tested = [test for test in tests if test.p_value is not None]
    if not tested:
        return f"not tested ({tests[0].reason})"
    rejected = sum(test.p_value <= _LEVEL for test in tested if test.p_value is not None)
    return f"rejected at {_LEVEL:.0%} in {rejected} of the {len(tested)} contexts that can be tested{_caution(tested)}"


def _caution(tests: list[BradleyTerryTest]) -> str:
    votes = np.median([test.median_votes for test in tests])
    return f"; rough, as the median pair has {votes:g} votes" if votes < _FEW else ""


def _named(actions: tuple[str, ...], n: int) -> str:
    shown = ", ".join(actions[:_NAMED]) + (", …" if len(actions) > _NAMED else "")
    count = f"all {n} actions: " if len(actions) == n > 1 else f"{len(actions)} of {n} actions: "
    return count + shown


def _against(reward_model: float | None, equilibrium: float) -> str:
    return f"{_short(reward_model or 0.0)} of π_r, {_short(equilibrium)} of π*"


def _short(value: float) -> str:
    return f"{value:.4g}" if value == 0 or value >= 1e-3 else f"{value:.1e}"


def _plain(result: Any, *without: str) -> dict[str, Any]:
    """Return the fields of a dataclass for JSON, arrays as lists."""
    fields = {name: value for name, value in asdict(result).items() if name not in without}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in fields.items()}
