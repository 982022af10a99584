// What is known of the chosen line: the run, a step or a command.
function showDetails(row) {
  const home = at('details');
  if (row.command) home.replaceChildren(...ofCommand(row.command));
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
  const facts = [['kind', kindWord(step.kind)], ['commands', step.commands.length || null], ['failed', step.failed || null]];
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
  const step = steps[command.step], begin = beginOf(command), end = endOf(command);
  const waited = command.issued !== undefined && begin !== null ? Math.max(0, begin - command.issued) : null;
  const facts = [
    ['kind', kindWord(step.kind || command.kind || '')], ['took', duration(took(command))], ['waited', duration(waited)],
    ['attempts', command.attempts || null], ['worker', command.worker], ['claimed', begin === null ? 'no event says so' : clock(begin)],
    ['ended', end === null ? 'no event says so' : clock(end)], ['command', command.id], ['event', command.event],
  ];
  return [
    head(nameOf(command), command.state),
    step.text && !step.isFolded ? element('p', { class: 'quiet', text: step.text }) : null,
    command.error ? failure(command.error) : null,
    ...texts('Printed', command.printed),
    ...texts('Output', command.output, end === null ? '' : 'No value is in the events.'),
    ...texts('Input', command.input, 'No input is in the events.'),
    list(facts),
    ...(step.isFolded ? [] : waysOf(step)),
  ].filter(Boolean);
}

function head(name, state, word) {
  return element('div', { class: 'heading' }, element('h2', { text: name }), pill(state, word));
}

function list(facts) {
  const shown = facts.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return element('dl', { class: 'table' }, ...shown.flatMap(([name, value]) => [element('dt', { text: name }), element('dd', { text: value })]));
}

function failure(text) {
  return element('pre', { class: 'failure', tabindex: '0', role: 'region', 'aria-label': 'Error', text });
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
  const told = new Map();
  for (const command of found) {
    if (command.state !== 'failed') continue;
    const name = `${steps[command.step].name}: ${(command.error || 'failed without a text').split('\n', 1)[0]}`;
    const known = told.get(name);
    if (known) known.count += 1;
    else told.set(name, { command, count: 1 });
  }
  if (told.size === 0) return [];
  const items = [...told].slice(0, 8).map(([text, { command, count }]) => element('li', {},
    element('button', { type: 'button', class: 'link', text, on: { click: () => choose({ command }, true) } }),
    count > 1 ? element('span', { class: 'quiet', text: ` and ${many(count - 1, 'more')}`.replace('mores', 'more') }) : null));
  return [element('h3', { text: 'Failed' }), element('ul', { class: 'plain' }, ...items)];
}

function waysOf(step) {
  if (step.ways.length === 0) return [];
  const items = step.ways.map((way) => element('li', { class: way.taken ? 'taken' : 'open' },
    element('button', { type: 'button', class: 'link', text: steps[way.to].name, on: { click: () => choose({ step: way.to }, true) } }),
    element('span', { class: 'quiet', text: way.taken ? ' taken' : ' not taken' }),
    way.when ? element('code', { text: `when ${way.when}` }) : null));
  return [element('h3', { text: 'Next' }), element('ul', { class: 'plain ways' }, ...items)];
}
