"""How the app starts, and what it says where Gradio says nothing."""

import http.server
import threading
import time

import gradio as gr


class Slow(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        time.sleep(3.5)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_host_that_needs_more_than_three_seconds_for_its_page_starts_all_the_same():
    from gradio import networking

    import app

    with http.server.HTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert networking.url_ok is app.is_reached and app.is_reached(f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()
    assert not app.is_reached("http://127.0.0.1:9/"), "where nothing answers, it is said as before"


def test_what_is_said_without_a_queue_goes_with_the_answer():
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from ssl_demo.ui import leaving, toasts

    def answer():
        toasts.warn("That “<b>” is left out.")
        return 1

    with gr.Blocks() as demo:
        number = gr.Number()
        demo.load(answer, None, number, queue=False, api_name="answer")
        demo.load(lambda: 2, None, number, queue=False, api_name="quiet")
    # The header goes with the answer of this request only.
    app = gr.mount_gradio_app(FastAPI(middleware=leaving.SERVED["middleware"]), demo, "/")
    client = TestClient(app)
    said = [client.post(f"/gradio_api/run/{name}", json={"data": []}).headers.get("x-said") for name in ("answer", "quiet")]
    assert "%26lt%3Bb%26gt%3B" in said[0] and said[1] is None


def test_no_event_changes_what_much_lies_in():
    """Gradio's page copies the settings of all that lies in an event's outputs whenever any event begins or ends."""
    import app

    config, inside = app.demo.config, {}

    def count(node: dict) -> int:
        children = node.get("children") or []
        inside[node.get("id")] = len(children) + sum(map(count, children))
        return inside[node.get("id")]

    assert count(config["layout"]) > 300
    at_start = [event["outputs"] for event in config["dependencies"] if any(kind == "load" for _, kind in event["targets"])]
    assert at_start and max(map(len, at_start)) <= 3
    assert max(inside[one] for event in config["dependencies"] for one in event["outputs"]) <= 8
