// The timeline: a tree of which only the rows in sight are elements, whatever there is of them.
const OVERSCAN = 6;
const MOST_PRINTED = 250;
const MOST_MARKS = 60;
const tree = at('timeline');
const opened = new Set();
let rows = [], chosen = null, isPrinting = false, rowHeight = 36, search = '', onlyFailed = false;

const keyOf = (row) => (row.command ? `c${row.command.number}` : row.step === undefined ? 'run' : `s${row.step}`);
const isFound = (command) => (!onlyFailed || command.state === 'failed') && (!search || wordsOf(command).includes(search));
const wordsOf = (command) => (command.words ??= `${nameOf(command)} ${steps[command.step].kind} ${command.id || ''} ${command.worker || ''} ${command.error || ''}`.toLowerCase());

function listRows() {
  const isAll = !search && !onlyFailed;
  rows = isAll ? [{ level: 1 }] : [];
  let shown = 0;
  sorted.forEach((number) => {  // as they began; a step that has not run is in the graph alone
    const step = steps[number], found = isAll ? step.commands : step.commands.filter(isFound);
    shown += found.length;
    if (found.length === 0) return;
    if (!step.isFolded) { rows.push({ level: 1, command: found[0] }); return; }
    const isOpen = opened.has(number);
    rows.push({ level: 1, step: number, found, isOpen });
    if (isOpen) for (const command of found) rows.push({ level: 2, command });
  });
  at('count').textContent = isAll ? '' : `${many(shown, 'command')} found`;
}

function render() {
  const inSight = isPrinting ? Math.min(rows.length, MOST_PRINTED) : rows.length;
  const first = isPrinting ? 0 : Math.max(0, Math.floor(tree.scrollTop / rowHeight) - OVERSCAN);
  const last = isPrinting ? inSight : Math.min(inSight, Math.ceil((tree.scrollTop + tree.clientHeight) / rowHeight) + OVERSCAN);
  const space = element('div', { class: 'space', role: 'presentation' });
  space.style.height = `${inSight * rowHeight}px`;
  for (let number = first; number < last; number += 1) space.append(drawRow(rows[number], number));
  tree.replaceChildren(space);
  const active = rows.findIndex((row) => keyOf(row) === chosen);
  if (active >= first && active < last) tree.setAttribute('aria-activedescendant', `row-${active}`);
  else tree.removeAttribute('aria-activedescendant');
}

function drawRow(row, number) {
  const command = row.command, step = row.step === undefined ? null : steps[row.step];
  const state = command ? command.state : step ? step.state : stateOfRun;
  const name = command ? nameOf(command) : step ? step.name : 'run';
  const kind = command ? kindWord(steps[command.step].kind || command.kind || '') : step ? many(row.found.length, 'command') : many(commands.length, 'command');
  const span = spanOf(row);
  const lasted = span.end === null || span.begin === null ? '' : duration(span.end - span.begin);
  const made = element('div', {
    class: `row level-${row.level} ${state}`, role: 'treeitem', id: `row-${number}`, 'aria-level': row.level,
    'aria-posinset': number + 1, 'aria-setsize': rows.length, 'aria-selected': keyOf(row) === chosen ? 'true' : 'false',
    'aria-expanded': step ? String(row.isOpen) : null, 'aria-label': [name, kind, STATES[state].word, lasted, step && step.failed ? `${step.failed} failed` : null].filter(Boolean).join(', '),
    on: { click: () => { if (step && keyOf(row) === chosen) toggle(row.step); else choose(row); } },
  },
  element('span', { class: 'turn', text: step ? '›' : '', on: { click: (event) => { if (step) { event.stopPropagation(); toggle(row.step); } } } }),
  element('span', { class: 'sign', text: STATES[state].sign }),
  element('span', { class: 'name', text: name }),
  element('span', { class: 'kind', text: kind }),
  drawBar(span, row, state),
  element('span', { class: 'took', text: lasted }));
  made.style.transform = `translateY(${number * rowHeight}px)`;
  return made;
}

function spanOf(row) {
  if (row.command) return { issued: row.command.issued ?? null, begin: beginOf(row.command), end: endOf(row.command) };
  if (row.step === undefined) return { issued: null, begin: 0, end: isOver ? runEnd : null };
  const begins = row.found.map(beginOf).filter((time) => time !== null), ends = row.found.map(endOf);
  const least = begins.reduce((one, other) => Math.min(one, other), Infinity);
  return { issued: null, begin: begins.length ? least : null, end: ends.includes(null) ? null : ends.reduce((one, other) => Math.max(one, other), 0) };
}

