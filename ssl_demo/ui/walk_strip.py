"""The strip over a tab's head that leads through its story: step by step, symbol by symbol of the loss, and with the guard off.

All of it happens in the browser. Each answer carries the walk's texts with its own numbers (`told_html`); the script below shows
them and dims, on the story, what they do not speak of. Only the switch that lets the network cheat asks the server: it turns
controls, and the tab answers as to any other turn.
"""

import html
import json
from typing import Any

import gradio as gr

from .. import walk
from ..inference import Result
from ..pretext import PretextTask
from ..texts import in_script, say, spoken
from . import toasts

FORMULAS = [{"left": "$$", "right": "$$", "display": True}, {"left": "$", "right": "$", "display": False}]


class WalkStrip:
    """The strip of one task, made where it is constructed, before the rest of its tab. Nothing where the task has no walk."""

    def __init__(self, task: type[PretextTask]):
        self.task, self.walk, self.box = task, spoken(walk.read(task.card.name)), None
        if self.walk is None:
            return
        with gr.Column(elem_classes="walk"), gr.Column(elem_classes="walk-strip"):
            self.box = gr.HTML(strip_html(task, self.walk), js_on_load=WALK, elem_id=f"{task.card.name}-walk")
            gr.Markdown(loss_markdown(task, self.walk), latex_delimiters=FORMULAS, sanitize_html=False, elem_classes="walk-loss")

    def settings(self, cheating: bool, before=None) -> dict[str, Any]:
        """The values of the controls that open the shortcut; or those of before, as the page remembers them."""
        with toasts.told():
            return walk.settings(self.walk, self.task, cheating, before if isinstance(before, dict) else None)

    def told_html(self, result: Result) -> str:
        """What stands in the page beside a story, unseen: the walk's texts with that run's numbers."""
        if self.walk is None:
            return ""
        told = json.dumps(walk.told(self.walk, self.task, result), ensure_ascii=False)
        return f'<div class="walk-data" hidden data-told="{html.escape(told)}"></div>'


def strip_html(task: type[PretextTask], told: walk.Walk) -> str:
    """The three doors, and the strip behind them, still empty."""
    cheat = say("Let it cheat") if told.cheat.controls else say("Could it cheat?")
    return (f'<div class="walk-bar" data-task="{task.card.name}"><div class="walk-row"><div class="walk-doors">'
            f'<button type="button" data-door="steps">{say("Step through")}</button>'
            f'<button type="button" data-door="loss">{say("The loss")}</button>'
            f'<button type="button" data-door="cheat">{cheat}</button></div>'
            f'<div class="walk-moves"><button type="button" class="walk-back">{say("Back")}</button>'
            f'<button type="button" class="walk-next">{say("Next")}</button>'
            f'<button type="button" class="walk-close" aria-label="{say("Close")}">{say("Close")}</button></div></div>'
            '<p class="walk-text" aria-live="polite"></p></div>')


def loss_markdown(task: type[PretextTask], told: walk.Walk) -> str:
    """The equation, and its symbols as buttons."""
    symbols = "".join(f'<button type="button" class="symbol" data-symbol="{number}">${symbol.symbol}$</button>'
                      for number, symbol in enumerate(told.symbols))
    return f'$${walk.equation(task)}$$\n\n<div class="symbols">{symbols}</div>'


