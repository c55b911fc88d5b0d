"""One HTML page that needs nothing beside itself: style, script and pictures are inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

SPRITE_COLUMNS = 20
SHOWN_PX = 48

STYLE = """
:root{color-scheme:light;--ink:#1d2430;--soft:#5b6573;--rule:#e3e6ea;--accent:#1f5f99}
*{box-sizing:border-box}
body{margin:0;background:#f6f7f9;color:var(--ink);overflow-wrap:break-word;
  font:17px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:72rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .3rem;letter-spacing:-.01em}
h2{font-size:1.2rem;line-height:1.3;margin:0 0 .35rem}
h3{font-size:.9rem;margin:0 0 .4rem;font-weight:600}
p{margin:0 0 .9rem;max-width:44rem}
.soft,.caption{color:var(--soft);font-size:.93rem}
nav ul,.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;padding:0;margin:.8rem 0;
  font-size:.9rem}
a{color:var(--accent)}
section{background:#fff;border:1px solid var(--rule);border-radius:10px;padding:1.25rem 1.4rem;
  margin:1.25rem 0}
.box{overflow-x:auto}
.box img{display:block;max-width:100%;height:auto}
svg{display:block;max-width:100%;height:auto}
svg text{font-size:13px;fill:var(--soft)}
.grid{stroke:var(--rule)}
.line{fill:none;stroke-width:1.8}
.hit{fill:transparent;stroke:none}
.mark{cursor:pointer}
.mark:hover,.mark:focus{outline:none;filter:brightness(.8)}
.maps circle{fill-opacity:.85}
.seen{stroke:#1d2430;stroke-width:.7}
.dot{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.4em}
.maps{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,16rem),1fr));gap:1.2rem}
.maps svg{border:1px solid var(--rule);border-radius:6px;width:100%}
.scale{height:.7rem;max-width:16rem;border-radius:4px}
.ends{display:flex;justify-content:space-between;max-width:16rem;font-size:.85rem;color:var(--soft)}
table{border-collapse:separate;border-spacing:0;font-size:.92rem;width:100%}
th,td{padding:.4rem .7rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule);
  font-variant-numeric:tabular-nums}
th{font-weight:600;color:var(--soft);white-space:normal;vertical-align:bottom}
th:first-child,td:first-child{position:sticky;left:0;background:#fff;text-align:left;padding-left:0;
  min-width:10.5rem;white-space:normal}
code{font:.85em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:#eef1f4;border-radius:4px;
  padding:.12em .35em;overflow-wrap:anywhere}
