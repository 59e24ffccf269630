"""Takes README's pictures of the page anew, with a credited example photo: docs/overview.webp, mae.webp and transfer.webp.

    python benchmarks/pictures.py

Starts the app, opens each room in Chromium at 1440 x 900, waits for its answer and keeps what is on the screen, at 1200 x 750, as
WebP of at most 90,000 bytes. Needs Chromium and Playwright (requirements-dev.txt).
"""

import argparse
import io
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from PIL import Image  # noqa: E402
from served import browsed  # noqa: E402

import app  # noqa: E402
from ssl_demo.pretext import all_tasks  # noqa: E402

MOST_BYTES = 90_000
# A name, the link, and what must be true of the page before it is looked at.
PICTURES = (
    ("overview", "?room=overview&photo=chelsea",
     f"document.querySelectorAll('.method img').length === {2 * len(all_tasks())} && !document.querySelector('.progress')"),
    ("mae", "?task=mae&photo=chelsea", "document.querySelector('#mae-story .story')?.offsetParent"),
    ("transfer", "?room=transfer&photo=chelsea", "document.querySelector('#transfer-story .map .own image')"),
)


def webp(picture: Image.Image) -> bytes:
    """The best quality that fits."""
    for quality in range(90, 20, -5):
        stream = io.BytesIO()
        picture.save(stream, "WEBP", quality=quality, method=6)
        if stream.tell() <= MOST_BYTES:
            return stream.getvalue()
    raise ValueError("This picture does not fit.")


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    _, url, _ = app.demo.launch(prevent_thread_lock=True, quiet=True, **app.LAUNCH)
    with browsed() as page:
        for name, link, ready in PICTURES:
            page.goto(url + link)
            page.wait_for_function(ready, timeout=180_000)
            page.wait_for_timeout(5000)  # the photo's box, and what moves into its place
            made = webp(Image.open(io.BytesIO(page.screenshot())).convert("RGB").resize((1200, 750), Image.Resampling.LANCZOS))
            (ROOT / "docs" / f"{name}.webp").write_bytes(made)
            print(f"docs/{name}.webp", len(made))
    app.demo.close()


if __name__ == "__main__":
    main()
