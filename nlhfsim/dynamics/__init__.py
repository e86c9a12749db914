"""The methods, one file each, under the names of the literature. `register` adds one from outside."""

from nlhfsim.dynamics import schedules
from nlhfsim.dynamics._spec import Dynamics, LogPolicy, Method, NoParams, ProvenRange, as_dynamics, build, get, names, register
from nlhfsim.dynamics.extragradient import Extragradient
from nlhfsim.dynamics.fictitious_play import FictitiousPlay
from nlhfsim.dynamics.ipo_md import IPOMD
from nlhfsim.dynamics.magnet_refresh import MagnetRefresh
from nlhfsim.dynamics.magnetic_mirror_descent import MagneticMirrorDescent
from nlhfsim.dynamics.multiplicative_weights import MultiplicativeWeights
from nlhfsim.dynamics.nash_md import NashMD
from nlhfsim.dynamics.nash_mirror_prox import NashMirrorProx
from nlhfsim.dynamics.nash_prox import NashProx
from nlhfsim.dynamics.natural_pg import NaturalPG
from nlhfsim.dynamics.optimistic_mirror_descent import OptimisticMirrorDescent
from nlhfsim.dynamics.proximal_pg import ProximalPG
from nlhfsim.dynamics.proximal_point import ProximalPoint
from nlhfsim.dynamics.regret_matching import RegretMatching
from nlhfsim.dynamics.regret_matching_plus import RegretMatchingPlus
from nlhfsim.dynamics.self_play_pg import SelfPlayPG

__all__ = [
    "Dynamics",
    "Extragradient",
    "FictitiousPlay",
    "IPOMD",
    "LogPolicy",
    "MagnetRefresh",
    "MagneticMirrorDescent",
    "Method",
    "MultiplicativeWeights",
    "NashMD",
    "NashMirrorProx",
    "NashProx",
    "NaturalPG",
    "NoParams",
    "OptimisticMirrorDescent",
    "ProvenRange",
    "ProximalPG",
    "ProximalPoint",
    "RegretMatching",
    "RegretMatchingPlus",
    "SelfPlayPG",
    "as_dynamics",
    "build",
    "get",
    "names",
    "register",
    "schedules",
]
