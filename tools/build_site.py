"""HTML pages of the six notebooks and an index, under build/site/.

No script, font or style comes from elsewhere: the pages work offline.

Executed copies (build/notebooks/) are preferred to the committed notebooks, notebook by notebook.
"""

from __future__ import annotations

import base64
import html
import json
import logging
import mimetypes
import re
import shutil
import sys
from pathlib import Path

import jinja2
import mistune
import nbformat
from bs4 import BeautifulSoup
from latex2mathml.converter import convert as mathml
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter
from setup_cell import FOLDER, NOTEBOOKS, setup_cells

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
QUESTION = (
    "When a Vision Transformer for medical images is shrunk, what is kept and what is lost: "
    "in accuracy, in calibration, in cost, and in where it looks?"
)
WIDGET_NOTE = "<p class='widget'>Interactive in JupyterLab; the figure below shows the same without it.</p>"
CSS = (Path(__file__).parent / "site.css").read_text(encoding="utf-8")
WIDGET = "application/vnd.jupyter.widget-view+json"
MATH = re.compile(
    r"(?<!\\)\$\$(?P<block>.+?)(?<!\\)\$\$"
    r"|(?<![\\$\w])\$(?=\S)(?P<inline>[^$\n]+?)(?<=[^\s\\])\$(?![\d$])",
    re.DOTALL,
)
CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)


# ---------------------------------------------------------------- reading a notebook
def first_markdown(notebook: nbformat.NotebookNode) -> str:
    return next((c.source for c in notebook.cells if c.cell_type == "markdown"), "")


def title(notebook: nbformat.NotebookNode, name: str) -> str:
    """The first heading, without its number: the number is shown beside it."""
    match = re.search(r"^#\s+(.+)$", first_markdown(notebook), flags=re.MULTILINE)
    return re.sub(r"^\d+\W*\s*", "", match.group(1)) if match else name


def goals(notebook: nbformat.NotebookNode, most: int = 4) -> list[str]:
    """The goal lines: the row `| **Goals** | a; b; c |` or the list after "goals"; else the first paragraph."""
    opening = "\n\n".join(c.source for c in notebook.cells[:3] if c.cell_type == "markdown")
    row = re.search(r"^\|\W*goals?\W*\|(.+?)\|\s*$", opening, flags=re.MULTILINE | re.IGNORECASE)
    if row:
        return [goal.strip() for goal in row[1].split(";")][:most]
    after = re.split(r"goals?\b", opening, maxsplit=1, flags=re.IGNORECASE)[-1]
    after = re.sub(r"\n[ \t]+(?=[^\s*+-])", " ", after)  # an item may run over several lines
    items = re.findall(r"^[ \t]*(?:[-*+]|\d+\.)[ \t]+(.+)$", after, flags=re.MULTILINE)
    if not items:
        items = [p for p in opening.split("\n\n") if re.match(r"\s*\w", p)][:1]
    return [" ".join(item.split()) for item in items[:most]]


