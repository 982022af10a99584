// Elements and words. Text goes into textContent alone: what a playbook says is never markup.
let root, data, run, steps, commands, sorted, failedCount, passedCount, firstFailed, stateOfRun, isOver, runEnd, spanEnd;
const at = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  fill(made, properties, children);
  return made;
}

function drawn(name, properties = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  fill(made, properties, children);
  return made;
}

function fill(made, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name === 'text') made.textContent = value;
    else if (name === 'on') for (const [event, does] of Object.entries(value)) made.addEventListener(event, does);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
}

const STATES = {
  done: { sign: '✓', word: 'done' },
  failed: { sign: '✕', word: 'failed' },
  passed: { sign: '!', word: 'a failure let pass' },
  running: { sign: '▸', word: 'running' },
  waiting: { sign: '·', word: 'waiting' },
  idle: { sign: '–', word: 'not run' },
};

function duration(ms) {
  if (ms === null || ms === undefined) return '';
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 9.995) return `${s.toFixed(2)} s`;
  if (s < 59.95) return `${s.toFixed(1)} s`;
  const whole = Math.round(s);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

const clock = (ms) => new Date(run.begin + ms).toISOString().replace('T', ' ').replace('Z', ' UTC');
const many = (count, word) => `${count.toLocaleString('en')} ${word}${count === 1 ? '' : 's'}`;
const KINDS = { task_sequence: 'tasks' };
const kindWord = (kind) => KINDS[kind] || kind;

// From claim to end: a worker may report the start of a quick command together with its end.
// An event that is missing leaves its time out: nothing is made up. A child's times are moved to its parent's.
const timeOf = (command, name) => (command[name] === undefined ? null : command[name] + command.shift);
const beginOf = (command) => timeOf(command, 'claimed') ?? timeOf(command, 'started');
const issueOf = (command) => timeOf(command, 'issued') ?? beginOf(command);
const endOf = (command) => {
  const end = timeOf(command, 'ended');
  return end === null ? null : Math.max(end, beginOf(command) ?? end);
};
const took = (command) => {
  const begin = beginOf(command), end = endOf(command);
  return begin === null || end === null ? null : end - begin;
};
const linkTo = (id) => (root.runs.length ? id : `#${id}`);
const isShown = (id) => id === root.run.id || id in root.children;

// Of an execution, what its rows and steps are made of.
function link(execution, shift) {
  for (const step of execution.steps) Object.assign(step, { commands: [], failed: 0, passed: 0 });
  execution.commands.forEach((command, number) => {
    const step = execution.steps[command.step];
    Object.assign(command, { home: step, shift, number: `${execution.run.id}/${number}` });
    step.commands.push(command);
    if (command.state in step) step[command.state] += 1;
  });
  for (const step of execution.steps) {
    const states = new Set(step.commands.map((command) => command.state));
    step.state = ['failed', 'running', 'waiting', 'passed', 'done'].find((state) => states.has(state)) || 'idle';
    step.isFolded = step.commands.length > 1;
    step.began = step.commands.reduce((least, command) => Math.min(least, issueOf(command) ?? Infinity), Infinity);
  }
}

// Of the data, what is counted once. `id`: of a child that is looked at alone.
function take(given, id = '') {
  root = given;
  data = id in root.children ? { ...root.children[id], children: root.children, against: null } : root;
  ({ run, steps, commands } = data);
  for (const child of Object.values(root.children)) if (child.commands !== commands) link(child, child.run.begin - run.begin);
  link(data, 0);
  if (data.against) pairUp();
  sorted = steps.map((step, number) => number).sort((one, other) => (steps[one].began === steps[other].began ? one - other : steps[one].began - steps[other].began));
  failedCount = steps.reduce((sum, step) => sum + step.failed, 0);
  passedCount = steps.reduce((sum, step) => sum + step.passed, 0);
  firstFailed = commands.find((command) => command.state === 'failed');
  stateOfRun = { COMPLETED: 'done', FAILED: 'failed', CANCELLED: 'failed' }[run.status.toUpperCase()] || 'running';
  isOver = run.end !== null || stateOfRun !== 'running';
  const lastSaid = commands.reduce((last, command) => Math.max(last, command.ended ?? 0, beginOf(command) ?? command.issued ?? 0), 0);
  runEnd = run.end ?? (isOver ? lastSaid : Math.max(lastSaid, run.written - run.begin));
  spanEnd = Math.max(runEnd, lastSaid, 1);
}

function nameOf(command) {
  return command.item === undefined ? command.home.name : `${command.home.name} [${command.item}]`;
}

function pill(state, word = STATES[state].word) {
  return element('span', { class: `pill ${state}` }, element('span', { 'aria-hidden': 'true', text: `${STATES[state].sign} ` }), word);
}

root = JSON.parse(at('data').textContent);
