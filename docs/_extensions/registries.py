"""The part of the reference that the registries write: methods, claims, games, data, and a page for each public module."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from numpydoc.docscrape import NumpyDocString
from sphinx.application import Sphinx

import nlhfsim
from nlhfsim import claims, datasets, dynamics, games, llm
from nlhfsim.claims import Claim
from nlhfsim.sources import Source

_FIELD = re.compile(r"Alias for field number \d+")
_KINDS = {
    "equality": "equality",
    "upper": "measured ≤ bound",
    "lower": "measured ≥ bound",
    "rate": "rate",
    "threshold": "prediction",
}


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    """Return `text` as code, or a dash if there is none."""
    return f"`{text}`" if text else "–"


def cited(source: Source | None) -> str:
    """Return a source with a link to arXiv."""
    if source is None:
        return "–"
    number = f"arXiv {source.arxiv}"
    return str(source).replace(number, f"[{number}](https://arxiv.org/abs/{source.arxiv})") if source.arxiv else str(source)


def summary(thing: Any) -> str:
    """Return the first sentence of a docstring, without what RST and Markdown read differently."""
    first = re.split(r"\n\s*\n", inspect.getdoc(thing) or "")[0]
    return " ".join(first.split()).replace("``", "`")


def preformatted(text: str) -> str:
    """Return a docstring whose indented lines, formulas, are shown as they stand."""
    return re.sub(r"\n\n(?=    \S)", "\n\n.. code-block:: text\n\n", text)


# Claims


def claim_entry(claim: Claim) -> str:
    """Return the section of one claim."""
    facts = [("Status", f"{claim.status}, {_KINDS[claim.kind]}"), ("Source", cited(claim.source))]
    page, _, anchor = claim.proof.partition("#")
    facts.append(("Proof", f"[{anchor}](../proofs/{page.removeprefix('docs/proofs/')}#{anchor})" if anchor else claim.proof))
    if claim.hypotheses:
        facts.append(("Where", "; ".join(hypothesis.name for hypothesis in claim.hypotheses)))
    if claim.method is not None:
        facts.append(("Method", code(claim.method.name)))
    facts.append(("Must fail", "; ".join(mutant.name for mutant in claim.mutants)))
    if claim.slack:
        facts.append(("Slack", claim.slack))
    lines = "\n".join(f"- **{name}**: {_escaped(value)}" for name, value in facts if value)
    return f"({claim.id})=\n### {claim.id}\n\n{_sentence(claim.title)}\n\n$$\n{claim.statement}\n$$\n\n{lines}\n"


def _escaped(text: str) -> str:
    """Return text in which a star is a star."""
    return re.sub(r"(?<=\S)\*", r"\\*", text)


def _sentence(text: str) -> str:
    return _escaped(text[0].upper() + text[1:] + ("" if text.endswith(".") else "."))


def claims_page() -> str:
    """Return a table of all claims, and a section for each; those about steps share one."""
    every = [claims.get(name) for name in claims.names()]
    steps = [claim for claim in every if claim.id.endswith("-step") and claim.method is not None and claim.status == "identity"]
    others = [claim for claim in every if claim not in steps]
    overview = table(["claim", "what it says", "status"], [[code(c.id), _escaped(c.title), c.status] for c in others])
    about = table(["claim", "method"], [[f"({c.id})=" and code(c.id), code(c.method.name if c.method else "")] for c in steps])
    anchors = "\n".join(f"({claim.id})=" for claim in steps)
    return "\n\n".join(
        [
            f"## All claims\n\n{overview}",
            "## Statements",
            *map(claim_entry, others),
            f"{anchors}\n## Steps\n\nThat each step of a method satisfies the optimality condition which defines it, for "
            f"{_escaped(steps[0].hypotheses[0].name)}. {_escaped(steps[0].proof)}\n\n{about}",
        ]
    )


# Methods


def method_facts(name: str) -> list[tuple[str, str]]:
    """Return what the registry knows about a method."""
    factory: Any = dynamics.get(name)
    method, parameters = factory.method, (
        factory().params if not factory.method.example else factory(**factory.method.example).params
    )
    calls = "those of its inner solver, not counted" if method.oracle_calls is None else str(method.oracle_calls(parameters))
    targets = {"nash": "the regularized equilibrium", "biased": "not quite the equilibrium", "none": "none with regularization"}
    example = ", ".join(f"{key}={value}" for key, value in (method.example or {}).items() if not key.endswith("step_size"))
    return [
        ("Fixed point", targets[method.fixed_point]),
        ("Iterate that converges", method.iterate),
        ("Oracle calls a step", calls + (f", for {code(example)}" if calls.isdigit() and calls != "1" and example else "")),
        (
            "From votes",
            method.unsampled(parameters) or ("Online IPO estimate of pairs" if method.pairs else "a batch stands for Aπ"),
        ),
        ("Continuous-time limit", "yes" if method.flow else "no"),
        ("Log-linear policies", method.log_linear or "no"),
        ("Claims", ", ".join(code(claim.id) for claim in claims.about(name)) or "–"),
        ("Source", cited(method.source)),
    ]


def method_entry(name: str) -> str:
    """Return the section of one method: its facts, and the docstring of its file."""
    factory: Any = dynamics.get(name)
    lines = "\n".join(f"- **{key}**: {_escaped(value)}" for key, value in method_facts(name))
    text = preformatted(inspect.getdoc(importlib.import_module(factory.__module__)) or "")
    return f"### {name}\n\n```{{eval-rst}}\n{text}\n```\n\n{lines}\n\nCalled as `nlhfsim.dynamics.{name}`.\n"


def methods_page() -> str:
    """Return a table of methods, one of other names, and a section for each method."""
    rows = [[code(name), dynamics.get(name).method.summary, _parameters(dynamics.get(name))] for name in dynamics.names()]
    others: list[Any] = [dynamics.get(name) for name in dynamics.aliases()]
    names = [
        [code(other.alias.name), code(other.alias.instance_of), _escaped(other.alias.mapping), cited(other.alias.source)]
        for other in others
    ]
    return "\n\n".join(
        [
            "## All methods\n\n" + table(["method", "what it does", "parameters"], rows),
            "## Other names\n\n" + table(["name", "instance of", "with", "source"], names),
            "## One by one",
            *map(method_entry, dynamics.names()),
        ]
    )


def _parameters(factory: Any) -> str:
    return ", ".join(map(code, inspect.signature(factory).parameters)) or "–"


# Language models


def language_models_page() -> str:
    """Return a table of the trainer's methods, a section for each, and a table of the fields of its configuration."""
    every = [llm.methods.get(name) for name in llm.methods.names()]
    rows = [
        [code(one.name), one.summary, ", ".join(f"`{key} = {value}`" for key, value in one.defaults.items()) or "–"]
        + [code(one.simulator), cited(one.source)]
        for one in every
    ]
    sections = []
    for one in every:
        module = importlib.import_module(f"nlhfsim.llm.methods.{one.name}")
        sections.append(f"### {one.name}\n\n```{{eval-rst}}\n{preformatted(inspect.getdoc(module) or '')}\n```")
    fields = {field.name: field.default for field in dataclasses.fields(llm.NashConfig)}
    described = [
        [", ".join(map(code, names)), ", ".join(f"`{fields[name]!r}`" for name in names), " ".join(entry.desc)]
        for entry in NumpyDocString(inspect.getdoc(llm.NashConfig))["Parameters"]
        if (names := re.findall(r"\w+", entry.name))
    ]
    return "\n\n".join(
        [
            "## Methods\n\n" + table(["method", "what it does", "parameters", "in the simulator", "source"], rows),
            *sections,
            "## Configuration\n\n" + table(["field", "default", "what it is"], [[a, b, _plain(c)] for a, b, c in described]),
        ]
    )


