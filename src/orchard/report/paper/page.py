"""A document as one HTML file: no script, no font, no request; readable on screen, on paper and in the dark."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from orchard.report.paper.charts import svg
from orchard.report.paper.document import Document, Figure, Section, Table, shown

MOST_BYTES = 2_000_000
"""A page before data stays below this."""
MOST_DATA_ROWS = 400

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1a1d21;--soft:#4d5661;--rule:#d5dae0;--lane:#eef1f4;--grid:#dfe4e9;
--card:#f5f7f9;--link:#0b57b0;--compute:#1f6fc4;--memory:#c2540a;--dispatch:#6b7480;--host:#8a5cc2;--s4:#2e7d4f;--s5:#a63d7a;
--s6:#8a6d00;--other:#5a6570;--limit:#1a1d21}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e8ebee;--soft:#aab4bf;--rule:#39424c;--lane:#20262d;
--grid:#2c343c;--card:#1c2127;--link:#8ab8f5;--compute:#6aa9f0;--memory:#f0954e;--dispatch:#98a3ae;--host:#b897e6;--s4:#6cc08f;
--s5:#e08bbd;--s6:#d9bd4a;--other:#98a3ae;--limit:#e8ebee}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif}
main,header,footer{max-width:62rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2rem}h1{font-size:1.9rem;line-height:1.2;margin:0 0 .2rem}
h2{font-size:1.3rem;margin:2.4rem 0 .6rem;padding-bottom:.25rem;border-bottom:1px solid var(--rule)}
h3{font-size:1rem;margin:1.6rem 0 .4rem}p{margin:.5rem 0;max-width:48rem}.sub{color:var(--soft);margin:0 0 1rem}
a{color:var(--link)}a:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:3px solid var(--link);outline-offset:2px}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:1rem;background:var(--paper);padding:.5rem 1rem;z-index:1}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.75rem;margin:1.25rem 0;padding:0;
list-style:none}
.facts li{background:var(--card);border:1px solid var(--rule);border-radius:.5rem;padding:.7rem .9rem}
.facts .label{color:var(--soft);font-size:.85rem;display:block}.facts .value{font-size:1.5rem;font-weight:650;display:block}
.facts .detail{color:var(--soft);font-size:.85rem}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;padding:0;margin:1rem 0;list-style:none}
figure{margin:1.2rem 0 1.8rem}figcaption{font-weight:600;margin-bottom:.3rem}.about{color:var(--soft);font-size:.92rem}
svg{width:100%;height:auto;display:block;font-size:12.5px;overflow:visible}svg text{fill:var(--ink)}
svg .num{font-variant-numeric:tabular-nums}
svg .halo{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
.compute{fill:var(--compute)}.memory{fill:var(--memory)}.dispatch{fill:var(--dispatch)}.host{fill:var(--host)}.s4{fill:var(--s4)}
.s5{fill:var(--s5)}.s6{fill:var(--s6)}.other{fill:var(--other)}.lane{fill:var(--lane)}
.dot{fill-opacity:.75;stroke:var(--paper);stroke-width:1}.piece{stroke:var(--paper);stroke-width:.35}.area{fill-opacity:.85}
.grid{stroke:var(--grid);fill:none}.limit{stroke:var(--limit);stroke-width:1.6;stroke-dasharray:6 4;fill:none}
.front{stroke:var(--memory);stroke-width:1.6;fill:none}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;margin:.4rem 0;min-width:50%}
caption{text-align:left;font-weight:600;padding:.3rem 0}th,td{padding:.25rem .7rem .25rem 0;text-align:left;vertical-align:top}
th{border-bottom:1px solid var(--rule);color:var(--soft);font-weight:600}td.n,
th.n{text-align:right;font-variant-numeric:tabular-nums}
tbody tr+tr td{border-top:1px solid var(--lane)}details{margin:.3rem 0}summary{cursor:pointer;color:var(--link);font-size:.9rem}
.note{color:var(--soft);font-size:.9rem}footer{color:var(--soft);font-size:.85rem;padding-top:2rem;padding-bottom:2.5rem}
code{font:.88em ui-monospace,Menlo,Consolas,monospace;overflow-wrap:anywhere}
@media print{:root{--paper:#fff;--ink:#000;--soft:#333;--card:#fff;--link:#000;--compute:#1f6fc4;--memory:#c2540a;
--dispatch:#6b7480;--host:#8a5cc2;--s4:#2e7d4f;--s5:#a63d7a;--s6:#8a6d00;--lane:#eef1f4;--grid:#dfe4e9;--rule:#bbb;--limit:#000}
body{font-size:10.5pt}svg{max-height:7.6cm}nav,.skip,details{display:none}h2{break-after:avoid}
figure,.facts li,tr{break-inside:avoid}thead,caption{break-after:avoid}
.scroll{overflow:visible}main,header,footer{max-width:none;padding:0}@page{size:A4;margin:16mm 15mm}}
"""


