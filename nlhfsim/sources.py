"""The literature that methods and claims come from, and `cite`, which prints it as BibTeX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nlhfsim.errors import InputError


@dataclass(frozen=True)
class Source:
    """A publication and the place in it.

    Attributes
    ----------
    key : str
        BibTeX key.
    authors, title : str
        As printed, authors separated by ``and``.
    year : int
        Year of publication.
    arxiv : str
        arXiv number, empty if there is none.
    journal : str
        Journal or conference, empty for a preprint.
    locator : str
        Section, equation or theorem.
    """

    key: str
    authors: str
    title: str
    year: int
    arxiv: str = ""
    journal: str = ""
    locator: str = ""

    def at(self, locator: str) -> Source:
        """Return the same publication at another place."""
        return Source(self.key, self.authors, self.title, self.year, self.arxiv, self.journal, locator)

    def __str__(self) -> str:
        first = self.authors.split(" and ")[0].split(",")[0]
        others = " et al." if " and " in self.authors else ""
        number = f", arXiv {self.arxiv}" if self.arxiv else ""
        place = f", {self.locator}" if self.locator else ""
        return f"{first}{others} ({self.year}){number}{place}"

    def bibtex(self) -> str:
        """Return the BibTeX entry."""
        fields = {"author": self.authors, "title": f"{{{self.title}}}", "year": str(self.year)}
        if self.journal:
            fields["journal"] = self.journal
        if self.arxiv:
            fields |= {"eprint": self.arxiv, "archivePrefix": "arXiv"}
        if self.locator:
            fields["note"] = self.locator
        body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@{'article' if self.journal else 'misc'}{{{self.key},\n{body}\n}}"


def cite(subject: Any) -> str:
    """Return the BibTeX entry of a method, a method's instance, a claim, or anything else that carries a `source`.

    Parameters
    ----------
    subject : object or str
        Such a thing, or the name of a method or the id of a claim; an alias of the literature has its own source.

    Raises
    ------
    InputError
        If there is no such name, or `subject` has no source.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> print(nl.cite(nl.dynamics.NashMD).splitlines()[0])
    @article{munos2024nash,
    """
    if isinstance(subject, str):
        subject = _named(subject)
    source = getattr(subject, "source", None)
    if source is None:
        source = getattr(getattr(subject, "method", None), "source", None)
    if isinstance(source, Source):
        return source.bibtex()
    raise InputError(f"{subject!r} has no source to cite: give a method or a claim of nlhfsim")


def _named(name: str) -> Any:
    """Return a method or alias, or a claim, whose ids are in lower case."""
    from nlhfsim import claims, dynamics

    return claims.get(name) if name in claims.names() else dynamics.get(name)


PROXIMAL_POINT_NLHF = Source(
    "tiapkin2025proximal",
    "Tiapkin, Daniil and Calandriello, Daniele and Belomestny, Denis and Moulines, Eric and Naumov, Alexey and Rasul, Kashif and "
    "Valko, Michal and Ménard, Pierre",
    "Proximal Point Nash Learning from Human Feedback",
    2025,
    "2505.19731",
)
NASH_MIRROR_PROX = Source(
    "tiapkin2025accelerating",
    PROXIMAL_POINT_NLHF.authors,
    "Accelerating Nash Learning from Human Feedback via Mirror Prox",
    2025,
    "2505.19731v1",
)
NASH_LEARNING = Source(
    "munos2024nash",
    "Munos, Rémi and Valko, Michal and Calandriello, Daniele and Azar, Mohammad Gheshlaghi and Rowland, Mark and others",
    "Nash Learning from Human Feedback",
    2024,
    "2312.00886",
    "International Conference on Machine Learning",
)
ONLINE_IPO = Source(
    "calandriello2024human",
    "Calandriello, Daniele and Guo, Daniel and Munos, Rémi and Rowland, Mark and Tang, Yunhao and others",
    "Human Alignment of Large Language Models through Online Preference Optimisation",
    2024,
    "2403.08635",
    "International Conference on Machine Learning",
)
MAGNETIC_MIRROR_DESCENT = Source(
    "sokota2023unified",
    "Sokota, Samuel and D'Orazio, Ryan and Kolter, J. Zico and Loizou, Nicolas and Lanctot, Marc and others",
    "A Unified Approach to Reinforcement Learning, Quantal Response Equilibria, and Two-Player Zero-Sum Games",
    2023,
    "2206.05825",
    "International Conference on Learning Representations",
)
EXTRAGRADIENT = Source(
    "zhou2025extragradient",
    "Zhou, Runlong and Fazel, Maryam and Du, Simon S.",
    "Extragradient Preference Optimization (EGPO): Beyond Last-Iterate Convergence for Nash Learning from Human Feedback",
    2025,
    "2503.08942",
)
ITERATIVE_NASH_POLICY_OPTIMIZATION = Source(
    "zhang2024iterative",
    "Zhang, Yuheng and Yu, Dian and Peng, Baolin and Song, Linfeng and Tian, Ye and others",
    "Iterative Nash Policy Optimization: Aligning LLMs with General Preferences via No-Regret Learning",
    2024,
    "2407.00617",
)
SELF_PLAY_PREFERENCE_OPTIMIZATION = Source(
    "wu2024self",
    "Wu, Yue and Sun, Zhiqing and Yuan, Huizhuo and Ji, Kaixuan and Yang, Yiming and Gu, Quanquan",
    "Self-Play Preference Optimization for Language Model Alignment",
    2024,
    "2405.00675",
)
DIRECT_NASH_OPTIMIZATION = Source(
    "rosset2024direct",
    "Rosset, Corby and Cheng, Ching-An and Mitra, Arindam and Santacroce, Michael and Awadallah, Ahmed and Xie, Tengyang",
    "Direct Nash Optimization: Teaching Language Models to Self-Improve with General Preferences",
    2024,
    "2404.03715",
)
OPTIMISTIC_NASH_POLICY_OPTIMIZATION = Source(
    "zhang2025improving",
    "Zhang, Yuheng and Yu, Dian and Ge, Tao and Song, Linfeng and Zeng, Zhichen and Mi, Haitao and Jiang, Nan and Yu, Dong",
    "Improving LLM General Preference Alignment via Optimistic Online Mirror Descent",
    2025,
    "2502.16852",
)
OPTIMISTIC_MIRROR_DESCENT = Source(
    "rakhlin2013optimization",
    "Rakhlin, Alexander and Sridharan, Karthik",
    "Optimization, Learning, and Games with Predictable Sequences",
    2013,
    "1311.1869",
    "Advances in Neural Information Processing Systems",
)
MAGNETIC_PREFERENCE_OPTIMIZATION = Source(
    "wang2024magnetic",
    "Wang, Mingzhi and Ma, Chengdong and Chen, Qizhi and Meng, Linjian and Han, Yang and others",
    "Magnetic Preference Optimization: Achieving Last-iterate Convergence for Language Model Alignment",
    2024,
    "2410.16714",
)
FICTITIOUS_PLAY = Source(
    "brown1951iterative",
    "Brown, George W.",
    "Iterative Solution of Games by Fictitious Play",
    1951,
    journal="Activity Analysis of Production and Allocation",
)
REGRET_MATCHING = Source(
    "hart2000simple",
    "Hart, Sergiu and Mas-Colell, Andreu",
    "A Simple Adaptive Procedure Leading to Correlated Equilibrium",
    2000,
    journal="Econometrica",
)
REGRET_MATCHING_PLUS = Source(
    "tammelin2014solving",
    "Tammelin, Oskari",
    "Solving Large Imperfect Information Games Using CFR+",
    2014,
    "1407.5042",
)
MULTIPLICATIVE_WEIGHTS = Source(
    "freund1999adaptive",
    "Freund, Yoav and Schapire, Robert E.",
    "Adaptive Game Playing Using Multiplicative Weights",
    1999,
    journal="Games and Economic Behavior",
)
MULTIPLICATIVE_WEIGHTS_SPIRAL = Source(
    "bailey2018multiplicative",
    "Bailey, James P. and Piliouras, Georgios",
    "Multiplicative Weights Update in Zero-Sum Games",
    2018,
    journal="ACM Conference on Economics and Computation",
)
BREGMAN_PROXIMAL_POINT = Source(
    "eckstein1993nonlinear",
    "Eckstein, Jonathan",
    "Nonlinear Proximal Point Algorithms Using Bregman Functions, with Applications to Convex Programming",
    1993,
    journal="Mathematics of Operations Research",
)
CONVERGENT_META_ALIGNMENT = Source(
    "liu2024comal",
    "Liu, Yixin and Oikonomou, Argyris and Zheng, Weiqiang and Cai, Yang and Cohan, Arman",
    "COMAL: A Convergent Meta-Algorithm for Aligning LLMs with General Preferences",
    2024,
    "2410.23223",
)
NASH_POLICY_GRADIENT = Source(
    "yu2025nash",
    "Yu, Eason and Liu, Tzu Hao and Wang, Yunke and Canonne, Clément L. and Tran, Nguyen H. and Xu, Chang",
    "Nash Policy Gradient: A Policy Gradient Method with Iteratively Refined Regularization for Finding Nash Equilibria",
    2025,
    "2510.18183",
)
BRADLEY_TERRY = Source(
    "bradley1952rank",
    "Bradley, Ralph Allan and Terry, Milton E.",
    "Rank Analysis of Incomplete Block Designs: I. The Method of Paired Comparisons",
    1952,
    journal="Biometrika",
)
DIRECT_PREFERENCE_OPTIMIZATION = Source(
    "rafailov2023direct",
    "Rafailov, Rafael and Sharma, Archit and Mitchell, Eric and Ermon, Stefano and Manning, Christopher D. and Finn, Chelsea",
    "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
    2023,
    "2305.18290",
    "Advances in Neural Information Processing Systems",
)
