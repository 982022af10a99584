// The timeline: a tree of which only the rows in sight are elements, whatever there is of them.
const OVERSCAN = 6;
const MOST_PRINTED = 250;
const MOST_MARKS = 60;
const tree = at('timeline');
const opened = new Set();
let rows = [], chosen = null, isPrinting = false, rowHeight = 36, search = [], sought = '', onlyFailed = false, onlyDiffering = false, isStream = false;

const keyOf = (row) => (row.key ?? (row.command ? `c${row.command.number}` : row.step === undefined ? 'run' : `s${row.step}`));
const isFound = (command) => (!onlyFailed || command.state === 'failed' || command.state === 'passed') && (!onlyDiffering || command.differs?.length > 0)
  && (search.length === 0 || [command.id, command.event, command.child].includes(sought) || search.every((word) => wordsOf(command).includes(word)));
// Words alone: a number that is sought would be in every id.
const wordsOf = (command) => (command.words ??= [nameOf(command), command.home.kind, command.error, ...textsOf(command), ...partsOf(command, 1).map((row) => (row.task ? '' : wordsOf(row.command)))].join('\n').toLowerCase());
const shownTexts = (found) => (found || []).flatMap(([name, text]) => [name, text]);
const textsOf = (command) => [
  ...['value', 'printed', 'output', 'input', 'answer'].flatMap((name) => shownTexts(command[name])),
  ...(command.tasks || []).flatMap((task) => [task.name, task.kind, ...shownTexts(task.input), ...shownTexts(task.output), ...(task.tries || []).flatMap((tried) => [tried.error, ...shownTexts(tried.answer), ...shownTexts(tried.printed)])]),
];

// Of a command that is a list, a row for each try of a task; of one that started an execution, a row for each command.
function partsOf(command, level) {
  const child = command.child && root.children[command.child];
  const found = (command.tasks || []).flatMap((task, number) => rowsOfTask(command, task, number, level));
  return child && child.commands !== commands ? [...found, ...child.commands.map((one) => ({ level, command: one }))] : found;
}

function rowsOfTask(command, task, number, level) {
  const tries = task.tries || [null];
  return tries.map((tried, turn) => ({
    level, command, task, tried, key: `t${command.number}/${number}/${turn}`,
    name: tries.length > 1 ? `${task.name}, try ${turn + 1}` : task.name,
    state: tried === null ? (task.output ? 'done' : 'idle') : tried.state === 'failed' && tried.then !== 'fail' ? 'passed' : tried.state,
  }));
}

function addRows(command, level, top) {
  const row = { level, command, top, hasParts: Boolean(command.tasks || isShown(command.child)) };
  row.isOpen = row.hasParts && opened.has(keyOf(row));
  rows.push(row);
  if (!row.isOpen) return;
  for (const part of partsOf(command, level + 1)) {
    if (part.task) rows.push({ ...part, top });
    else addRows(part.command, level + 1, top);
  }
}

function listRows() {
  const isAll = search.length === 0 && !onlyFailed && !onlyDiffering;
  rows = isAll && !isStream ? [{ level: 1 }] : [];
  if (isStream) {
    listLines(isAll);
    return;
  }
  let shown = 0;
  sorted.forEach((number) => {  // as they began; a step that has not run is in the graph alone
    const step = steps[number], found = isAll ? step.commands : step.commands.filter(isFound);
    shown += found.length;
    if (found.length === 0) return;
    if (!step.isFolded) { addRows(found[0], 1, number); return; }
    const isOpen = opened.has(`s${number}`);
    rows.push({ level: 1, step: number, found, isOpen, hasParts: true });
    if (isOpen) for (const command of found) addRows(command, 2, number);
  });
  at('count').textContent = isAll ? '' : `${many(shown, 'command')} found`;
}

// All that was printed, as one stream: an event has the text of a command, or of a task's try, with its end.
function listLines(isAll) {
  const all = [...commands, ...Object.values(root.children).flatMap((child) => (child.commands === commands ? [] : child.commands))];
  const found = all.filter((command) => isAll || isFound(command)).flatMap((command) => printedOf(command));
  found.sort((one, other) => (one.at ?? Infinity) - (other.at ?? Infinity));
  for (const { command, name, at, text: [stream, text], key } of found) {
    text.replace(/\n$/, '').split('\n').forEach((line, turn) => rows.push({ level: 1, command, key: `${key}/${turn}`, at, from: name, stream, line, top: command.shift ? undefined : command.step }));
  }
  at('count').textContent = found.length ? `${many(rows.length, 'line')}, in the order of the ends` : 'Nothing was printed.';
}

