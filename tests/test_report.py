"""The page about a folder: it needs nothing else, says what the folder says, and works in a browser, by keyboard, on paper."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import nlhfsim as nl
from nlhfsim import claims
from nlhfsim.cli import main
from nlhfsim.cli.commands import group
from nlhfsim.errors import DataError
from nlhfsim.plots.training import PANELS
from nlhfsim.training_run import SHOWN
from nlhfsim.provenance import versions
from nlhfsim.report import write_report
from nlhfsim.report._mathematics import mathematics

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
VOID = {"meta", "img", "input", "rect", "line", "br", "mspace"}
SWEEP = """
title = "Two steps <b>"
[[games]]
source = "rock-paper-scissors"
beta = 0.1
[[methods]]
name = "NashMirrorProx"
grid.step_size = [1, 2]
[run]
n_steps = 30
start = "random"
seeds = 12
"""


class Page(HTMLParser):
    """Elements with their attributes, the text, and whether every element is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data + " "

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def made_by(folder: Path, *arguments: str) -> Page:
    """The page about what a command wrote."""
    result = CliRunner().invoke(group, [*arguments, "--out", str(folder)], standalone_mode=False)
    assert result.exception is None, result.exception
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder about the claims of the methods' steps and some bounds, with the kill matrix."""
    folder: Path = tmp_path_factory.mktemp("verified")
    names = ["constant-sum", "log-ratio-span", "nash-md-rate", *(n for n in claims.names() if n.endswith("-step"))]
    wrong = claims.Claim(
        "wrong-by-half",
        "half of what is true",
        r"\|\log\pi^* - \log\rho\|_{\mathrm{sp}} \le 1/(2\beta)",
        claims.get("log-ratio-span").source,
        "upper",
        "theorem",
        claims.get("log-ratio-span").measure,
        lambda case: 0.5 / case.beta,
    )
    nl.verify([*names, wrong], 20, kill_matrix=True).save(folder)
    write_report(folder)
    return folder


def test_a_page_needs_nothing_else(verified: Path) -> None:
    """No file, no network: what it shows and runs is in it; its links lead to anchors of its own, or to papers."""
    page = Page((verified / "report.html").read_text(encoding="utf-8"))
    assert page.open == [] and not page.of("link") and not any("src" in one for one in page.of("script"))
    assert all((one["src"] or "").startswith("data:image/") for one in page.of("img"))
    anchors = {one["id"] for _, one in page.elements if "id" in one}
    for one in page.of("a"):
        target = one["href"] or ""
        assert target[1:] in anchors if target.startswith("#") else target.startswith("https://arxiv.org/abs/")
    assert "url(" not in (verified / "report.html").read_text(encoding="utf-8")


def test_a_page_says_what_the_report_says(verified: Path) -> None:
    """Every claim with its verdict, numbers, mathematics, source, domain, mutants and worst game."""
    text = (verified / "report.html").read_text(encoding="utf-8")
    page, found = Page(text), json.loads((verified / "result.json").read_text())
    assert len(page.of("article")) == len(found["claims"]) == text.count('<div class="formula"')
    assert text.count("<math") == len(found["claims"])
    told = " ".join(page.text.split())
    for claim in found["claims"]:
        article = " ".join(Page(re.findall(rf'<article id="claim-{claim["id"]}">.*?</article>', text, re.S)[0]).text.split())
        for part in (claim["title"], claim["source"], *claim["hypotheses"], *claim["mutants"], claim["proof"], claim["slack"]):
            assert " ".join(part.split()) in article
        if claim["witness"] is not None:
            assert f"of the family {claim['witness']['family']}" in article
    assert "verification failed" in told and "violated 1" in told
    assert "wrong-by-half ✗" not in told and re.search(r"wrong-by-half\s+violated", told)
    killed = [v for c in found["claims"] for v in c["mutants"].values()]
    assert f"mutants rejected {sum(killed)} of {len(killed)}" in told
    for method, steps in found["wrong_steps"].items():
        assert method in told and all(name in told for name in steps)