def _plain(text: str) -> str:
    """Return text of a docstring as Markdown."""
    return text.replace("``", "`").replace("*", "\\*")


# Games and data


def games_page() -> str:
    """Return tables of named games and of embedded data."""
    rows = [[code(name), summary(build), _parameters(build)] for name, build in games.NAMED.items()]
    data = [
        [code(name), str(len(found.items)), found.description, _title(found.citation)]
        for name, found in datasets.DATASETS.items()
    ]
    return "\n\n".join(
        [
            "## Named games\n\n" + table(["name", "what it is", "parameters"], rows),
            "## Data\n\n" + table(["name", "items", "what it is", "source"], data),
        ]
    )


def _title(bibtex: str) -> str:
    found = re.search(r"^\s*title\s*=\s*(.+?),?$", bibtex, re.MULTILINE)
    return re.sub(r"[{}]", "", found[1]) if found else "–"


# Modules


LLM = ("nlhfsim.llm", "nlhfsim.llm.exact", "nlhfsim.llm.interop", "nlhfsim.llm.oracles", "nlhfsim.llm.samplers")
"""The public modules that need PyTorch."""


def public_modules() -> list[str]:
    """Return the names of the package and of its public modules."""
    return ["nlhfsim", *(f"nlhfsim.{name}" for name in nlhfsim.__all__ if inspect.ismodule(getattr(nlhfsim, name))), *LLM]


