#!/usr/bin/env python3
"""Looks at a page of `gumbel reproduce` in headless Chromium.

    scripts/reproduce.py PAGE [--pictures DIR]

PAGE is an index.html with curves. Checks that it loads without an error and asks for nothing else, that all links lead
somewhere, that pictures are pictures, that a value is shown where the mouse is, that lines can be hidden, that it can be
dark and light, that nothing is wider than a phone, and that it is whole on paper and without its script. With --pictures,
writes pictures of it to look at.

Needs Python with the package playwright (and a Chromium: CHROMIUM names it, /usr/bin/chromium is tried).
"""
import argparse
import pathlib

from browser import pages, themes

parser = argparse.ArgumentParser()
parser.add_argument("page", type=pathlib.Path)
parser.add_argument("--pictures", type=pathlib.Path)
arguments = parser.parse_args()
if arguments.pictures:
    arguments.pictures.mkdir(parents=True, exist_ok=True)

with pages(arguments.page, arguments.pictures) as (opened, picture):
    for width, height, scheme in ((1280, 900, "light"), (1280, 900, "dark"), (390, 800, "light")):
        page, said = opened(width, height, scheme)
        picture(page, f"{width}-{scheme}")
        for link in page.query_selector_all("a"):
            target = link.get_attribute("href")
            assert target.startswith("#") and page.evaluate("id => !!document.getElementById(id)", target[1:]), target
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{wide} pixels too wide"
        # Every panel: the value of the nearest point, and lines that come and go.
        panels = page.query_selector_all(".panel svg")
        assert panels, "expected a page with curves"
        for svg in panels:
            svg.scroll_into_view_if_needed()
            at = svg.evaluate(
                """s => { const c = [...s.querySelectorAll('.curve')].pop(), p = c.querySelector('polyline').points,
                   q = p[p.numberOfItems - 1], t = new DOMPoint(q.x, q.y).matrixTransform(s.getScreenCTM());
                   return [t.x, t.y]; }"""
            )
            page.mouse.move(at[0] + 1, at[1] - 1)
            tip, unit = page.text_content(".tip"), svg.get_attribute("data-unit")
            assert page.is_visible(".tip") and " at epoch " in tip and tip.endswith(unit), (tip, unit)
            assert unit or tip.split(" at epoch ")[1].isdigit(), tip
        page.mouse.move(1, 1)
        entry = page.query_selector(".legend li")
        key = entry.get_attribute("data-key")
        shown = f"[...document.querySelectorAll('.curve[data-run={key}]')].every(c => getComputedStyle(c).display !== 'none')"
        assert page.evaluate(shown)
        entry.query_selector("button").click()
        assert not page.evaluate(shown)
        entry.query_selector("button").click()
        assert page.evaluate(shown) and not said, said
        # Dark and light, and whole on paper.
        themes(page)
        folded = "[...document.querySelectorAll('details')].filter(d => !d.open).length"
        count = page.evaluate(folded)
        assert count
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate(folded) == 0
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.evaluate(folded) == count
        # Every figure of ours names its file.
        own = "e => /[.]json#.(summary|curve).|[.]jsonl:[0-9]+#./.test(e.dataset.source)"
        places = f"[...document.querySelectorAll('[data-value]')].every({own})"
        assert page.evaluate(places)
    page, _ = opened(1280, 900, "light", scripts=False)
    assert page.is_visible(".compared") and page.is_visible("details table"), "tables without the script"
    picture(page, "plain")
print(f"{arguments.page}: as it should be")