def test_histograms_are_those_of_the_ratios(verified: Path) -> None:
    """As many bars as there are twentieths with a case; what is violated has a colour of its own."""
    text = (verified / "report.html").read_text(encoding="utf-8")
    for claim in json.loads((verified / "result.json").read_text())["claims"]:
        article = re.findall(rf'<article id="claim-{claim["id"]}">.*?</article>', text, re.S)[0]
        counts = claim["histogram"]
        assert sum(counts) == claim["n_games"] and len(counts) == 21
        assert article.count("<rect") == sum(count > 0 for count in counts)
        assert ('class="bad"/>' in article) == (counts[-1] > 0) == (claim["verdict"] == "violated")


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("solve", "rock-paper-scissors", "--beta", "0.1"), "Equilibrium", ("certified", "rock", "they cycle")),
        (("run", "rock-paper-scissors", "--dynamics", "NashMD", "--steps", "9", "--start", "random"), "Run", ("NashMD", "Runs")),
        (
            ("compare", "rock-paper-scissors", "--dynamics", "NashMD,NaturalPG", "--oracle-calls", "20", "--start", "random"),
            "Comparison",
            ("E_beta to 1e-3", "NaturalPG", "proven step", "Distance from the equilibrium"),
        ),
    ],
)
def test_every_command_has_a_page(arguments: tuple[str, ...], kind: str, words: tuple[str, ...], tmp_path: Path) -> None:
    """With what it found, its figures, and the command that repeats it."""
    page = made_by(tmp_path, *arguments)
    told = " ".join(page.text.split())
    assert told.startswith(kind) and all(word in told for word in (*words, "How to repeat it")), told
    assert f"nlhfsim {' '.join(arguments)}" in told and f"numpy {versions()['numpy']}" in told
    assert len(page.of("img")) == len({path.stem for path in tmp_path.glob("*.png")})


