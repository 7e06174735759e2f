#!/usr/bin/env python3
"""Looks at a page of `gumbel report` in headless Chromium, and reads event files with TensorBoard.

    scripts/report.py PAGE [--pictures DIR] [--events DIR --runs RUN...]

PAGE is an HTML file of at least two runs. Checks that it loads without an error and asks for nothing else, that all
links lead somewhere, that a value is shown where the mouse is, that lines can be hidden, that the table is sorted,
that dark and light can be chosen, that it fits a phone, and that it is whole without its script and on paper.
With --pictures, writes pictures of it to look at. With --events, checks that the event files of RUN... in DIR, which
`gumbel report RUN... --tensorboard DIR` has written, hold their metrics and pictures.

Needs Python with the packages playwright (and a Chromium: CHROMIUM names it, /usr/bin/chromium is tried) and, for
--events, tensorboard.
"""
import argparse
import json
import pathlib
import socket
import struct
import subprocess
import sys
import time
import urllib.request

from browser import pages, themes


def look(page_file, pictures):
    with pages(page_file, pictures) as (opened, picture):

        def behaves(page, said):
            # Links.
            for link in page.query_selector_all("a"):
                target = link.get_attribute("href")
                assert target.startswith("#") and page.query_selector(target), target
            page.click('nav a[href="#curves"]')
            assert page.url.endswith("#curves")
            # All pictures are pictures.
            assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
            # Hover: the value of the nearest point, as it stands in the data.
            curve = page.query_selector('.panel .curve[data-split="test"]')
            svg = page.query_selector(".panel svg")
            svg.scroll_into_view_if_needed()
            at = page.evaluate(
                """c => { let p = c.querySelector('polyline').points; p = p[p.numberOfItems - 1];
                   let q = new DOMPoint(p.x, p.y).matrixTransform(c.ownerSVGElement.getScreenCTM());
                   return [q.x, q.y]; }""",
                curve,
            )
            page.mouse.move(at[0] + 1, at[1] - 1)
            tip = page.text_content(".tip")
            assert page.is_visible(".tip") and page.query_selector(".ring"), tip
            shown = page.evaluate("[...document.querySelectorAll('.panel')][0].querySelectorAll('.curve').length")
            # Lines may lie upon each other: it is the value of one of the points there.
            near = page.evaluate(
                """([svg, x, y]) => [...svg.querySelectorAll('.curve')].flatMap(c => {
                   const d = c.dataset, [ys, epochs] = [d.y.split(' '), d.epoch.split(' ')];
                   return c.querySelector('polyline').getAttribute('points').split(' ').flatMap((pair, i) => {
                     const p = new DOMPoint(...pair.split(',').map(Number)).matrixTransform(svg.getScreenCTM());
                     return Math.hypot(p.x - x, p.y - y) < 6
                       ? [`${d.name}, ${d.split}: ${svg.dataset.name} ${ys[i]} at epoch ${epochs[i]}`] : [];
                   });
                 })""",
                [svg, *at],
            )
            assert tip in near, (tip, near)
            page.mouse.move(1, 1)
            assert not page.is_visible(".tip")
            # A line that is hidden, and its split, and back.
            count = "[...document.querySelector('.panel').querySelectorAll('.curve')]" \
                ".filter(c => getComputedStyle(c).display !== 'none').length"
            visible = lambda: page.evaluate(count)
            assert visible() == shown
            entries = page.query_selector_all(".legend button")
            entries[0].click()
            own = len(page.query_selector_all('.panel:first-child .curve[data-run="run-1"]'))
            assert visible() == shown - own and entries[0].get_attribute("aria-pressed") == "false"
            page.mouse.move(at[0], at[1])
            assert curve.get_attribute("data-name") not in page.text_content(".tip").split(",")[0]
            page.mouse.move(1, 1)
            entries[-1].click()
            assert visible() < shown - own
            entries[0].click()
            entries[-1].click()
            assert visible() == shown
            # Sorting: up, then down, what has no value at the end.
            head = page.query_selector_all("th[data-column].number button")[1]
            column = int(head.evaluate("b => b.parentNode.dataset.column"))
            values = lambda: page.evaluate(
                "c => [...document.querySelectorAll('.sortable tbody tr')].map(r => r.cells[c].dataset.value)", column
            )
            for down in (False, True):
                head.click()
                found = [float(v) for v in values() if v is not None]
                assert found == sorted(found, reverse=down), found
                assert None not in values()[: len(found)]
            page.click("th[data-column='0'] button")
            names = page.evaluate("[...document.querySelectorAll('.sortable tbody th')].map(t => t.dataset.sort)")
            assert len(set(names)) == len(names) > 1
            themes(page)
            # Folded tables.
            assert not page.is_visible("details .scroll")
            page.click("details summary")
            assert page.is_visible("details .scroll")
            page.click("details summary")
            assert not said, said

        for scheme in ("light", "dark"):
            for width, height, name in ((1280, 900, "desktop"), (390, 844, "phone")):
                page, said = opened(width, height, scheme)
                picture(page, f"{name}-{scheme}")
                # Wide tables scroll by themselves, the page does not.
                wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert wide <= 0, f"{name}: {wide} pixels too wide"
                behaves(page, said)
        # Without its script: all of it stands there, and nothing that does not work.
        page, _ = opened(1280, 900, "light", scripts=False)
        assert page.locator("details .scroll").first.is_visible() and page.locator("button").count() == 0
        assert page.locator(".panel .curve").first.is_visible()
        picture(page, "without-script")
        # On paper, from a dark screen: everything open, dark on light.
        page, _ = opened(1000, 1400, "dark")
        page.emulate_media(media="print")
        hidden = [d for d in page.query_selector_all("details .scroll") if not d.is_visible()]
        assert not hidden and not page.is_visible(".theme")
        assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
        picture(page, "print")
        if pictures:
            page.pdf(path=str(pictures / "print.pdf"), format="A4", prefer_css_page_size=True)
    print(f"{page_file}: as it should be")