function printedOf(command) {
  const begin = beginOf(command), name = nameOf(command);
  const ofTasks = (command.tasks || []).flatMap((task) => (task.tries || []).flatMap((tried) => tried.printed.map((text) => ({ command, name: `${name} ${task.name}`, text, at: begin === null ? null : begin + tried.at + tried.took }))));
  const own = (command.printed || []).map((text) => ({ command, name, text, at: endOf(command) }));
  return (ofTasks.length ? ofTasks : own).map((one, turn) => ({ ...one, key: `l${command.number}/${turn}` }));
}

function render() {
  const inSight = isPrinting ? Math.min(rows.length, MOST_PRINTED) : rows.length;
  const space = element('div', { class: 'space', role: 'presentation' });
  space.style.height = `${inSight * rowHeight}px`;
  tree.replaceChildren(space);  // the tree is as high as it will be when its rows are counted
  const first = isPrinting ? 0 : Math.max(0, Math.floor(tree.scrollTop / rowHeight) - OVERSCAN);
  const last = isPrinting ? inSight : Math.min(inSight, Math.ceil((tree.scrollTop + tree.clientHeight) / rowHeight) + OVERSCAN);
  for (let number = first; number < last; number += 1) space.append(drawRow(rows[number], number));
  const active = rows.findIndex((row) => keyOf(row) === chosen);
  if (active >= first && active < last) tree.setAttribute('aria-activedescendant', `row-${active}`);
  else tree.removeAttribute('aria-activedescendant');
}

function drawLine(row, number) {
  const made = element('div', {
    class: `row line ${row.stream}`, role: 'treeitem', id: `row-${number}`, 'aria-level': 1, 'aria-posinset': number + 1, 'aria-setsize': rows.length,
    'aria-selected': keyOf(row) === chosen ? 'true' : 'false', 'aria-label': `${row.from}: ${row.line}`, on: { click: () => choose(row) },
  }, element('span', { class: 'took', text: row.at === null ? '' : duration(row.at) }), element('span', { class: 'name', text: row.from }), element('code', { text: row.line }));
  made.style.transform = `translateY(${number * rowHeight}px)`;
  return made;
}

function drawRow(row, number) {
  if (row.line !== undefined) return drawLine(row, number);
  const command = row.command, step = row.step === undefined ? null : steps[row.step];
  const state = row.state ?? (command ? command.state : step ? step.state : stateOfRun);
  const name = row.name ?? (command ? nameOf(command) : step ? step.name : 'run');
  const kind = row.task ? kindWord(row.task.kind || '') : command ? kindWord(command.home.kind || command.kind || '') : step ? many(row.found.length, 'command') : many(commands.length, 'command');
  const isDifferent = Boolean(command && !row.task && command.differs?.length);
  const span = spanOf(row);
  const lasted = span.end === null || span.begin === null ? '' : duration(span.end - span.begin);
  const made = element('div', {
    class: `row level-${row.level} ${state}`, role: 'treeitem', id: `row-${number}`, 'aria-level': row.level,
    'aria-posinset': number + 1, 'aria-setsize': rows.length, 'aria-selected': keyOf(row) === chosen ? 'true' : 'false',
    'aria-expanded': row.hasParts ? String(row.isOpen) : null,
    'aria-label': [name, kind, STATES[state].word, lasted, step && step.failed ? `${step.failed} failed` : null, step && step.passed ? `${step.passed} let pass` : null, isDifferent ? 'differs' : null].filter(Boolean).join(', '),
    on: { click: () => { if (row.hasParts && keyOf(row) === chosen) toggle(row); else choose(row); } },
  },
  element('span', { class: 'turn', text: row.hasParts ? '›' : '', on: { click: (event) => { if (row.hasParts) { event.stopPropagation(); toggle(row); } } } }),
  element('span', { class: 'sign', text: STATES[state].sign }),
  element('span', { class: 'name', text: isDifferent ? `${name} ≠` : name }),
  element('span', { class: 'kind', text: kind }),
  drawBar(span, row, state),
  element('span', { class: 'took', text: lasted }));
  made.style.transform = `translateY(${number * rowHeight}px)`;
  return made;
}