.missing{border-style:dashed;background:#fbfbfc}
#tip{position:fixed;z-index:9;max-width:15.5rem;padding:.5rem .7rem;border-radius:7px;background:#1d2430;
  color:#fff;font-size:.85rem;line-height:1.4;white-space:pre-line;pointer-events:none}
.thumb{display:inline-block;image-rendering:pixelated;margin:4px 4px 0 0;border-radius:3px}
@media (max-width:40rem){
  body{font-size:16px}
  main{padding:1.25rem .75rem 3rem}
  section{padding:1rem .9rem}
  svg text{font-size:21px}
  th:first-child,td:first-child{min-width:8rem}
  svg .label{display:none}
  .box img{max-width:none;width:max(100%,34rem)}
}
"""

SCRIPT = """
const tip = document.getElementById('tip');
for (const mark of document.querySelectorAll('.mark')) {
  const title = mark.querySelector('title');
  mark.dataset.tip = title.textContent;
  mark.setAttribute('aria-label', title.textContent);
  title.remove();
}
function show(event) {
  const mark = event.target.closest && event.target.closest('.mark');
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.dataset.tip + (mark.dataset.i ? '\\n' : '');
  for (const i of mark.dataset.i ? mark.dataset.i.split(',') : []) {
    const thumb = document.createElement('span');
    thumb.className = 'thumb';
    thumb.style.backgroundPosition = `${-SHOWN * (i % COLUMNS)}px ${-SHOWN * Math.floor(i / COLUMNS)}px`;
    tip.append(thumb);
  }
  const box = mark.getBoundingClientRect();
  const left = box.left + box.width / 2 - tip.offsetWidth / 2;
  const right = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = Math.max(8, Math.min(left, right)) + 'px';
  const above = box.top - tip.offsetHeight - 8;
  tip.style.top = (above > 8 ? above : box.bottom + 8) + 'px';
}
for (const name of ['pointerover', 'pointerdown', 'focusin']) document.addEventListener(name, show);
document.addEventListener('scroll', () => { tip.hidden = true; }, true);
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Of the page's contents: a browser loads nothing from anywhere, whatever a run was named."""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: of its anchor, a word.
        title: plain text.
        caption: plain text.
        body: HTML; None if an input was missing.
        missing: what was missing, plain text.
        command: that would make it.
    """

    name: str
    title: str
    caption: str
    body: str | None
    missing: str = ""
    command: str = ""

    def html(self) -> str:
        """The section; without a body it says what would make one."""
        head = f"<h2>{escape(self.title)}</h2>"
        if self.body is None:
            why = f"<p>Left out: {escape(self.missing)}. This makes it:</p>"
            content = f"{head}{why}<p><code>{escape(self.command)}</code></p>"
            return f'<section id="{self.name}" class="missing">{content}</section>'
        return (
            f'<section id="{self.name}">{head}<p class="caption">{escape(self.caption)}</p>'
            f"{self.body}</section>"
        )


def page(title: str, facts: str, sections: Sequence[Section], thumbnails: str = "") -> str:
    """The whole page; ``thumbnails`` is the style of :func:`sprite`."""
    links = "".join(f'<li><a href="#{s.name}">{escape(s.title)}</a></li>' for s in sections if s.body)
    script = SCRIPT.replace("SHOWN", str(SHOWN_PX)).replace("COLUMNS", str(SPRITE_COLUMNS))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{thumbnails}</style>\n</head>\n<body>\n<main>\n"
        f'<header><h1>{escape(title)}</h1><p class="soft">{escape(facts)}</p>'
        f'<nav aria-label="Contents"><ul>{links}</ul></nav></header>\n'
        + "\n".join(section.html() for section in sections)
        + '\n</main>\n<div id="tip" role="status" hidden></div>\n'
        + f"<script>{script}</script>\n</body>\n</html>\n"
    )


def image(path: Path, alt: str) -> str:
    """A PNG file, inside the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<div class="box"><img alt="{escape(alt)}" src="data:image/png;base64,{data}"></div>'


def breakable(text: str) -> str:
    """Escaped, with leave to break a line after an underscore, as in the names of directories."""
    return escape(text).replace("_", "_<wbr>")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls inside its own box where the page is narrow."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{breakable(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        '<div class="box" tabindex="0" role="region" aria-label="Table, scrolls sideways">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def sprite(thumbnails: np.ndarray) -> str:
    """All thumbnails, uint8 ``(S, C, h, w)``, as one picture in the style of class "thumb"."""
    from PIL import Image

    count, channels, height, width = thumbnails.shape
    lines = -(-count // SPRITE_COLUMNS)
    sheet = np.zeros((lines * height, SPRITE_COLUMNS * width, channels), np.uint8)
    for place, picture in enumerate(thumbnails):
        top, left = place // SPRITE_COLUMNS * height, place % SPRITE_COLUMNS * width
        sheet[top : top + height, left : left + width] = picture.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(sheet.squeeze(2) if channels == 1 else sheet).save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f"{SPRITE_COLUMNS * SHOWN_PX}px {lines * SHOWN_PX}px"
    return (
        f".thumb{{width:{SHOWN_PX}px;height:{SHOWN_PX}px;background-size:{size};"
        f"background-image:url(data:image/png;base64,{data})}}"
    )