def test_a_sweep_has_a_page(tmp_path: Path) -> None:
    """The best of each method, every run, the figure, and the configuration; markup in a title is text."""
    (tmp_path / "sweep.toml").write_text(SWEEP)
    result = CliRunner().invoke(group, ["sweep", str(tmp_path / "sweep.toml"), "--out", str(tmp_path / "out"), "--workers", "1"])
    assert result.exception is None
    text = write_report(tmp_path / "out", tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "Two steps &lt;b&gt;" in text and "Two steps <b>" not in text
    assert len(page.of("img")) == 1 and "(24 rows)" in page.text and "runs   24" in page.text.replace("\n", "")
    assert '"grid"' in page.text and "nlhfsim sweep config.toml" in page.text


def test_what_all_runs_share_is_said_once(tmp_path: Path) -> None:
    """So that the columns that differ have room, on the screen and on paper."""
    page = made_by(
        tmp_path, "run", "rock-paper-scissors", "--dynamics", "NashMD", "--steps", "9", "--runs", "3", "--start", "random"
    )
    assert "The same in all: status completed" in page.text and "steps 9" in page.text and len(page.of("th")) < 9


def test_what_is_no_text_or_picture_does_no_harm(tmp_path: Path) -> None:
    """Half a character, a folder that is called like a picture."""
    (tmp_path / "a.png").mkdir()
    (tmp_path / "result.json").write_text(
        '{"sweep": {"title": "\\ud800", "runs": 0, "completed": 0, "diverged": 0, "failed": 0}, "best": []}'
    )
    assert "Sweep" in write_report(tmp_path).read_text(encoding="utf-8")


def test_labels_are_text(tmp_path: Path) -> None:
    """Whatever they hold."""
    (tmp_path / "votes.csv").write_text("item_a,item_b,winner\n" + "<script>alert(1)</script>,b & c,item_a\n" * 3)
    page = made_by(tmp_path / "out", "solve", str(tmp_path / "votes.csv"))
    assert len(page.of("script")) == 1 and "<script>alert(1)</script>" in page.text and "b & c" in page.text


def test_a_formula_that_cannot_be_read_is_shown_as_it_is() -> None:
    """A user's claim may hold any LaTeX."""
    assert mathematics(r"\frac{1}{") == r"<code>\frac{1}{</code>"
    assert mathematics(r"\undefined <x>").count("<x>") == 0


@pytest.mark.parametrize("name", claims.names())
def test_every_statement_is_set(name: str) -> None:
    """No command of LaTeX is left in it."""
    found = mathematics(claims.get(name).statement)
    assert found.startswith("<math") and "\\" not in found


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "is not there; give one that a command wrote with --out"),
        ({}, "holds no result.json"),
        ({"sweep.json": "{}"}, "holds no result.json.*the sweep in it is not finished"),
        ({"result.json": "{"}, "is not JSON"),
        ({"result.json": "[1]"}, "must hold one JSON object"),
        ({"result.json": '{"a": 1}'}, "is not a result of nlhfsim"),
        ({"result.json": '{"runs": []}', "provenance.json": "{"}, "provenance.json' is not JSON"),
        ({"result.json": '{"policy": [0.5]}'}, "result.json' is not complete: 'labels'"),
        ({"result.json": '{"beta": 1, "status": "certified", "labels": [], "policy": [[]]}'}, "is not complete"),
        ({"result.json": '{"runs": [{"final_kl": 1%s}]}' % ("0" * 400)}, "is not complete"),
    ],
)
def test_folders_without_a_result_are_refused(
    files: dict[str, str] | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By an error, and on the command line by one sentence and exit code 2."""
    folder = tmp_path / "folder"
    if files is not None:
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
    with pytest.raises(DataError, match=message):
        write_report(folder)
    with pytest.raises(SystemExit) as stop:
        main(["report", str(folder)])
    assert stop.value.code == 2 and re.search(message, capsys.readouterr().err)


def test_a_page_goes_where_it_is_told(verified: Path, tmp_path: Path) -> None:
    """To a file; a folder is none."""
    result = CliRunner().invoke(group, ["report", str(verified), "--out", str(tmp_path / "page.html"), "--json"])
    assert json.loads(result.stdout) == {"path": str(tmp_path / "page.html")} and (tmp_path / "page.html").exists()
    with pytest.raises(DataError, match="is a folder, must be the name of a file"):
        write_report(verified, tmp_path)


# --- in a browser ---------------------------------------------------------------------------------------------------------


def run_chromium(*arguments: str) -> str:
    """What headless Chromium prints."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=4000"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=True, timeout=120).stdout


def seen(page: Path, script: str, tmp_path: Path, width: int = 1200) -> Any:
    """What a script finds in the page once it has loaded, in a window so wide."""
    probe = "<script>document.title = 'FOUND' + JSON.stringify((() => {%s})());</script></body>" % script
    copy = tmp_path / "probe.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    # A window is not narrower than 500 pixels: a frame is.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe id="f" src="probe.html" style="width:{width}px;height:900px;border:0"></iframe><pre id="out"></pre><script>'
        "f.onload = () => { out.textContent = f.contentDocument.title; };</script>"
    )
    dumped = run_chromium("--allow-file-access-from-files", "--dump-dom", frame.as_uri())
    found = re.search(r"FOUND(.*?)</pre>", dumped, re.S)
    assert found is not None, dumped[-2000:]
    return json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))


