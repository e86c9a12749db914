"""The methods, one file each; other names that the literature has for them. `register` adds a method from outside."""

from nlhfsim.dynamics import schedules
from nlhfsim.dynamics._spec import (
    Alias,
    Dynamics,
    LogPolicy,
    Method,
    NoParams,
    ProvenRange,
    alias,
    aliases,
    as_dynamics,
    build,
    get,
    names,
    register,
)
from nlhfsim.dynamics.extragradient import Extragradient
from nlhfsim.dynamics.fictitious_play import FictitiousPlay
from nlhfsim.dynamics.ipo_md import IPOMD
from nlhfsim.dynamics.literature import (
    COMAL,
    DNO,
    EGPO,
    INPO,
    MPO,
    NashMP,
    NashPG,
    ONPO,
    OnlineIPO,
    OnlineMirrorDescent,
    SPPO,
)
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
    "Alias",
    "COMAL",
    "DNO",
    "Dynamics",
    "EGPO",
    "Extragradient",
    "FictitiousPlay",
    "INPO",
    "IPOMD",
    "LogPolicy",
    "MPO",
    "MagnetRefresh",
    "MagneticMirrorDescent",
    "Method",
    "MultiplicativeWeights",
    "NashMD",
    "NashMP",
    "NashMirrorProx",
    "NashPG",
    "NashProx",
    "NaturalPG",
    "NoParams",
    "ONPO",
    "OnlineIPO",
    "OnlineMirrorDescent",
    "OptimisticMirrorDescent",
    "ProvenRange",
    "ProximalPG",
    "ProximalPoint",
    "RegretMatching",
    "RegretMatchingPlus",
    "SPPO",
    "SelfPlayPG",
    "alias",
    "aliases",
    "as_dynamics",
    "build",
    "get",
    "names",
    "register",
    "schedules",
]
