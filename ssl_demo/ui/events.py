"""How events of the page are handled."""

# What answers at once: not queued, without a spinner, and of many turns of a knob only the last.
QUICK = {"queue": False, "show_progress": "hidden", "trigger_mode": "always_last", "api_visibility": "private"}