def read_events(folder, runs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(place):
        events = EventAccumulator(str(place), size_guidance={"tensors": 0, "images": 0, "scalars": 0})
        return events.Reload()

    short = lambda x: struct.unpack("f", struct.pack("f", x))[0]
    for run in runs:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for split in sorted({line["split"] for line in lines}):
            own = [line for line in lines if line["split"] == split]
            events = read(folder / run.name / split)
            tags = events.Tags()["scalars"]
            assert {"bound", "kl", "reconstruction", "epoch"} <= set(tags), tags
            for tag in tags:
                expected = [(line["step"], short(line[tag])) for line in own if line.get(tag) is not None]
                assert [(e.step, e.value) for e in events.Scalars(tag)] == expected, tag
        pictures = [name for name in ("samples", "reconstructions") if (run / f"{name}.png").exists()]
        if pictures:
            events = read(folder / run.name)
            assert set(pictures) <= set(events.Tags()["images"]), events.Tags()
            for name in pictures:
                (image,) = events.Images(name)
                assert image.encoded_image_string == (run / f"{name}.png").read_bytes()
                assert image.encoded_image_string[16:24] == struct.pack(">II", image.width, image.height)
    served(folder, runs)
    print(f"{folder}: TensorBoard reads what {len(runs)} runs have")


def served(folder, runs):
    """The server has a reader of its own."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    program = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    server = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def asked(plugin):
        with urllib.request.urlopen(f"http://localhost:{port}/data/plugin/{plugin}/tags", timeout=10) as answer:
            return json.load(answer)

    expected = {f"{run.name}/{split}" for run in runs for split in ("train", "valid", "test")}
    try:
        for _ in range(120):
            time.sleep(1)
            try:
                scalars, images = asked("scalars"), asked("images")
            except OSError:
                continue
            if expected <= set(scalars) and images:
                break
        assert expected <= set(scalars), (expected, set(scalars))
        assert all("bound" in scalars[name] for name in expected)
        assert any("samples" in tags for tags in images.values()), images
    finally:
        server.terminate()
        server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--pictures", type=pathlib.Path)
    parser.add_argument("--events", type=pathlib.Path)
    parser.add_argument("--runs", type=pathlib.Path, nargs="+", default=[])
    args = parser.parse_args()
    try:
        if args.pictures:
            args.pictures.mkdir(parents=True, exist_ok=True)
        look(args.page, args.pictures)
        if args.events:
            read_events(args.events, args.runs)
    except ModuleNotFoundError as error:
        sys.exit(f"report.py: needs the Python package {error.name}: pip install playwright tensorboard")


main()
