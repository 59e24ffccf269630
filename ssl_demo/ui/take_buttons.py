"""The buttons that take something home, as HTML, and their part of the page's script; what they bring is made in `take_home`."""

import html

from ..pretext import Panel
from ..texts import say

CHOICES = (("story", say("Story as a picture"), say("1920 × 1080, for a slide")),
           ("panels", say("All panels"), say("full size, in a ZIP")), ("results", say("Numbers"), "JSON"))
ARROW = '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M8 2v8M4.5 7 8 10.5 11.5 7M3 13.5h10"/></svg>'


def menu_html() -> str:
    """A small menu of what there is to download."""
    items = "".join(f'<button type="button" data-keep="{kind}">{name}<small>{what}</small></button>'
                    for kind, name, what in CHOICES)
    return f'<details class="take"><summary>{say("Take home")}</summary><div class="takes">{items}</div></details>'


def button_html(panel: Panel) -> str:
    """A button that downloads a panel; the page shows it where the pointer or the focus is."""
    kind = "PNG" if panel.video is None else "MP4"
    told = html.escape(say("Download “{title}” as {kind}, full size", title=panel.title, kind=kind))
    return f'<button type="button" class="keep" data-keep="{panel.name}" aria-label="{told}" title="{told}">{ARROW}</button>'


# What is on the page and the listeners' part of the story's script; the answer comes back as a data address.
KEEP = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-keep]');
  if (!button || button.getAttribute('aria-busy')) return;
  button.setAttribute('aria-busy', 'true');
  trigger('keep', {what: button.dataset.keep});
});
const shut = (event) => {
  const menu = element.querySelector('.take[open]');
  if (!menu || (event.type === 'keydown' ? event.key !== 'Escape' : menu.contains(event.target))) return;
  menu.removeAttribute('open');
  if (event.type === 'keydown') menu.querySelector('summary').focus();
};
document.addEventListener('click', shut);
element.addEventListener('keydown', shut);
"""

SAVE = """(packed) => {
  document.querySelectorAll('[data-keep][aria-busy]').forEach((button) => button.removeAttribute('aria-busy'));
  if (packed) {
    const {name, url} = JSON.parse(packed), link = document.createElement('a');
    fetch(url).then((answer) => answer.blob()).then((blob) => {
      link.href = URL.createObjectURL(blob);
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }
  return '';
}"""
