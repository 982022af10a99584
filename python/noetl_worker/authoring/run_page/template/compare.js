// Two executions beside each other: a command and its partner have the same step, item and turn.
const COMPARED = { output: 'output', printed: 'what it printed', error: 'error', input: 'input', state: 'outcome' };
const MOST_COMPARED = 200;
const CHANGING = /\\n *\\"(elapsed|date|duration_ms|execution_id)\\": [^\n]*?(?=\\n)/g;  // in JSON of a text that is JSON
const compared = (command, name) => JSON.stringify(name === 'input' ? [command.input, (command.tasks || []).map((task) => task.input)] : command[name])?.replace(CHANGING, '');

function pairUp() {
  const partners = new Map();
  link(data.against, 0);
  eachTurn(data.against.commands, (key, command) => partners.set(key, command));
  eachTurn(commands, (key, command) => {
    const other = partners.get(key);
    command.other = other || null;
    command.differs = other ? Object.keys(COMPARED).filter((name) => compared(command, name) !== compared(other, name)) : ['state'];
  });
}

function eachTurn(found, does) {
  const turns = new Map();
  for (const command of found) {
    const name = JSON.stringify([command.home.name, command.item]), turn = turns.get(name) || 0;
    turns.set(name, turn + 1);
    does(`${name}${turn}`, command);
  }
}

function drawCompared() {
  at('compared').hidden = !data.against;
  if (!data.against) return;
  const other = data.against, there = new Map(other.steps.map((step) => [step.name, step]));
  const names = [...sorted.map((number) => steps[number].name), ...other.steps.map((step) => step.name).filter((name) => !steps.some((step) => step.name === name))];
  at('compared-title').textContent = `Beside ${other.run.path === run.path ? '' : `${other.run.path}, `}${other.run.id}`;
  const rows = names.slice(0, MOST_COMPARED).map((name) => {
    const number = steps.findIndex((step) => step.name === name);
    return comparedRow(name, number, number < 0 ? null : steps[number], there.get(name) || null);
  });
  const whole = [run.end, other.run.end];
  at('compared-rows').replaceChildren(
    comparedCells('th', ['step', 'here', 'there', 'times', 'what differs']),
    comparedCells('td', ['the whole', `${duration(whole[0])} ${run.status.toLowerCase()}`, `${duration(whole[1])} ${other.run.status.toLowerCase()}`, ratio(...whole), JSON.stringify(run.workload) === JSON.stringify(other.run.workload) ? '' : 'workload']), ...rows);
  at('compared-more').textContent = names.length > MOST_COMPARED ? `${names.length - MOST_COMPARED} more steps are not listed.` : '';
}

const comparedCells = (kind, cells) => element('tr', {}, ...cells.map((cell) => (typeof cell === 'string' ? element(kind, { text: cell, scope: kind === 'th' ? 'col' : null }) : element(kind, {}, cell))));
const ratio = (here, there) => (here === null || there === null || there <= 0 ? '' : `× ${(here / there).toFixed(here / there < 10 ? 2 : 0)}`);

function lasted(step) {
  if (step === null || step.commands.length === 0) return null;
  const span = spanOf({ step, found: step.commands });
  return span.begin === null || span.end === null ? null : span.end - span.begin;
}

function comparedRow(name, number, here, there) {
  const times = [lasted(here), lasted(there)];
  const said = (step, time) => (step === null || step.commands.length === 0 ? 'not run' : `${STATES[step.state].sign} ${duration(time)}`);
  const first = number < 0 ? name : element('button', { type: 'button', class: 'link', text: name, on: { click: () => choose({ step: number }, true) } });
  return comparedCells('td', [first, said(here, times[0]), said(there, times[1]), ratio(...times), differences(here, there)]);
}

function differences(here, there) {
  const counts = [here, there].map((step) => (step === null ? 0 : step.commands.length));
  const said = counts[0] === counts[1] ? [] : [`${many(counts[0], 'command')}, ${counts[1].toLocaleString('en')} there`];
  for (const [name, word] of Object.entries(COMPARED)) {
    const found = here === null ? 0 : here.commands.filter((command) => command.other && command.differs.includes(name)).length;
    if (found) said.push(counts[0] > 1 ? `${word} of ${found.toLocaleString('en')}` : word);
  }
  return said.join(', ');
}

// Of a command, what its partner has otherwise.
function besideOther(command) {
  if (!data.against || command.differs === undefined) return [];
  const other = command.other;
  if (other === null) return [element('h3', { text: 'There' }), element('p', { class: 'quiet', text: 'No such command.' })];
  const shown = [element('h3', { text: 'There' }), list([['took', duration(took(other))], ['outcome', command.differs.includes('state') ? STATES[other.state].word : ''], ['differs', command.differs.map((name) => COMPARED[name]).join(', ') || 'nothing']])];
  if (command.differs.includes('error') && other.error) shown.push(failure(other.error));
  for (const name of ['output', 'printed', 'input']) if (command.differs.includes(name)) shown.push(...texts(`${COMPARED[name][0].toUpperCase()}${COMPARED[name].slice(1)} there`, other[name], 'None.'));
  return shown;
}