function drawBar({ issued, begin, end }, row, state) {
  const track = element('span', { class: 'track' });
  const share = (time) => `${Math.min(100, Math.max(0, (100 * time) / spanEnd))}%`;
  const bar = (name, from, to) => {
    const made = element('span', { class: name });
    made.style.left = share(from);
    made.style.width = share(Math.max(0, to - from));
    track.append(made);
  };
  if (issued !== null && (begin === null || issued < begin)) bar('waited', issued, begin ?? (isOver ? issued : spanEnd));
  if (begin === null) return track;
  const form = row.command ? state : row.step === undefined ? `${state} whole` : `${row.found.every((one) => one.state === 'failed') ? 'failed' : state === 'failed' ? 'done' : state} folded`;
  bar(`bar ${form}${end === null ? ' open' : ''}`, begin, end ?? (isOver ? begin : spanEnd));
  if (row.step !== undefined) for (const time of failuresOf(row.found)) bar('mark', time, time);
  return track;
}

// Where items of a loop failed, so far as marks can be told apart.
function failuresOf(found) {
  const ends = found.filter((command) => command.state === 'failed').map(endOf).filter((time) => time !== null);
  const apart = new Map(ends.map((time) => [Math.round((100 * time) / spanEnd), time]));
  return [...apart.values()].slice(0, MOST_MARKS);
}

function drawAxis() {
  const wanted = spanEnd / (tree.clientWidth > 700 ? 5 : 3), power = 10 ** Math.floor(Math.log10(wanted));
  const unit = spanEnd < 60000 ? [1, 2, 5, 10].map((times) => times * power).find((size) => size >= wanted)
    : [15e3, 30e3, 60e3, 120e3, 300e3, 600e3, 900e3, 1800e3, 3600e3, 7200e3, 14400e3, 28800e3, 86400e3].find((size) => size >= wanted) || wanted;
  const axis = element('div', { class: 'track' });
  for (let time = 0; time <= spanEnd * 0.96; time += unit) {
    const mark = element('span', { text: time === 0 ? '0' : duration(time).replace(/\.?0+ s$/, ' s').replace(' 0 s', '') });
    mark.style.left = `${(100 * time) / spanEnd}%`;
    axis.append(mark);
  }
  at('axis').replaceChildren(axis);
  tree.parentElement.style.setProperty('--tick', `${(100 * unit) / spanEnd}%`);
}

function choose(row, isFromElsewhere = false) {
  if (row.command && steps[row.command.step].isFolded && isFromElsewhere) opened.add(row.command.step);
  let wanted = row;
  if (row.step !== undefined && steps[row.step].commands.length && !steps[row.step].isFolded) wanted = { command: steps[row.step].commands[0] };
  chosen = keyOf(wanted);
  if (isFromElsewhere) listRows();
  showDetails(wanted);
  markNode(wanted.command ? wanted.command.step : wanted.step);
  const number = rows.findIndex((one) => keyOf(one) === chosen);
  if (number >= 0) bringInSight(number);
  render();
  if (isFromElsewhere && matchMedia('(max-width: 900px)').matches) at('details').scrollIntoView({ block: 'start' });
}

function bringInSight(number) {
  const top = number * rowHeight;
  if (top < tree.scrollTop) tree.scrollTop = top;
  else if (top + rowHeight > tree.scrollTop + tree.clientHeight) tree.scrollTop = top + rowHeight - tree.clientHeight;
}

function toggle(number, isOpen = !opened.has(number)) {
  if (isOpen) opened.add(number);
  else opened.delete(number);
  listRows();
  choose({ step: number });
}

function onKey(event) {
  const number = Math.max(0, rows.findIndex((row) => keyOf(row) === chosen)), row = rows[number];
  const page = Math.max(1, Math.floor(tree.clientHeight / rowHeight) - 1);
  const to = { ArrowDown: number + 1, ArrowUp: number - 1, Home: 0, End: rows.length - 1, PageDown: number + page, PageUp: number - page }[event.key];
  if (row === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  if (to !== undefined) choose(rows[Math.min(rows.length - 1, Math.max(0, to))]);
  else if (event.key === 'ArrowRight' && row.step !== undefined) { if (!row.isOpen) toggle(row.step, true); else choose(rows[number + 1]); }
  else if (event.key === 'ArrowLeft' && row.level === 2) choose({ ...rows.find((one) => one.step === row.command.step) });
  else if (event.key === 'ArrowLeft' && row.isOpen) toggle(row.step, false);
  else if (event.key === 'Enter') { if (row.step !== undefined) toggle(row.step); else at('details').focus(); }
  else return;
  event.preventDefault();
}
