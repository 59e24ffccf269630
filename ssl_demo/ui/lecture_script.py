"""The script of the page's head: large type, what stands in the address, and a lecture's keys. It runs once, when the page is
there; other scripts of the page speak to it by `window.place`."""

from ..texts import in_script, language
from .links import OPEN_METHOD

SCRIPT = f"""document.documentElement.lang = {language()!r};
const openMethod = {OPEN_METHOD};
""" + in_script(r"""
const root = document.documentElement;
const settings = {};  // of a room, as part of an address
const parameters = () => new URLSearchParams(location.search);
let lecture = null, kept = null, isOpen = false, photo = '', room = '', asked = 0, asking = 0, next = null;

// Large type lasts for the visit; a lecture has it anyway.
const type = {
  get wanted() { try { return localStorage.getItem('type') === 'large'; } catch { return false; } },
  set wanted(on) { try { localStorage.setItem('type', on ? 'large' : 'usual'); } catch {} },
  show() {
    const on = Boolean(lecture) || type.wanted;
    root.classList.toggle('large-type', on);
    document.querySelector('#large-type')?.setAttribute('aria-pressed', on);
    window.dispatchEvent(new Event('resize'));  // charts measure their letters anew
  },
};
if (parameters().has('type')) type.wanted = parameters().get('type') === 'large';

const fill = (box, value) => {  // as if typed
  const field = document.querySelector(`${box} :is(input, textarea)`);
  field.value = value;
  field.dispatchEvent(new Event('input', {bubbles: true}));
};
// What is open, read off the tab bars: events that tell of an opened tab may come late, after those of the next one.
const openNow = () => {
  const chosen = (kind) => document.querySelector(`[id^=${kind}-][role=tab][aria-selected=true]`)?.id.split('-')[1];
  return chosen('room') === 'methods' ? chosen('tab') : chosen('room');
};
const write = (query) => {
  if (!lecture && location.search !== query) history.replaceState(null, '', query || location.pathname);
};
const roomQuery = () => {
  const query = new URLSearchParams(room === 'overview' && !photo ? {} : {room, ...(photo ? {photo} : {})});
  for (const [name, value] of new URLSearchParams(settings[room] || '')) query.set(name, value);
  return query.size ? `?${query}` : '';
};
window.place = {
  now: openNow,
  method(query) { room = ''; write(query); },  // a method's answer has come, with the link to it
  room(name) { if (name !== openNow()) return; room = name; if (isOpen) write(roomQuery()); },
  settings(name, query) { settings[name] = query; if (room === name && isOpen) write(roomQuery()); },
  photo(name) { photo = name; if (room && isOpen) write(roomQuery()); },
  open(name) {  // the state that was asked for is there
    asking = clearTimeout(asking);
    if (next) return ask(next);
    const isOverruled = name && name !== window.wanted;  // a person has opened another tab meanwhile: there it stays
    if (isOverruled || (name && name === openNow())) window.place.again();
    else if (document.querySelector(`#room-${name}-button`)) document.querySelector(`#room-${name}-button`).click();
    else if (name) openMethod(name);
  },
  again(name = openNow()) { if (name) fill(`#again-${name}`, ++asked); },
};

const draw = () => {
  const foot = element.querySelector('.lecture-foot');
  if (!foot || !lecture) return;
  const [states, at] = [lecture.states, lecture.at];
  foot.querySelector('[role=status]').textContent = `${at + 1} / ${states.length} · ${states[at][0]}`;
  foot.querySelector('[data-move="-1"]').disabled = !lecture.at;
  foot.querySelector('[data-move="1"]').disabled = lecture.at === lecture.states.length - 1;
};
const address = (at) => `?${new URLSearchParams({lecture: kept.name, ...(at ? {at: at + 1} : {})})}`;
// The server's answer changes what differs; nothing is loaded anew. One after the other, and of several only the last one.
const ask = (link) => {
  if (asking) { next = link; return; }
  next = null;
  asking = setTimeout(() => window.place.open(''), 10000);  // an answer that is lost must not stop all others
  const query = new URLSearchParams(link);
  if (query.get('task')) window.openMethod = query.get('task');
  room = query.get('room') || '';
  window.wanted = query.get('task') || room;
  fill(`#asked-${query.get('task') || 'room'}`, `${link}#${++asked}`);  // never twice the same: each is a change
};
const enter = (at) => {
  lecture = {...kept, at};
  root.classList.add('lecture');
  type.show();
  draw();
};
const move = (at, isNew = true) => {
  if (at < 0 || at >= lecture.states.length || at === lecture.at) return;
  lecture.at = at;
  draw();
  if (isNew) history.pushState(null, '', address(at));
  ask(lecture.states[at][1]);
  window.scrollTo(0, 0);
};
const leave = (isNew = true) => {
  const link = lecture && lecture.states[lecture.at][1];
  lecture = null;
  root.classList.remove('lecture');
  type.show();
  if (link && isNew) write(link);
};
window.addEventListener('popstate', () => {
  const at = Number(parameters().get('at') || 1) - 1;
  if (kept && parameters().get('lecture') === kept.name) {
    if (lecture) move(at, false);
    else { enter(at); ask(kept.states[at][1]); }
  } else if (lecture) {
    leave(false);
    ask(location.search);
  }
});

// The server says what the address holds: a lecture's states, or that there is none.
const hear = () => {
  if (isOpen || !element.querySelector('.lecture-foot, i')) return;
  isOpen = true;
  const foot = element.querySelector('.lecture-foot');
  if (!foot) {
    leave(false);
    if (element.querySelector('i').dataset.link) ask(element.querySelector('i').dataset.link);
    return;
  }
  kept = {name: foot.dataset.name, states: JSON.parse(foot.dataset.states)};
  enter(Number(foot.dataset.at));
  ask(kept.states[lecture.at][1]);
};
new MutationObserver(hear).observe(element, {childList: true, subtree: true});
if (parameters().has('lecture')) { lecture = {at: 0, states: [['', '']]}; root.classList.add('lecture'); }
window.openMethod = parameters().get('task') || window.openMethod;
room = parameters().get('room') || (parameters().has('task') ? '' : 'overview');
type.show();
hear();

for (const kind of ['pointerdown', 'keydown']) document.addEventListener(kind, (event) => {  // a person chooses a tab
  if (event.target.closest('[role=tab]')) window.wanted = next = '';
}, true);
document.addEventListener('click', (event) => {
  if (event.target.closest('#large-type')) { type.wanted = !type.wanted; type.show(); }
  const copy = event.target.closest('.copy-lecture');
  if (copy) {
    const link = new URL(copy.dataset.link, location.href.split(/[?#]/)[0]).href;
    navigator.clipboard.writeText(link).then(() => { copy.textContent = say('Copied'); });
  }
  const button = event.target.closest('[data-move]');
  if (button && kept && lecture) Number(button.dataset.move) ? move(lecture.at + Number(button.dataset.move)) : leave();
});
// A number typed beyond its box's limits is not asked for; once it is left, it goes back to them and is answered so. Asked for,
// it would be refused, and Gradio answers nothing that was asked while a refusal was on its way.
const limit = (box, name, none) => (box[name] === '' || box[name] === 'any' ? none : Number(box[name]));
const within = (box) => Math.min(Math.max(Number(box.value), limit(box, 'min', -Infinity)), limit(box, 'max', Infinity));
const isTyped = (box) => box.matches('input[type=number]') && box.value !== '';
document.addEventListener('input', (event) => {
  if (isTyped(event.target) && within(event.target) !== Number(event.target.value)) event.stopImmediatePropagation();
}, true);
document.addEventListener('change', (event) => {
  const box = event.target;
  if (!isTyped(box)) return;
  const value = limit(box, 'step', 0.5) % 1 ? within(box) : Math.round(within(box));  // whole where steps are
  if (value === Number(box.value)) return;
  box.value = value;
  box.dispatchEvent(new Event('input', {bubbles: true}));
}, true);
document.addEventListener('keydown', (event) => {  // as presenters' remotes send them
  if (!lecture || !kept || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'Escape') return leave();
  if (event.target.closest('input, textarea, select, [contenteditable=true], [role=slider], [role=listbox]')) return;
  const fits = root.scrollHeight <= innerHeight + 2;  // what does not fit is scrolled by up and down
  const steps = {ArrowRight: 1, PageDown: 1, ArrowLeft: -1, PageUp: -1, ...(fits ? {ArrowDown: 1, ArrowUp: -1} : {})};
  const at = event.key === 'Home' ? 0 : event.key === 'End' ? lecture.states.length - 1 : lecture.at + (steps[event.key] || 0);
  if (!(event.key in steps) && event.key !== 'Home' && event.key !== 'End') return;
  event.preventDefault();
  move(at);
});
""")
