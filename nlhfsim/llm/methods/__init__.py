"""The methods that the trainer knows, one file each."""

from nlhfsim.llm.methods import extragradient, ipo_md, nash_md, nash_prox, online_ipo, proximal_pg
from nlhfsim.llm.methods._spec import Follow, Method, get, names, register

__all__ = [
    "Follow",
    "Method",
    "extragradient",
    "get",
    "ipo_md",
    "names",
    "nash_md",
    "nash_prox",
    "online_ipo",
    "proximal_pg",
    "register",
]
