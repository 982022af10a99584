// What is known of the chosen line: the run, a step or a command.
function showDetails(row) {
  const home = at('details');
  if (row.task) home.replaceChildren(...ofTask(row));
  else if (row.command) home.replaceChildren(...ofCommand(row.command));
  else if (row.step !== undefined) home.replaceChildren(...ofStep(steps[row.step]));
  else home.replaceChildren(...ofRun());
  home.scrollTop = 0;
}

function ofRun() {
  return [
    head('The run', stateOfRun, run.status.toLowerCase()),
    run.error ? failure(run.error) : null,
    ...firstFailures(commands),
    ...texts('Workload', run.workload, 'No workload is in the events.'),
  ].filter(Boolean);
}

function ofStep(step) {
  const times = step.commands.map(took).filter((time) => time !== null).sort((one, other) => one - other);
  const facts = [['kind', kindWord(step.kind)], ['commands', step.commands.length || null], ['failed', step.failed || null], ['let pass', step.passed || null]];
  if (times.length > 1) facts.push(['shortest', duration(times[0])], ['middle', duration(times[times.length >> 1])], ['longest', duration(times[times.length - 1])]);
  return [
    head(step.name, step.state),
    step.text ? element('p', { class: 'quiet', text: step.text }) : null,
    list(facts),
    step.commands.length ? null : element('p', { class: 'quiet', text: 'No command of this step is in the events.' }),
    ...firstFailures(step.commands),
    ...waysOf(step),
  ].filter(Boolean);
}

function ofCommand(command) {
  const step = command.home, begin = beginOf(command), end = endOf(command), issued = timeOf(command, 'issued');
  const waited = issued !== null && begin !== null ? Math.max(0, begin - issued) : null;
  const facts = [
    ['kind', kindWord(step.kind || command.kind || '')], ['took', duration(took(command))], ['waited', duration(waited)],
    ['attempts', command.attempts || null], ['worker', command.worker], ['claimed', begin === null ? 'no event says so' : clock(begin)],
    ['ended', end === null ? 'no event says so' : clock(end)], ['command', command.id], ['event', command.event],
  ];
  return [
    head(nameOf(command), command.state),
    step.text && !step.isFolded ? element('p', { class: 'quiet', text: step.text }) : null,
    command.error ? failure(command.error, command.state === 'passed' ? 'let pass: ' : '') : null,
    ...texts('Answer', command.answer),
    ...childOf(command),
    ...texts('Item', command.value),
    ...tasksOf(command),
    ...texts('Printed', command.printed),
    ...texts('Output', command.output, end === null ? '' : 'No value is in the events.'),
    ...(command.tasks ? [] : texts('Input', command.input, 'No input is in the events.')),
    ...besideOther(command),
    list(facts),
    ...(step.isFolded || command.shift ? [] : waysOf(step)),
  ].filter(Boolean);
}

function childOf(command) {
  if (!command.child) return [];
  const child = root.children[command.child];
  if (!child) return [element('h3', { text: 'Child execution' }), element('p', { class: 'quiet', text: `${command.child}, which is not on this page.` })];
  const said = `${many(child.commands.length, 'command')}, ${child.run.status.toLowerCase()}`;
  return [element('h3', { text: 'Child execution' }), element('p', {}, element('a', { class: 'link', href: linkTo(command.child), text: child.run.path || command.child }), element('span', { class: 'quiet', text: ` ${said}` }))];
}

function tasksOf(command) {
  if (!command.tasks) return [];
  const items = command.tasks.flatMap((task, number) => rowsOfTask(command, task, number, 2)).map((row) => element('li', { class: row.state },
    element('span', { class: 'sign', 'aria-hidden': 'true', text: `${STATES[row.state].sign} ` }),
    element('button', { type: 'button', class: 'link', text: row.name, on: { click: () => { opened.add(keyOf({ command })); choose(row, true); } } }),
    element('span', { class: 'quiet', text: [kindWord(row.task.kind), row.tried ? duration(row.tried.took) : '', row.tried ? row.tried.error.split('\n', 1)[0] : ''].filter(Boolean).map((word) => ` ${word}`).join(',') })));
  return [element('h3', { text: 'Tasks' }), element('ul', { class: 'plain tasks' }, ...items)];
}

const THEN = { continue: 'the list went on', jump: 'another task followed', break: 'the list ended', retry: 'it was tried again', fail: 'the list failed' };

function ofTask({ command, task, tried, name, state }) {
  const facts = [['kind', kindWord(task.kind)], ['took', tried ? duration(tried.took) : ''], ['then', tried && tried.error ? THEN[tried.then] || tried.then : ''], ['of', nameOf(command)]];
  return [
    head(name, state),
    tried && tried.error ? failure(tried.error) : null,
    ...texts('Answer', tried && tried.answer),
    ...texts('Item', command.value),
    ...texts('Printed', tried && tried.printed),
    ...texts('Output', state === 'done' ? task.output : null),
    ...texts('Input', task.input),
    list(facts),
  ].filter(Boolean);
}

function head(name, state, word) {
  return element('div', { class: 'heading' }, element('h2', { text: name }), pill(state, word));
}

function list(facts) {
  const shown = facts.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return element('dl', { class: 'table' }, ...shown.flatMap(([name, value]) => [element('dt', { text: name }), element('dd', { text: value })]));
}

function failure(text, before = '') {
  return element('pre', { class: before ? 'failure passed' : 'failure', tabindex: '0', role: 'region', 'aria-label': 'Error', text: before + text });
}

function texts(title, found, otherwise) {
  if (!found || found.length === 0) return otherwise ? [element('h3', { text: title }), element('p', { class: 'quiet', text: otherwise })] : [];
  return [element('h3', { text: title }), ...found.flatMap(([name, text, whole]) => [
    name ? element('h4', { text: name }) : null,
    element('pre', { tabindex: '0', role: 'region', 'aria-label': name ? `${title}, ${name}` : title, text }),
    whole ? element('p', { class: 'quiet', text: `Cut here: ${whole.toLocaleString('en')} characters in all.` }) : null,
  ])].filter(Boolean);
}

// Errors that are the same are told once, with their number.
function firstFailures(found) {
  return [...failuresIn(found, 'failed', 'Failed'), ...failuresIn(found, 'passed', 'Let pass')];
}

function failuresIn(found, state, title) {
  const told = new Map();
  for (const command of found) {
    if (command.state !== state) continue;
    const name = `${command.home.name}: ${(command.error || 'failed without a text').split('\n', 1)[0]}`;
    const known = told.get(name);
    if (known) known.count += 1;
    else told.set(name, { command, count: 1 });
  }
  if (told.size === 0) return [];
  const items = [...told].slice(0, 8).map(([text, { command, count }]) => element('li', {},
    element('button', { type: 'button', class: 'link', text, on: { click: () => choose({ command }, true) } }),
    count > 1 ? element('span', { class: 'quiet', text: ` and ${many(count - 1, 'more')}`.replace('mores', 'more') }) : null));
  return [element('h3', { text: title }), element('ul', { class: 'plain' }, ...items)];
}

function waysOf(step) {
  if (step.ways.length === 0) return [];
  const items = step.ways.map((way) => element('li', { class: way.taken ? 'taken' : 'open' },
    element('button', { type: 'button', class: 'link', text: steps[way.to].name, on: { click: () => choose({ step: way.to }, true) } }),
    element('span', { class: 'quiet', text: way.taken ? ' taken' : ' not taken' }),
    way.when ? element('code', { text: `when ${way.when}` }) : null));
  return [element('h3', { text: 'Next' }), element('ul', { class: 'plain ways' }, ...items)];
}
