"""What the scripts that look at pages share: headless Chromium, a page that loads without an error and asks for nothing.

Needs the package playwright, and a Chromium: CHROMIUM names it, /usr/bin/chromium is tried.
"""
import contextlib
import os


@contextlib.contextmanager
def pages(file, pictures=None):
    """Gives `opened(width, height, scheme, scripts=True)`, which opens the file and returns the page with the list of what
    it says from then on, and `picture(page, name)`, which writes one into the folder `pictures`, if there is one."""
    from playwright.sync_api import sync_playwright

    url = file.resolve().as_uri()
    with sync_playwright() as playwright:
        path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(
            executable_path=path if os.path.exists(path) else None, args=["--no-sandbox"]
        )

        def opened(width, height, scheme, scripts=True):
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme, java_script_enabled=scripts
            )
            page = context.new_page()
            said, asked = [], []
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda request: asked.append(request.url))
            page.goto(url)
            asked = [other for other in asked if other != url and not other.startswith("data:")]
            assert not said and not asked, (said, asked)
            return page, said

        def picture(page, name):
            if pictures:
                page.screenshot(path=str(pictures / f"{name}.png"), full_page=True)

        yield opened, picture
        browser.close()


def themes(page):
    """The button changes between dark and light, and back."""
    colour = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")
    first = colour()
    page.click(".theme")
    assert colour() != first
    page.click(".theme")
    assert colour() == first
