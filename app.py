"""The app: `python app.py`, or what a Hugging Face Space runs."""

import atexit
import os
import shutil
import sys
import tempfile

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
if not os.environ.get("GRADIO_TEMP_DIR"):
    # A folder of its own for what visitors bring: in the one that all apps of a machine share, files have the names of their
    # contents, and an app whose visitor left would delete the very picture that another one's visitor looks at.
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="ssl_demo_visits_")
    atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)

from ssl_demo import texts

try:
    texts.table()
except ValueError as error:  # what the host chose is not there
    print(f"ssl_demo: {error}", file=sys.stderr)
    raise SystemExit(2) from None

try:
    import spaces  # on ZeroGPU it must come before torch
except ImportError:
    spaces = None

import httpx  # noqa: E402
from gradio import networking  # noqa: E402

from ssl_demo import inference  # noqa: E402
from ssl_demo.ui import leaving, page  # noqa: E402

inference.limit_threads()
run = page.run

if spaces is not None and os.environ.get("SPACES_ZERO_GPU"):
    run_on_gpu = spaces.GPU(duration=20)(page.run)

    def run(name, weights, *rest):
        """Large networks borrow a GPU for the call; small ones answer on the processor before one could be lent."""
        return (run_on_gpu if inference.load(name, weights).is_large else page.run)(name, weights, *rest)




def is_reached(url: str) -> bool:
    """Whether the app answers at its own address. Gradio gives it 3 s before it gives up starting; a busy host needs more."""
    try:
        return httpx.head(url, timeout=120, verify=False).status_code < 404
    except httpx.TransportError:
        return False


networking.url_ok = is_reached
demo = page.build(run).queue(max_size=64)
LAUNCH = {"theme": page.THEME, "css_paths": page.CSS, "max_file_size": "256mb", "run_history": False,
          "footer_links": ["api"], "enable_monitoring": False, "app_kwargs": leaving.SERVED}

if __name__ == "__main__":
    demo.launch(**LAUNCH)
