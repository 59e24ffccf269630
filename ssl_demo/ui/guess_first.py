"""Guess first: a person, or a class, answers a task's question before the network's answer is shown; the visit's tally is kept.

While a question is open, what answers it is not on the page at all: neither in the story nor behind a cover.
"""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import gradio as gr
from PIL import Image

from ..inference import Result
from ..pretext import Panel, PretextTask
from ..questions import Question
from ..texts import in_script, say, spoken
from . import toasts
from .events import QUICK
from .panels import data_url, panel_html
from .story import STEPS, link_html

MOST = 10_000  # hands that a hall can raise
NOTHING = say("There is nothing to guess here: go to the next question, or take another photo.")


@dataclass(frozen=True)
class Outcome:
    """One question that was answered: how many hands each choice got, and what the network said. A single visitor is one hand."""

    labels: tuple[str, ...]
    hands: tuple[int, ...]
    truth: int
    network: int
    share: float  # what the network gave its own answer
    colors: tuple[str, ...] = ()

    @property
    def right(self) -> tuple[float, float, float]:
        """What counts as right: the share of hands that were, whether the network was, and what guessing gives."""
        return self.hands[self.truth] / sum(self.hands), float(self.network == self.truth), 1 / len(self.labels)


@dataclass(frozen=True)
class Guesses:
    """What a visit has guessed: outcomes by the task and the riddle, in their order. The first `forgotten` do not count."""

    on: bool = False
    outcomes: Mapping[tuple[str, str], Outcome] = field(default_factory=dict)
    forgotten: int = 0

    def with_outcome(self, task: str, riddle: str, outcome: Outcome) -> "Guesses":
        """One more, unless this riddle was answered before: nobody is asked twice."""
        if (task, riddle) in self.outcomes:
            return self
        return replace(self, outcomes={**self.outcomes, (task, riddle): outcome})

    def reset(self) -> "Guesses":
        return replace(self, forgotten=len(self.outcomes))

    def tally(self, task: str | None = None) -> tuple[int, float, float, float]:
        """How many questions, of one task or of all, and how many of them you, the network and chance had right."""
        counted = [outcome.right for (name, _), outcome in list(self.outcomes.items())[self.forgotten :] if task in (None, name)]
        return len(counted), *(sum(right[who] for right in counted) for who in range(3))


def asks(task: type[PretextTask]) -> bool:
    """Whether a task has a question for people."""
    return task.question is not PretextTask.question


def riddle(photo: Image.Image, seed: int | None) -> str:
    """What tells one question of a task from another. Not the controls: who has seen the answer knows it under all of them."""
    pixels = photo.resize((64, 64), Image.Resampling.NEAREST).tobytes()
    return f"{blake2b(pixels, digest_size=8).hexdigest()} {seed or 0}"


def fixed(task: type[PretextTask], result: Result) -> str:
    """A sentence where a control says the answer, so that there is nothing to guess; else nothing."""
    for control in task.controls:
        if control.fixes and result.controls[control.name] != control.default:
            return say("Nothing to guess while “{label}” is “{value}”: set it back to “{default}”.", label=say(control.label),
                       value=say(str(result.controls[control.name])), default=say(str(control.default)))
    return ""


def outcome(question: Question, hands: list[int]) -> Outcome:
    """What came of a question. Raises ValueError where the hands are none, or make no sense."""
    if len(hands) != len(question.choices) or not all(type(count) is int and 0 <= count <= MOST for count in hands):
        raise ValueError(f"For each answer, give the number of hands, from 0 to {MOST:,}.")
    if not sum(hands):
        raise ValueError("Enter how many hands each answer got.")
    labels, colors = (tuple(getattr(choice, name) for choice in question.choices) for name in ("label", "color"))
    return Outcome(labels, tuple(hands), question.truth, question.answer, question.choices[question.answer].share, colors)


def told(task: type[PretextTask], result: Result, photo, seed: int | None, guesses: Guesses, links: tuple,
         whole: str) -> str:
    """`whole`, the story of a run in the host's language; covered, with the question, where the visitor wants to guess first and
    has not yet."""
    answered = guesses.outcomes.get((task.card.name, riddle(photo, seed)))
    if not guesses.on:
        above = f'<div class="guess-start">{button("start", say("Guess first"))}</div>'
    elif sentence := fixed(task, result):
        above = f'<div class="verdict"><p>{html.escape(sentence)}</p>{button("stop", say("Stop guessing"))}</div>'
    elif answered:
        above = verdict_html(task, answered, guesses)
    else:
        return covered_html(task, result.question, guesses, links)
    return above + whole