# The lights are a style sheet of their own, so that they outlast the answers that come while somebody walks.
WALK = in_script(r"""
const bar = element.querySelector('.walk-bar'), task = bar.dataset.task, walk = element.closest('.walk');
const find = (what) => bar.querySelector(what), door = (name) => find(`[data-door=${name}]`);
const text = find('.walk-text'), back = find('.walk-back'), next = find('.walk-next');
const calm = () => matchMedia('(prefers-reduced-motion: reduce)').matches, here = `#${task}-story`;
const sheet = document.getElementById(`walk-light-${task}`) || document.head.appendChild(document.createElement('style'));
sheet.id = `walk-light-${task}`;
let mode = '', at = 0, symbol = -1, held = '', told = null, before = null;

const light = (part, moved) => {
  const lit = (part ? [...part.panels.map((name) => `[data-panel=${JSON.stringify(name)}]`),
                       ...part.figures.map((name) => `[data-figure=${JSON.stringify(name)}]`)] : []).join(', ');
  sheet.textContent = !lit ? '' : `
    ${here} .panel:not(${lit}), ${here} .figures > div:not(${lit}), ${here} .shortcut, ${here} .link,
    ${here} .step:not(:has(${lit})) > h3 { opacity: 0.3; }
    ${here} :is(${lit}) { outline: 3px solid var(--answer); outline-offset: 3px; border-radius: 3px; }
    ${here} .step:has(${lit}) > h3 { border-bottom-color: var(--answer); }`;
  const first = moved && part && document.querySelector(`${here} .panel:is(${lit})`);
  if (first) first.scrollIntoView({block: innerWidth > 900 ? 'nearest' : 'start', behavior: calm() ? 'auto' : 'smooth'});
};
const tell = (title, told) => {  // one change, so that it is read out once
  const bold = document.createElement('b');
  bold.textContent = title && (/[.?!]$/.test(title) ? title : title + '.');
  text.replaceChildren(bold, ' ' + told);
};
const show = (moved) => {
  walk.dataset.mode = mode;
  bar.querySelectorAll('[data-door]').forEach((one) => one.setAttribute('aria-expanded', String(one.dataset.door === mode)));
  const can = told?.cheat.can, on = Boolean(told?.cheat.on), off = on ? say('The guard is off.') + ' ' : '';
  if (can) door('cheat').textContent = on ? say('Stop cheating') : say('Let it cheat');
  door('cheat').classList.toggle('cheating', on);
  if (!mode) return light(null);
  if (!told) return tell('', say('Waiting for the answer.'));
  if (mode === 'steps') {
    const step = told.steps[at];
    back.disabled = !at;
    next.textContent = at + 1 < told.steps.length ? say('Next') : say('The loss');
    tell(`${at + 1} ${say('of')} ${told.steps.length} · ${step.title}`, off + step.text);
    return light(step, moved);
  }
  if (mode === 'loss') {
    walk.querySelectorAll('.symbol').forEach((button) => {
      button.setAttribute('aria-pressed', String(Number(button.dataset.symbol) === symbol));
    });
    const one = told.symbols[symbol], title = say('The loss');
    const says = one ? one.text.charAt(0).toUpperCase() + one.text.slice(1) + '.' :
                 say('What training makes small. Point at a symbol to see it on the screen.');
    tell(says.startsWith(title) ? '' : title, off + says);  // the symbol of the loss is told by its name
    return light(one, moved);
  }
  tell(!can ? say('Could it cheat?') : on ? say('The guard is off.') : say('With the guard on.'), told.cheat.text);
  light(told.cheat, moved);
};
const open = (name, step = 0) => {
  [mode, at, symbol] = [name, step, -1];
  show(true);
  if (mode === 'steps') next.focus({preventScroll: true});
};
const close = () => {
  const before = mode;
  mode = '';
  show(false);
  door(before || 'steps').focus({preventScroll: true});
};
const step = (by) => {
  if (at + by < 0) return;
  if (at + by < told.steps.length) {
    at += by;
    show(true);
  } else open('loss');
};
bar.addEventListener('click', (event) => {
  const button = event.target.closest('button'), name = button?.dataset.door;
  if (name === 'cheat' && told?.cheat.can) {
    const on = !told.cheat.on;
    if (on) before = told.cheat.now;  // what the visitor had turned comes back
    trigger('select', {cheat: on, before});
    if (on) open('cheat');
    else if (mode === 'cheat') close();
  } else if (name) mode === name ? close() : open(name);
  else if (button === back) step(-1);
  else if (button === next) step(1);
  else if (button) close();
});
const point = (event) => {
  const button = event.target.closest?.('.symbol');
  if (!button || Number(button.dataset.symbol) === symbol) return;
  symbol = Number(button.dataset.symbol);
  show(event.type !== 'pointerover');
};
for (const kind of ['pointerover', 'focusin', 'click']) walk.addEventListener(kind, point);
window.addEventListener('keydown', (event) => {  // before anybody else who listens to arrows
  if (!mode || !element.isConnected || !element.getClientRects().length) return;
  if (event.target.closest?.('input, textarea, select, video, [role=slider], [role=tab], [role=listbox]')) return;
  const by = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (event.key === 'Escape') close();
  else if (by && mode === 'steps' && told) step(by);
  else if (by < 0 && mode === 'loss' && told) open('steps', told.steps.length - 1);
  else return;
  event.preventDefault();
  event.stopImmediatePropagation();
}, true);
const read = () => {
  const now = document.querySelector(`${here} .walk-data`)?.dataset.told || '';
  if (now === held) return;
  [held, told] = [now, now ? JSON.parse(now) : null];
  show(false);
};
const begin = () => {  // the story comes to the page a little later than this
  const story = document.querySelector(here);
  if (!story) return requestAnimationFrame(begin);
  new MutationObserver(read).observe(story, {childList: true, subtree: true, attributeFilter: ['data-told']});
  read();
};
begin();
""")