def thumbnail(notebook: nbformat.NotebookNode) -> str | None:
    """A PNG (base64) for the card: the cell tagged 'card', else the first figure."""
    pictures = [
        ("card" in cell.metadata.get("tags", []), output.data["image/png"])
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    tagged = [png for is_card, png in pictures if is_card]
    return (tagged or [png for _, png in pictures] or [None])[0]


def facts(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """What the setup cell printed: profile, device, data, source."""
    text = "".join(o.get("text", "") for cell in setup_cells(notebook) for o in cell.outputs)
    return dict(re.findall(r"^(profile|device|data|source)\s{2,}(.+)$", text, flags=re.MULTILINE))


# ---------------------------------------------------------------- one page
def inline(text: str) -> str:
    """One line of markdown as HTML without links (cards are links themselves)."""
    rendered = with_math(text, lambda t: mistune.html(t).strip())
    return re.sub(r"</?(p|a)\b[^>]*>", "", rendered)


def with_math(text: str, render) -> str:
    """Render markdown with its TeX as MathML; ``render`` sees placeholders, so it cannot mangle formulas."""
    formulas: list[str] = []

    def keep(match: re.Match) -> str:
        block = match.group("block") is not None
        tex = " ".join((match.group("block") or match.group("inline")).split())
        try:
            formulas.append(mathml(tex, display="block" if block else "inline"))
        except Exception:  # TeX that the converter does not know stays readable as TeX
            formulas.append(f"<code>{html.escape(tex)}</code>")
        return f"xMATHx{len(formulas) - 1}x"

    parts = CODE.split(text)  # odd parts are code, where $ is a dollar
    parts[::2] = [MATH.sub(keep, part) for part in parts[::2]]
    rendered = render("".join(parts))
    return re.sub(r"xMATHx(\d+)x", lambda m: formulas[int(m.group(1))], rendered)


def for_paper(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy without what a page cannot show: widgets become one line, progress bars go."""
    notebook = nbformat.reads(nbformat.writes(notebook), as_version=4)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            if WIDGET in output.get("data", {}):
                if re.search(r"\d+%\||\d+it \[|\d+/\d+ \[", output.data.get("text/plain", "")):
                    continue  # a finished progress bar
                output = nbformat.v4.new_output("display_data", {"text/html": WIDGET_NOTE})
            elif output.output_type == "stream":  # after carriage returns a terminal shows the last state
                output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)
                if not output.text.strip():
                    continue
            kept.append(output)
        cell.outputs = kept
    return notebook


def page(name: str, notebook: nbformat.NotebookNode, titles: dict[str, str]) -> str:
    """One notebook as a self-contained page."""
    exporter = HTMLExporter(template_name="basic", exclude_anchor_links=True)
    plain = exporter.markdown2html

    @jinja2.pass_context
    def markdown2html(context, source):
        return with_math(source, lambda text: plain(context, text))

    exporter.register_filter("markdown2html", markdown2html)
    body, _ = exporter.from_notebook_node(for_paper(notebook), {"metadata": {"path": str(FOLDER)}})
    soup = BeautifulSoup(body, "html.parser")
    for link in soup.select("a[href]"):
        link["href"] = rewrite(link["href"])
    for area in soup.select(".celltag_setup .input"):  # six times the same: folded
        folded = area.wrap(soup.new_tag("details", attrs={"class": "setup"}))
        summary = soup.new_tag("summary")
        summary.string = "Setup, the same in all six notebooks"
        folded.insert(0, summary)
    heading = ""
    for tag in soup.select("h1, h2, h3, img"):
        if tag.name != "img":
            heading = tag.get_text(" ", strip=True)
            continue
        if tag.get("alt", "").startswith("No description"):
            tag["alt"] = f"Figure of the section: {heading}"
        picture = FOLDER / tag["src"]  # nbconvert's own embedding closes <details> too early
        if not tag["src"].startswith(("data:", "http")) and picture.is_file():
            kind = mimetypes.guess_type(picture)[0]
            tag["src"] = f"data:{kind};base64,{base64.b64encode(picture.read_bytes()).decode()}"
    links = nav(name, titles)
    return document(titles[name], f"{links}<main class='notebook'>{soup}</main>{links}")


def rewrite(href: str) -> str:
    """A notebook's link as its page's link: pages lie one folder deeper, and README is the index."""
    if re.match(r"(\w+:|#)", href):
        return href
    if re.search(r"README\.md(#.*)?$", href):
        return "index.html"
    href = re.sub(r"^(?:\./)?(0\d_\w+)\.ipynb", r"\1.html", href)
    return f"../../{href[3:]}" if href.startswith("../") else href


def nav(name: str, titles: dict[str, str]) -> str:
    at = NOTEBOOKS.index(name)
    shown = {n: f"{n[:2]} {html.escape(re.sub('[`*$]', '', titles[n]))}" for n in titles}
    before = [n for n in NOTEBOOKS[:at] if n in titles][-1:]
    after = [n for n in NOTEBOOKS[at + 1 :] if n in titles][:1]
    left = f"<a href='{before[0]}.html'>&larr; {shown[before[0]]}</a>" if before else "<span></span>"
    right = f"<a href='{after[0]}.html'>{shown[after[0]]} &rarr;</a>" if after else "<span></span>"
    return f"<nav>{left}<a class='home' href='index.html'>SeeWhatYouShrink</a>{right}</nav>"


def document(heading: str, body: str) -> str:
    code = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    heading = html.escape(re.sub("[`*$]", "", heading))
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{heading}</title><style>\n{code}\n{CSS}</style></head>\n<body>{body}</body></html>\n"
    )


# ---------------------------------------------------------------- the index
def card(name: str, notebook: nbformat.NotebookNode, heading: str) -> str:
    png = thumbnail(notebook)
    picture = "<div class='blank'></div>"
    if png:
        picture = f"<img alt='' src='data:image/png;base64,{''.join(png.split())}'>"
    lines = "".join(f"<li>{inline(goal)}</li>" for goal in goals(notebook))
    return (
        f"<a class='card' href='{name}.html'><div class='shot'>{picture}</div>"
        f"<h2><span>{name[:2]}</span> {inline(heading)}</h2><ul>{lines}</ul></a>"
    )


def table(path: Path) -> str:
    """benchmark_table.json as HTML."""
    content = json.loads(path.read_text(encoding="utf-8"))
    head = "".join(f"<th>{html.escape(str(c))}</th>" for c in content["columns"])
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(v))}</td>" for v in row) + "</tr>" for row in content["rows"]
    )
    note = f"<p class='note'>{html.escape(content['note'])}</p>" if content.get("note") else ""
    heading = html.escape(content.get("title") or "The final table")
    return (
        f"<section><h2>{heading}</h2><div class='wide'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>{note}</section>"
    )


def build(site: Path = BUILD / "site") -> Path:
    """Write all pages and the index; return the path of the index."""
    logging.getLogger("traitlets").setLevel(logging.ERROR)
    executed = {n: BUILD / "notebooks" / f"{n}.ipynb" for n in NOTEBOOKS}
    sources = {n: executed[n] if executed[n].is_file() else FOLDER / f"{n}.ipynb" for n in NOTEBOOKS}
    notebooks = {n: nbformat.read(p, as_version=4) for n, p in sources.items() if p.is_file()}
    if not notebooks:
        raise FileNotFoundError("no notebook in notebooks/ or build/notebooks/")
    titles = {n: title(nb, n) for n, nb in notebooks.items()}
    site.mkdir(parents=True, exist_ok=True)
    for old in site.glob("*.html"):
        old.unlink()
    for name, notebook in notebooks.items():
        (site / f"{name}.html").write_text(page(name, notebook, titles), encoding="utf-8")
        origin = "executed" if sources[name] == executed[name] else "committed"
        print(f"  {name}.html  ({origin} notebook)", flush=True)

    fresh = [n for n in notebooks if sources[n] == executed[n]]
    known: dict[str, list[str]] = {}  # several values when single notebooks were run in another setting
    for name in fresh or notebooks:
        for key, value in facts(notebooks[name]).items():
            known.setdefault(key, []).append(value)
    results = BUILD / "notebooks"  # kept there by run_tutorial.py, from the run that these pages show
    extras = ""
    if (results / "gradcam_browser.html").is_file():
        shutil.copyfile(results / "gradcam_browser.html", site / "gradcam_browser.html")
        extras = (
            "<a class='browser' href='gradcam_browser.html'><b>Open the Grad-CAM browser</b>"
            "<span>Slide through test images and see where each model looks; one file, no network.</span></a>"
        )
    if (results / "benchmark_table.json").is_file():
        final = table(results / "benchmark_table.json")
    else:
        hint = "The final table appears here after <code>make tutorial</code>."
        final = f"<section><p class='note'>{hint}</p></section>"
    origin = f"{len(fresh)} of {len(notebooks)} notebooks run on this machine" if fresh else "notebooks as committed"
    badges = [origin] + [f"{key}: {' / '.join(dict.fromkeys(values))}" for key, values in known.items()]
    body = (
        f"<header><h1>See<b>What</b>You<b>Shrink</b></h1><p>{html.escape(QUESTION)}</p></header>"
        "<main class='index'>"
        f"<div class='facts'>{''.join(f'<span>{html.escape(b)}</span>' for b in badges)}</div>"
        f"<div class='cards'>{''.join(card(n, nb, titles[n]) for n, nb in notebooks.items())}</div>"
        f"{extras}{final}"
        "<footer>Images: MedMNIST v2 (Yang et al. 2023). A teaching series, not a medical device.</footer>"
        "</main>"
    )
    index = site / "index.html"
    index.write_text(document("SeeWhatYouShrink", body), encoding="utf-8")
    return index


if __name__ == "__main__":
    try:
        print(f"index: {build().relative_to(ROOT)}")
    except FileNotFoundError as problem:
        sys.exit(f"site: {problem}")