def button(does: str, text: str, kind: str = "") -> str:
    return f'<button type="button" data-guess="{does}" class="{kind}">{text}</button>'


def covered_html(task: type[PretextTask], question: Question | None, guesses: Guesses, links: tuple) -> str:
    """The four steps, of which only what the network sees and the question are there."""
    cover = f'<div class="cover">{say("Covered until you have answered.")}</div>'
    if question is None:
        sees, asked = cover, f'<p class="question">{NOTHING}</p>{button("next", say("Next"), "main")}'
    else:
        sees = panel_html(Panel("asked", question.title, question.caption, "sees", question.picture, click=question.click))
        asked = question_html(question)
    judged = f'{cover}{tally_html(task, guesses)}<p class="guess-ends">{button("stop", say("Stop guessing"))}</p>'
    note = say("A photo that nobody has seen yet makes it fairer: bring one now, it stays covered.")
    note = f'<p class="cover-note">{note}</p>'
    steps = {"photo": cover + note, "sees": sees, "answers": asked, "judged": judged}
    columns = "".join(f'<section class="step step-{stage}"><h3><span>{number}</span>{heading}</h3>{steps[stage]}</section>'
                      for number, (stage, heading) in enumerate(STEPS.items(), start=1))
    link, calls = links
    return (f'<div class="story asking" data-link="{html.escape(link)}">{columns}'
            f'<div class="notes">{link_html(link, calls)}</div></div>')


def question_html(question: Question) -> str:
    """The question with a button for each answer, and a place to enter a show of hands."""
    buttons, hands = [], []
    for number, choice in enumerate(question.choices):
        if number == 4 and question.middle is not None:
            what = say("The patch in the middle")
            buttons.append(f'<span class="middle"><img src="{data_url(question.middle)}" alt="{what}"></span>')
        swatch = f'<i class="swatch" style="background:{choice.color}"></i>' if choice.color else ""
        label = html.escape(choice.label)
        buttons.append(f'<button type="button" data-pick="{number}">{swatch}<b>{label}</b></button>')
        hands.append(f'<label><input type="number" min="0" max="{MOST}" step="1" inputmode="numeric"> {label}</label>')
    kind = "board" if question.board else "swatches" if question.choices[0].color else "list"
    return (f'<p class="question">{html.escape(question.text)}</p><div class="choices {kind}" role="group" '
            f'aria-label="{html.escape(question.text)}">{"".join(buttons)}</div>'
            f'<details class="hands"><summary>{say("A class? Enter a show of hands")}</summary>'
            f'<div class="{kind}">{"".join(hands)}</div>'
            f'{button("hands", say("Done"))}</details>')


def verdict_html(task: type[PretextTask], given: Outcome, guesses: Guesses) -> str:
    """Who said what and whether that was right, in words, and the tally."""
    def said(who: str, number: int | None, right: bool, note: str = "") -> str:
        mark, word, kind = ("✓", say("Right").lower(), "right") if right else ("✗", say("wrong"), "wrong")  # "right" is a side
        what = named(given, number) if number is not None else ""
        return f'<li class="{kind}"><small>{who}</small><b>{what}</b><span>{mark} {note or word}</span></li>'

    total = sum(given.hands)
    most = given.hands.index(max(given.hands))
    if total == 1:
        yours = said(say("You"), most, most == given.truth)
    else:
        note = say("{done} of {of} right", done=given.hands[given.truth], of=total)
        yours = said(say("Most hands"), most, most == given.truth, note)
    sure = say("right, {share:.0%} sure" if given.network == given.truth else "wrong, {share:.0%} sure", share=given.share)
    network = said(say("The network"), given.network, given.network == given.truth, sure)
    truth = f'<li class="truth"><small>{say("It was")}</small><b>{named(given, given.truth)}</b></li>'
    return (f'<div class="verdict" role="status"><ul class="said">{yours}{network}{truth}</ul>{tally_html(task, guesses)}'
            f'<p class="guess-ends">{button("next", say("Next"), "main")}{button("reset", say("Reset tally"))}'
            f'{button("stop", say("Stop guessing"))}</p></div>')


def named(given: Outcome, number: int) -> str:
    """An answer as HTML, with its swatch where it is a colour."""
    color = given.colors[number] if given.colors else ""
    swatch = f'<i class="swatch" style="background:{color}"></i>' if color else ""
    return swatch + html.escape(given.labels[number])