def members(module: ModuleType) -> list[str]:
    """Return the public names that a module documents: not those of the package itself, nor modules."""
    names = getattr(module, "__all__", None)
    if names is None:
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        names = [name for name in own if not name.startswith("_")]
    shared = [] if module is nlhfsim else [name for name in nlhfsim.__all__ if name in names]
    shown = [name for name in names if not inspect.ismodule(getattr(module, name))]
    return [name for name in shown if name not in shared or getattr(module, name) is not getattr(nlhfsim, name)]


def module_page(name: str) -> str:
    """Return the page of one module: a table, then every member."""
    module = getattr(nlhfsim, name.removeprefix("nlhfsim."), None) or importlib.import_module(name)
    found = members(module)
    documented = [member for member in found if callable(getattr(module, member))]
    overview = "\n".join(f"   {member}" for member in documented)
    entries = "\n".join(_directive(module, member) for member in found)
    text = preformatted(inspect.getdoc(module) or "")
    return (
        f"# {name}\n\n```{{eval-rst}}\n{text}\n\n.. module:: {name}\n\n.. autosummary::\n   :nosignatures:\n\n"
        f"{overview}\n\n{entries}\n```\n"
    )


def _directive(module: ModuleType, member: str) -> str:
    value = getattr(module, member)
    kind = "autoexception" if inspect.isclass(value) and issubclass(value, Exception) else "autoclass"
    kind = kind if inspect.isclass(value) else "autofunction" if callable(value) else "autodata"
    options = "\n   :members:" if inspect.isclass(value) else "\n   :no-value:" if kind == "autodata" else ""
    return f".. {kind}:: {member}{options}\n"


def write(app: Sphinx) -> None:
    """Write the pages; what has not changed is left alone."""
    home = Path(app.srcdir) / "reference"
    pages = {
        "_generated/claims.md": claims_page(),
        "_generated/methods.md": methods_page(),
        "_generated/games.md": games_page(),
        "_generated/language-models.md": language_models_page(),
    }
    pages |= {f"api/{name}.md": module_page(name) for name in public_modules()}
    for place, text in pages.items():
        path = home / place
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def skip(app: Sphinx, what: str, name: str, value: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, whose docstrings say nothing."""
    return True if _FIELD.fullmatch(inspect.getdoc(value) or "") else None


def short_signature(app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str | None, returned: Any) -> Any:
    """Show functions that are defaults by their names."""
    return (
        None
        if signature is None
        else (re.sub(r"<(?:function|class) '?([\w.<>]+?)'?(?: at 0x[0-9a-f]+)?>", r"\1", signature), returned)
    )


def bars(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Let a bar in a docstring be a bar: absolute values are not substitutions. Examples and code are left alone."""
    for k, line in enumerate(lines):
        if line.startswith((".. rubric:: Examples", "Examples", ">>>")):
            return
        pieces = line.split("``")
        lines[k] = "``".join(piece if number % 2 else piece.replace("|", "\\|") for number, piece in enumerate(pieces))


def setup(app: Sphinx) -> dict[str, Any]:
    """Write before Sphinx looks for pages."""
    app.connect("config-inited", lambda app, config: write(app))
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-docstring", bars)
    app.connect("autodoc-process-signature", short_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
