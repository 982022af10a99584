// A page that is served: it follows its run, lists the others, cancels and runs again.
function drawRuns() {
  at('runs').hidden = false;
  at('runs').replaceChildren(...data.runs.map((one) => element('a', { href: one.id, 'aria-current': one.id === run.id ? 'page' : null },
    `${STATES[one.state].sign} ${one.path} `, element('span', { class: 'quiet', text: one.at }))));
  const act = stateOfRun === 'running' ? ['Cancel', 'cancel'] : ['Run again', 'again'];
  at('actions').replaceChildren(element('button', { type: 'button', text: act[0], on: { click: () => ask(act[1]) } }));
}

async function ask(what) {
  const answer = await fetch(`${run.id}/${what}`, { method: 'POST' });
  const { id } = await answer.json();
  if (id && id !== run.id) location.assign(id);
}

function follow(given) {
  const before = JSON.stringify(shownNow()), scrolled = at('details').scrollTop;
  take(given);
  drawHead();
  drawRuns();
  measure();
  if (JSON.stringify(shownNow()) === before) return;
  showDetails(rows.find((row) => keyOf(row) === chosen) || { level: 1 });
  at('details').scrollTop = scrolled;
}

function shownNow() {
  const row = rows.find((one) => keyOf(one) === chosen);
  if (row === undefined || (row.step === undefined && !row.command)) return [run.status, run.error, failedCount];
  return row.command ? [row.command.state, row.command.ended, row.command.attempts, row.command.child] : steps[row.step].commands.map((command) => [command.state, command.ended]);
}

drawRuns();
const told = new EventSource(`${run.id}/events`);
told.onmessage = (event) => follow(JSON.parse(event.data));
told.onerror = () => { at('made').textContent = 'Nobody serves this page any more: what is here stays.'; };