def html(document: Document) -> str:
    """The whole page."""
    links = "".join(f'<li><a href="#{s.id}">{escape(s.title)}</a></li>' for s in document.sections)
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(document.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#content">Skip to the content</a>\n'
    )
    body = [
        "<header>", f"<h1>{escape(document.title)}</h1>", f'<p class="sub">{escape(document.subtitle)}</p>',
        *(f"<p>{escape(s)}</p>" for s in document.summary), '<ul class="facts">',
        *(_fact(f.label, f.value, f.detail) for f in document.facts), "</ul>",
        f'<nav aria-label="Contents"><ul>{links}</ul></nav>', "</header>", '<main id="content">',
        *(line for s in document.sections for line in _section(s)), "</main>",
        f"<footer><p>{escape(document.made_by)}</p></footer>", "</body>\n</html>\n",
    ]  # fmt: skip
    return head + "\n".join(body)


def _fact(label: str, value: str, detail: str) -> str:
    return (
        f'<li><span class="label">{escape(label)}</span><span class="value">{escape(value)}</span>'
        f'<span class="detail">{escape(detail)}</span></li>'
    )


def _section(section: Section) -> Iterator[str]:
    yield f'<section id="{section.id}" aria-labelledby="{section.id}-h">'
    yield f'<h2 id="{section.id}-h">{escape(section.title)}</h2>'
    for text in section.text:
        yield f"<p>{_with_code(text)}</p>"
    for item in section.items:
        yield from (_figure(item) if isinstance(item, Figure) else table(item))
    yield "</section>"


def _with_code(text: str) -> str:
    """Text between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))


def _figure(figure: Figure) -> Iterator[str]:
    yield f'<figure id="{figure.id}"><figcaption>{escape(figure.title)}</figcaption>'
    yield svg(figure)
    yield f'<p class="about">{escape(figure.about)}</p>'
    yield "<details><summary>Data: " + escape(figure.title) + "</summary>"
    yield from table(figure.data, f"Data: {figure.title}")
    yield "</details></figure>"


def table(found: Table, label: str = "") -> Iterator[str]:
    """A table; numbers to the right. Long ones are cut, and say so. `label`: its name among all parts of the page."""
    numeric = [c.dimension != "text" for c in found.columns]
    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label or found.title)}"><table>'
    yield f"<caption>{escape(found.title)}</caption><thead><tr>"
    yield "".join(
        f'<th scope="col"{" class=n" if n else ""}>{escape(c.name)}</th>' for c, n in zip(found.columns, numeric)
    )
    yield "</tr></thead><tbody>"
    for row in found.rows[:MOST_DATA_ROWS]:
        cells = zip(row, found.columns, numeric, strict=True)
        yield (
            "<tr>"
            + "".join(f"<td{' class=n' if n else ''}>{_with_code(shown(v, c.dimension))}</td>" for v, c, n in cells)
            + "</tr>"
        )
    yield "</tbody></table></div>"
    hidden = len(found.rows) - MOST_DATA_ROWS
    if hidden > 0:
        yield f'<p class="note">{hidden:,} more rows: the CSV form has all of them.</p>'
    if found.note:
        yield f'<p class="note">{_with_code(found.note)}</p>'