def tally_html(task: type[PretextTask], guesses: Guesses) -> str:
    """How many you, the network and chance had right on this tab, and on all where others were guessed on too."""
    count, *_ = here = guesses.tally(task.card.name)
    everywhere = guesses.tally()
    if not count and not everywhere[0]:
        return '<p class="tally">' + say("No question answered yet in this visit.") + "</p>"
    others = f'<p class="everywhere">{say("All tabs:")} {sentence(everywhere)}.</p>' if everywhere[0] > count else ""
    if not count:
        return f'<div class="tally">{others}</div>'
    of = say("of {count}", count=count)
    cells = "".join(f"<div><dt>{who}</dt><dd>{number(value)}<small> {of}</small></dd></div>"
                    for who, value in zip((say("You"), say("The network"), say("Chance")), here[1:]))
    return f'<div class="tally"><dl aria-label="{sentence(here)}">{cells}</dl>{others}</div>'


def number(value: float) -> str:
    """A count as a person reads it: whole, or with a decimal, two of what is less than one."""
    digits = 0 if abs(value - round(value)) < 1e-6 else 1 if value > 1 else 2
    return f"{value + 1e-9:.{digits}f}"  # a half is rounded up: 1.25 is 1.3


def sentence(tally: tuple[int, float, float, float]) -> str:
    """Such as: you 3 of 5, the network 4 of 5, chance 1.3 of 5."""
    count, *right = tally
    whose = (say("you"), say("the network"), say("chance"))
    return ", ".join(f"{who} {say('{done} of {of}', done=number(value), of=count)}" for who, value in zip(whose, right))


def listen(tab, photo: gr.State, guesses: gr.State) -> None:
    """Connects a task's tab, whose last input is the visit's guesses: what is pressed around its question."""
    def pressed(event: gr.EventData, photo, *values) -> tuple:
        seed, now, data = int(values[0] or 0), values[-1], event._data
        does, hands = data.get("does"), data.get("hands")
        if does == "next":
            seed = (seed + 1) % 2**31
            return tab.answer(photo, seed, *values[1:]), gr.skip(), seed
        if does in ("start", "stop"):
            now = replace(now, on=does == "start")
        elif does == "reset":
            now = now.reset()
        elif isinstance(hands, list) and now.on:
            with toasts.told():
                result = tab.result(photo, *values)
                if result.question is not None and not fixed(tab.task, result):
                    now = now.with_outcome(tab.name, riddle(photo, seed), outcome(spoken(result.question), hands))
        return tab.answer(photo, *values[:-1], now), now, gr.skip()

    tab.story.guess(pressed, [photo, *tab.inputs], [tab.story, guesses, tab.seed], **QUICK)


# What is pressed. An answer replaces the buttons, so whoever uses the keyboard is led on: to Next, then to the first choice.
PRESSED = in_script("""
let guessing = false;
const pressed = (data) => { guessing = true; trigger('guess', data); };
const picks = () => [...element.querySelectorAll('[data-pick]')];
element.addEventListener('click', (event) => {
  const pick = event.target.closest('[data-pick]'), does = event.target.closest('[data-guess]')?.dataset.guess;
  if (pick) pressed({hands: picks().map((one) => one === pick ? 1 : 0)});
  else if (does === 'hands') {
    const inputs = [...element.querySelectorAll('.hands input')], none = inputs.every((input) => !Number(input.value));
    inputs[0].setCustomValidity(none ? say('Enter how many hands each answer got.') : '');
    if (inputs.every((input) => input.reportValidity())) pressed({hands: inputs.map((input) => Number(input.value))});
  } else if (does) pressed({does});
});
element.addEventListener('keydown', (event) => {
  const all = picks(), at = all.indexOf(document.activeElement), digit = Number(event.key);
  if (!all.length || event.target.matches('input') || event.ctrlKey || event.metaKey || event.altKey) return;
  if (digit >= 1 && digit <= all.length) { event.preventDefault(); all[digit - 1].click(); return; }
  const middle = (one) => {
    const box = one.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };
  const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
  if (!way || at < 0) return;
  event.preventDefault();
  const [x, y] = middle(all[at]), far = (one) => {  // the nearest in that direction
    const [u, v] = middle(one), along = (u - x) * way[0] + (v - y) * way[1];
    const aside = Math.abs((u - x) * way[1]) + Math.abs((v - y) * way[0]);
    return along < 4 ? Infinity : along + 3 * aside;
  };
  const next = all.reduce((best, one) => far(one) < far(best) ? one : best, all[at]);
  if (far(next) < Infinity) next.focus();
});
new MutationObserver(() => {
  if (!guessing || document.activeElement !== document.body) return;
  const next = element.querySelector('.verdict [data-guess="next"]') || picks()[0] || element.querySelector('[data-guess]');
  if (!next || !element.offsetParent) return;
  guessing = false;
  next.focus({preventScroll: true});
}).observe(element, {childList: true, subtree: true});
""")