function spanOf(row) {
  if (row.task) {
    const begin = row.tried ? beginOf(row.command) : null, at = begin === null ? null : begin + (row.tried.at || 0);
    return { issued: null, begin: at, end: at === null ? null : at + (row.tried.took || 0) };
  }
  if (row.command) return { issued: timeOf(row.command, 'issued'), begin: beginOf(row.command), end: endOf(row.command) };
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
  const form = row.command ? state : row.step === undefined ? `${state} whole` : `${row.found.every((one) => one.state === 'failed') ? 'failed' : ['failed', 'passed'].includes(state) ? 'done' : state} folded`;
  bar(`bar ${form}${end === null ? ' open' : ''}`, begin, end ?? (isOver ? begin : spanEnd));
  if (row.step !== undefined) for (const [state, time] of failuresOf(row.found)) bar(`mark ${state}`, time, time);
  return track;
}

// Where items of a loop failed, so far as marks can be told apart.
function failuresOf(found) {
  const bad = found.filter((command) => ['failed', 'passed'].includes(command.state) && endOf(command) !== null);
  bad.sort((one, other) => (other.state === 'failed') - (one.state === 'failed'));
  const apart = new Map();
  for (const command of bad) {
    const place = Math.round((100 * endOf(command)) / spanEnd);
    if (!apart.has(place)) apart.set(place, [command.state, endOf(command)]);
  }
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
  if (isFromElsewhere && isStream) setStream(false);
  if (row.command && row.command.home.isFolded && isFromElsewhere && steps.includes(row.command.home)) opened.add(`s${row.command.step}`);
  let wanted = row;
  if (row.step !== undefined && steps[row.step].commands.length && !steps[row.step].isFolded) wanted = { command: steps[row.step].commands[0] };
  chosen = keyOf(wanted);
  if (isFromElsewhere) listRows();
  showDetails(wanted);
  const number = rows.findIndex((one) => keyOf(one) === chosen);
  markNode(wanted.step ?? (number >= 0 ? rows[number].top : undefined));
  if (number >= 0) bringInSight(number);
  render();
  if (isFromElsewhere && matchMedia('(max-width: 900px)').matches) at('details').scrollIntoView({ block: 'start' });
}

function setStream(wanted) {
  isStream = wanted;
  tree.dataset.mode = wanted ? 'stream' : 'tree';
  at('axis').hidden = wanted;
  for (const [name, isOn] of [['as-tree', !wanted], ['as-stream', wanted]]) at(name).setAttribute('aria-pressed', String(isOn));
  tree.scrollTop = 0;
  measure();
}

function bringInSight(number) {
  const top = number * rowHeight;
  if (top < tree.scrollTop) tree.scrollTop = top;
  else if (top + rowHeight > tree.scrollTop + tree.clientHeight) tree.scrollTop = top + rowHeight - tree.clientHeight;
}

function toggle(row, isOpen = !opened.has(keyOf(row))) {
  if (isOpen) opened.add(keyOf(row));
  else opened.delete(keyOf(row));
  listRows();
  choose(row);
}

function onKey(event) {
  const number = Math.max(0, rows.findIndex((row) => keyOf(row) === chosen)), row = rows[number];
  const page = Math.max(1, Math.floor(tree.clientHeight / rowHeight) - 1);
  const to = { ArrowDown: number + 1, ArrowUp: number - 1, Home: 0, End: rows.length - 1, PageDown: number + page, PageUp: number - page }[event.key];
  if (row === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  if (to !== undefined) choose(rows[Math.min(rows.length - 1, Math.max(0, to))]);
  else if (event.key === 'ArrowRight' && row.hasParts) { if (!row.isOpen) toggle(row, true); else choose(rows[number + 1]); }
  else if (event.key === 'ArrowLeft' && row.isOpen) toggle(row, false);
  else if (event.key === 'ArrowLeft' && row.level > 1) choose(rows.slice(0, number).reverse().find((one) => one.level < row.level));
  else if (event.key === 'Enter') { if (row.hasParts) toggle(row); else at('details').focus(); }
  else return;
  event.preventDefault();
}