@browser
def test_tables_sort_and_filter(verified: Path, tmp_path: Path) -> None:
    """Numbers as numbers, up and down, with what screen readers are told; a filter where there are many rows."""
    script = """
        const table = document.querySelector("#claims table"), heads = [...table.tHead.rows[0].cells];
        const column = heads.findIndex((head) => head.textContent.trim() === "worst ratio");
        const values = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[column].dataset.key));
        heads[column].querySelector("button").focus();
        const focused = document.activeElement.textContent;
        heads[column].querySelector("button").click();
        const up = [values(), heads[column].getAttribute("aria-sort")];
        heads[column].querySelector("button").click();
        const down = [values(), heads[column].getAttribute("aria-sort")];
        heads[0].querySelector("button").click();
        const names = [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
        const input = document.querySelector("#claims input");
        input.value = "nash-md step"; input.dispatchEvent(new Event("input"));
        const left = [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[0].textContent);
        return {focused, up, down, names, left, sorted: heads[column].getAttribute("aria-sort")};
    """
    found = seen(verified / "report.html", script, tmp_path)
    expected = sorted(claim["worst_ratio"] for claim in json.loads((verified / "result.json").read_text())["claims"])
    assert found["focused"] == "worst ratio" and found["sorted"] is None
    assert found["up"] == [pytest.approx(expected), "ascending"]
    assert found["down"] == [pytest.approx(expected[::-1]), "descending"]
    assert found["names"] == sorted(found["names"]) and found["left"] == ["nash-md-step"]


@browser
@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_sticks_out(verified: Path, width: int, tmp_path: Path) -> None:
    """On a phone as on a desk: the page is as wide as the window, and what is wider scrolls in a box that takes the focus."""
    script = """
        const wide = [...document.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > innerWidth + 1);
        const stray = wide.filter((one) => !one.closest(".scroll, .formula, pre") && !one.closest(".skip"));
        return {
            page: document.documentElement.scrollWidth - innerWidth,
            stray: stray.map((one) => one.outerHTML.slice(0, 80)),
            boxes: [...document.querySelectorAll(".scroll, .formula")].every((one) => one.tabIndex === 0),
            formulas: [...document.querySelectorAll(".formula math")].every((one) => one.getBoundingClientRect().height > 10),
        };
    """
    assert seen(verified / "report.html", script, tmp_path, width) == {"page": 0, "stray": [], "boxes": True, "formulas": True}


@browser
@pytest.mark.parametrize("width, least", [(390, 9), (1200, 13)])
def test_the_curves_of_a_training_run_can_be_read(width: int, least: int, tmp_path: Path) -> None:
    """Their smallest letters, 7 points in a figure of 7 inches, have so many pixels; a picture wider than the page scrolls."""
    (tmp_path / "config.json").write_text('{"training": {"method": "nash_prox", "beta": 0.1, "steps": 9}}')
    names = [name for panel in PANELS for name, _ in panel.curves]
    records = [{"kind": "evaluation", "step": step} | {name: 0.5 + step / 10 for name in names} for step in range(3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    script = """
        const picture = document.querySelector("#figures img"), box = picture.getBoundingClientRect();
        const scale = Math.min(box.width / picture.naturalWidth, box.height / picture.naturalHeight);
        const letters = scale * 7 * 96 / 72;
        return {letters, page: document.documentElement.scrollWidth - innerWidth};
    """
    found = seen(write_report(tmp_path), script, tmp_path, width)
    assert found["letters"] >= least and found["page"] == 0


@browser
def test_every_column_of_the_evaluations_is_seen(tmp_path: Path) -> None:
    """Of the widest table that there can be, with its longest numbers: on a desk nothing is left to a scroll bar."""
    (tmp_path / "config.json").write_text('{"training": {"method": "nash_prox", "beta": 0.1, "steps": 900}}')
    records = [{"kind": "evaluation"} | dict.fromkeys(SHOWN, 0.012344) | {"step": step, "length": 152.34} for step in (0, 900)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    script = """
        const box = document.querySelector("#evaluations .scroll"), heads = [...box.querySelectorAll("th")];
        return {columns: heads.length, hidden: box.scrollWidth - box.clientWidth};
    """
    assert seen(write_report(tmp_path), script, tmp_path) == {"columns": len(SHOWN), "hidden": 0}


@browser
def test_it_prints(verified: Path, tmp_path: Path) -> None:
    """To a PDF of many pages."""
    target = tmp_path / "page.pdf"
    run_chromium("--no-pdf-header-footer", f"--print-to-pdf={target}", (verified / "report.html").as_uri())
    assert target.read_bytes().startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", target.read_bytes())) > 3
