"""The app: `python app.py`, or what a Hugging Face Space runs."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

try:
    import spaces  # on ZeroGPU it must come before torch
except ImportError:
    spaces = None

from ssl_demo.inference import limit_threads  # noqa: E402
from ssl_demo.ui import page  # noqa: E402

limit_threads()

on_zero_gpu = spaces is not None and os.environ.get("SPACES_ZERO_GPU")
demo = page.build(run=spaces.GPU(duration=20)(page.run) if on_zero_gpu else page.run).queue(max_size=64)

LAUNCH = {"theme": page.THEME, "css_paths": [page.CSS], "max_file_size": "100mb", "run_history": False,
          "footer_links": ["api"], "enable_monitoring": False}

if __name__ == "__main__":
    demo.launch(**LAUNCH)
